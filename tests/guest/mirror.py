# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: two primaries. The image and its state directory are on a file system on an md
# mirror (md(4)); one of the two disks fails, and nobody notices; the other one alone, as another
# machine has it, is the volume; and the first one comes back.
#
# Usage: mirror.py BUILD SEED; /dev/vda and /dev/vdb are the disks of the mirror, /dev/vdc the store's.

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import nbd

from dm_disk import Disk

MD = "/dev/md0"
PRIMARY, STORE = Path("/mnt/primary"), Path("/mnt/store")
IMAGE = PRIMARY / "disk.img"
SOCKET = "/run/nbd.sock"
SIZE = 24 << 20
PIECE_MAX = 60000
PATIENCE_SECONDS = 120
failures = 0


def check(text, right):
    global failures
    failures += not right
    print(f"{'ok' if right else 'not ok'} - {text}", flush=True)


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def until(text, condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not ok - waited {PATIENCE_SECONDS} s for: {text}")
        time.sleep(0.1)


def array(name):
    return Path("/sys/block/md0/md", name).read_text(encoding="ascii").strip()


class Volume:
    """The server, its client, and what the disk is."""

    def __init__(self, build, seed):
        self.build = Path(build)
        self.draw = random.Random(int(seed))
        self.now = bytearray(SIZE)
        self.kept = bytes(SIZE)
        self.server = self.handle = None

    def start(self):
        pid_file = Path("/run/nbdkit.pid")
        for stale in (pid_file, Path(SOCKET)):
            stale.unlink(missing_ok=True)
        with open("/out/nbdkit.log", "a", encoding="utf-8") as said:
            self.server = subprocess.Popen(
                ["nbdkit", "-f", "-U", SOCKET, "-P", pid_file, self.build / "plugin/nbdkit-ckpt-plugin.so", IMAGE,
                 f"backup=embedded:{STORE}/ckpt"], stdout=said, stderr=said)
        until("nbdkit's start", lambda: self.server.poll() is not None or (pid_file.exists() and pid_file.read_text()))
        check("nbdkit serves", self.server.poll() is None)
        self.handle = nbd.NBD()
        self.handle.connect_unix(SOCKET)

    def stop(self):
        self.handle.shutdown()
        self.server.terminate()
        check("nbdkit stops cleanly", self.server.wait(PATIENCE_SECONDS) == 0)

    def kill(self):
        self.server.kill()
        self.server.wait()

    def tool(self, *words):
        done = subprocess.run([self.build / "tools/ckpt-tool", "--json", *words], stdout=subprocess.PIPE, check=False)
        answer = json.loads(done.stdout.splitlines()[-1])
        print(f"# {words[0]}: {done.returncode} {answer}", flush=True)
        return done.returncode, answer

    def write(self, count=60):
        """Whether no client was told of an error."""
        try:
            for _ in range(count):
                data = self.draw.randbytes(self.draw.randrange(1, PIECE_MAX))
                at = self.draw.randrange(SIZE - len(data))
                self.handle.pwrite(data, at)
                self.now[at:at + len(data)] = data
            self.handle.flush()
        except nbd.Error as error:
            print(f"# {error}", flush=True)
            return False
        return True

    def checkpoint(self):
        code, _ = self.tool("checkpoint", IMAGE, "--timeout", "60")
        self.kept = bytes(self.now)
        return code == 0

    def roll_back(self):
        code, _ = self.tool("rollback", IMAGE, "--clients=keep", "--yes")
        self.now = bytearray(self.kept)
        return code == 0

    def is_exact(self):
        """On the disks, and not in the page cache only."""
        run("sync")
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
        return IMAGE.read_bytes() == self.now


def make_disks():
    """Their names are those of the machines that they are in."""
    disks = {name: Disk(name, device) for name, device in (("here", "/dev/vda"), ("there", "/dev/vdb"))}
    run("mdadm", "--create", MD, "--run", "--level=1", "--raid-devices=2", "--metadata=1.2", "--bitmap=internal",
        "--homehost=any", *(disk.path for disk in disks.values()))
    for device, folder in ((MD, PRIMARY), ("/dev/vdc", STORE)):
        run("mkfs.ext4", "-q", "-F", device)
        folder.mkdir(exist_ok=True)
        run("mount", device, folder)
    return disks


def a_disk_fails(volume, disks):
    check("a checkpoint", volume.write() and volume.checkpoint())
    until("both disks are in", lambda: array("degraded") == "0" and array("sync_action") == "idle")
    disks["here"].fail_ranges([(0, disks["here"].sectors)])
    check("no client is told of a disk that fails", volume.write())
    check("the mirror noticed", array("degraded") == "1")
    check("a rollback on the other disk alone", volume.roll_back() and volume.is_exact())
    check("a checkpoint", volume.write() and volume.checkpoint())
    check("what is written after it", volume.write())


def the_other_machine(volume, disks):
    """Which has one of the two disks."""
    volume.kill()
    run("umount", PRIMARY)
    run("mdadm", "--stop", MD)
    disks["here"].heal()
    run("mdadm", "--assemble", MD, "--run", "--homehost=any", disks["there"].path)
    run("mount", MD, PRIMARY)
    volume.start()
    check("the disk is what was written", volume.is_exact())
    check("a rollback", volume.roll_back() and volume.is_exact())
    check("a checkpoint", volume.write() and volume.checkpoint())


def the_first_disk_is_back(volume, disks):
    run("mdadm", "--zero-superblock", disks["here"].path)
    run("mdadm", MD, "--add", disks["here"].path)
    check("writes while the mirror is made whole", volume.write())
    until("the mirror is whole", lambda: array("degraded") == "0" and array("sync_action") == "idle")
    disks["there"].fail_ranges([(0, disks["there"].sectors)])
    check("no client is told of the other one", volume.write())
    check("the mirror noticed", array("degraded") == "1")
    check("the disk is what was written", volume.is_exact())
    check("a rollback", volume.roll_back() and volume.is_exact())
    check("a checkpoint", volume.write() and volume.checkpoint())


def main():
    build, seed = sys.argv[1:]
    disks = make_disks()
    with open(IMAGE, "wb") as file:
        file.truncate(SIZE)
    volume = Volume(build, seed)
    volume.start()
    for phase in (a_disk_fails, the_other_machine, the_first_disk_is_back):
        print(f"# {phase.__name__}", flush=True)
        phase(volume, disks)
    volume.stop()
    code, answer = volume.tool("verify", IMAGE)
    check("primary and store are the same", code == 0 and answer["skipped_bytes"] == 0)
    sys.exit(1 if failures else 0)


main()
