# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: the kernel's own I/O errors under the primary and under the store, with clients
# that write and checkpoints.
#
# Usage: flaky_disk.py BUILD FS SEED; /dev/vda is the primary's disk, /dev/vdb the store's.
#
# - blocks: what holds the image's blocks fails, the file system around it does not. So a sync of
#   the image fails once, and the kernel calls the lost pages clean (PostgreSQL's fsync, 2018).
# - primary: all writes of the primary's disk fail, and its file system gives up.
# - store: all writes of the store's disk fail. No client sees anything of it.
#
# Each is over some time; then the disk is well again, and a rollback has to be exact, on the disk
# and not in the page cache only.

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import nbd

from dm_disk import Disk, sectors_of_file
from power_cut_audit import read_contents
from power_cut_load import Load
from power_cut_model import Model
from sector_log import SECTOR_BYTES, LogWriter, read_log

IMAGE = Path("/mnt/primary/disk.img")
STORE_FOLDER = Path("/mnt/store/ckpt")
SOCKET = "/run/nbd.sock"
IMAGE_MIB = 32
PATIENCE_SECONDS = 120
CHECK = {"ext4": ["e2fsck", "-fn"], "xfs": ["xfs_repair", "-n"]}
# Needs the journal replayed, or what the kernel noted of an error cleared.
MEND = {"ext4": ["e2fsck", "-p"], "xfs": ["true"]}
failures = 0


def check(text, right):
    global failures
    failures += not right
    print(f"{'ok' if right else 'not ok'} - {text}", flush=True)


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class FlakyLoad(Load):
    """Goes on after an error, and counts it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.write_errors = self.flush_errors = 0
        self.slowest = 0.0

    def issue(self, op):
        began = time.monotonic()
        try:
            super().issue(op)
        except nbd.Error:
            self.write_errors += 1
        self.slowest = max(self.slowest, time.monotonic() - began)

    def flush(self):
        try:
            self.handle.flush()
        except nbd.Error:
            self.flush_errors += 1
            return False
        return True

    def step(self):
        """One operation; flushes are asked for apart."""
        op = self.choose_operation()
        self.log.operation(op)
        self.issue(op)

    def errors(self):
        return self.write_errors + self.flush_errors


class Machine:
    """The two file systems, the server, its client and the log of what it did."""

    def __init__(self, build, fs, seed):
        self.build = Path(build)
        self.fs = fs
        self.disks = {"primary": Disk("primary", "/dev/vda"), "store": Disk("store", "/dev/vdb")}
        for name, disk in self.disks.items():
            run(f"mkfs.{fs}", "-q", "-F" if fs == "ext4" else "-f", disk.path)
            Path("/mnt", name).mkdir(exist_ok=True)
            self.mount(name)
        with open(IMAGE, "wb") as file:  # with blocks everywhere, which can fail
            file.write(bytes(IMAGE_MIB << 20))
            os.fsync(file.fileno())
        self.log_path = Path(f"/run/{fs}.log")
        self.volume = os.urandom(16)
        log = LogWriter(self.log_path, self.volume, (IMAGE_MIB << 20) // SECTOR_BYTES)
        self.start()
        self.load = FlakyLoad(self.handle, log, self.volume, random.Random(int(seed)))
        self.failed_checkpoints = 0
        self.is_unknown = False

    def mount(self, name):
        run("mount", "-t", self.fs, self.disks[name].path, f"/mnt/{name}")

    def start(self):
        pid_file = Path("/run/nbdkit.pid")
        pid_file.unlink(missing_ok=True)
        Path(SOCKET).unlink(missing_ok=True)
        plugin = self.build / "plugin/nbdkit-ckpt-plugin.so"
        command = ["nbdkit", "-f", "-U", SOCKET, "-P", pid_file, plugin, IMAGE,
                   f"backup=embedded:{STORE_FOLDER}"]
        with open("/out/nbdkit.log", "a", encoding="utf-8") as said:
            self.server = subprocess.Popen(command, stdout=said, stderr=said)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (pid_file.exists() and pid_file.read_text()):
            if self.server.poll() is not None or time.monotonic() > deadline:
                sys.exit("not ok - nbdkit did not start")
            time.sleep(0.05)
        self.connect()

    def connect(self):
        self.handle = nbd.NBD()
        self.handle.connect_unix(SOCKET)
        if hasattr(self, "load"):
            self.load.handle = self.handle

    def stop(self):
        self.handle.shutdown()
        self.server.terminate()
        return self.server.wait(PATIENCE_SECONDS)

    def tool(self, *words):
        """Its exit code and the last thing it said."""
        command = [self.build / "tools/ckpt-tool", "--json", *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        answer = json.loads(done.stdout.splitlines()[-1])
        print(f"# {words[0]}: {done.returncode} {answer}", flush=True)
        return done.returncode, answer

    def checkpoint(self):
        """Whether it was answered."""
        self.load.log.line("cut", self.load.sequence)
        code, answer = self.tool("checkpoint", IMAGE, "--timeout", "30")
        if code == 0:
            self.load.log.line("exists", answer["checkpoint"], self.load.sequence)
        elif code == 7:
            self.is_unknown = True
        else:
            self.load.log.line("void")
        self.failed_checkpoints += code != 0
        return code == 0

    def good_checkpoint(self):
        self.load.steps(20)
        check("a checkpoint", self.checkpoint())

    def model(self):
        return Model(*read_log(self.log_path))

    def check_image(self, number):
        """What is on the disk."""
        run("sync")
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
        model = self.model()
        check(f"checkpoint {number} is the last one", model.is_possible(number))
        contents = read_contents(str(IMAGE), model)
        check("the disk is exactly that checkpoint", model.audit_checkpoint(contents, number))

    def roll_back(self):
        code, answer = self.tool("rollback", IMAGE, "--clients=keep", "--yes")
        check("a rollback", code == 0)
        number = answer.get("checkpoint")
        self.check_image(number)
        if self.is_unknown and number not in self.model().checkpoints:
            self.load.log.line("exists", number, self.load.sequence)
        self.is_unknown = False
        self.load.log.line("back", number)
        self.load.log.line("restored", number)

    def check_next(self):
        """Goes on, and both sides are the same."""
        self.good_checkpoint()
        self.load.steps(5)
        self.good_checkpoint()
        check("nbdkit stops cleanly", self.stop() == 0)
        code, answer = self.tool("verify", IMAGE)
        check("primary and store are the same", code == 0 and answer["skipped_bytes"] == 0)
        self.start()

    def repair(self, name):
        """After its file system gave up: as an administrator would."""
        self.stop()
        run("umount", f"/mnt/{name}")
        self.disks[name].heal()
        mended = subprocess.run([*MEND[self.fs], self.disks[name].path], check=False)
        check("the file system is mended", mended.returncode in (0, 1))
        self.mount(name)
        self.start()

    def finish(self):
        check("nbdkit stops cleanly", self.stop() == 0)
        for name, disk in self.disks.items():
            run("umount", f"/mnt/{name}")
            checked = subprocess.run([*CHECK[self.fs], disk.path], stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL, check=False)
            check(f"the file system of {name} is clean", checked.returncode == 0)
            disk.dmsetup("remove", "--noudevsync", name)


def errors_come(machine):
    """Writes until a client is told of an error."""
    for _ in range(10):
        machine.load.steps(10)
        machine.load.flush()
        if machine.load.errors():
            return True
    return False


def begin(machine):
    """A checkpoint, of which not all has come to the disk yet."""
    load = machine.load
    load.write_errors = load.flush_errors = machine.failed_checkpoints = 0
    machine.good_checkpoint()
    check("no errors yet", load.errors() == 0)


def bad_blocks(machine):
    begin(machine)
    machine.disks["primary"].fail_ranges(sectors_of_file(IMAGE))
    check("the client is told of errors", errors_come(machine))
    check("no checkpoint while the blocks fail", not machine.checkpoint())
    machine.disks["primary"].heal()
    machine.load.steps(5)
    check("no flush is answered with success after one that failed", not machine.load.flush())
    check("no checkpoint with what may be lost in it", not machine.checkpoint())
    machine.stop()
    machine.start()
    check("nor after a restart", not machine.checkpoint())
    machine.roll_back()
    machine.check_next()


def bad_primary(machine):
    begin(machine)
    machine.disks["primary"].fail_writes()
    check("the client is told of errors", errors_come(machine))
    check("no checkpoint while the primary's disk fails", not machine.checkpoint())
    machine.repair("primary")
    machine.roll_back()
    machine.check_next()


def bad_store(machine):
    begin(machine)
    machine.disks["store"].fail_writes()
    for _ in range(3):
        machine.load.steps(10)
        check("a flush while the store's disk fails", machine.load.flush())
        check("no checkpoint while the store's disk fails", not machine.checkpoint())
    machine.repair("store")
    check("no client was told of an error", machine.load.errors() == 0)
    print(f"# the slowest request took {machine.load.slowest:.1f} s")
    machine.good_checkpoint()
    machine.check_image(max(machine.model().checkpoints))
    machine.load.steps(10)
    machine.roll_back()
    machine.check_next()


def main():
    build, fs, seed = sys.argv[1:]
    machine = Machine(build, fs, seed)
    for phase in (bad_blocks, bad_primary, bad_store):
        print(f"# {fs}: {phase.__name__}", flush=True)
        phase(machine)
        load = machine.load
        print(f"# {fs}, {phase.__name__}: {load.write_errors} writes, {load.flush_errors} flushes "
              f"and {machine.failed_checkpoints} checkpoints failed", flush=True)
        check("checkpoints failed", machine.failed_checkpoints > 0)
    machine.finish()
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
