# SPDX-License-Identifier: Apache-2.0
#
# What the product makes of the disks after a power cut: mounts them where they were in the guest,
# in a mount namespace of its own, lets it recover, and audits every sector.

import ctypes
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from power_cut_audit import read_contents
from power_cut_disks import DISKS

CLONE_NEWNS = 0x20000  # sched.h
IMAGE = Path("/media/primary/disk.img")
STORE_FOLDER = Path("/media/store/ckpt")
NOTHING_YET = 4  # ckpt-tool's exit code: nothing confirmed
PATIENCE_SECONDS = 120
MOUNT_OPTIONS = {"ext4": "loop", "xfs": "loop,nouuid"}
CHECK_FILE_SYSTEM = {"ext4": ["e2fsck", "-fn"], "xfs": ["xfs_repair", "-n"]}

# docs/ckpt-formats.pod and plugin/volume_record.cc: four slots, each with its generation, a header
# and then the record with its flags.
SLOTS, SLOT_BYTES, GENERATION, FLAGS = 4, 65536, 8, 68
HAS_INTENT, HAS_ROLLBACK = 32, 64


class Wrong(Exception):
    """The product or a file system did what it must not."""


def run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def must(*command):
    done = run(*command)
    if done.returncode != 0:
        raise Wrong(f"{' '.join(map(str, command))}: exit code {done.returncode}: "
                    f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def recorded_flags():
    """Of the newest record, and whether both of its copies are there: one may be torn."""
    data = (IMAGE.parent / (IMAGE.name + ".ckpt") / "volume").read_bytes()
    slots = [data[i * SLOT_BYTES : (i + 1) * SLOT_BYTES] for i in range(SLOTS)]
    newest = max(slots, key=lambda slot: slot[GENERATION : GENERATION + 8][::-1])
    return int.from_bytes(newest[FLAGS : FLAGS + 4], "little"), slots.count(newest) > 1


def enter_namespace(folder):
    """Mounts of this process are its own from here on, and gone with it."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    must("mount", "--make-rprivate", "/")
    must("mount", "-t", "tmpfs", "tmpfs", "/media")
    for name in (*DISKS.values(), "run"):
        Path("/media", name).mkdir()
    os.environ["XDG_RUNTIME_DIR"] = "/media/run"
    os.environ["TMPDIR"] = str(folder)


class Recovery:
    """Of one state after the other."""

    def __init__(self, build, file_systems, device, another_boot, counters):
        self.build = Path(build)
        self.file_systems = file_systems  # of the disks, in their order
        self.counters = counters
        self.environment = {
            **os.environ, "CKPT_GUEST_DEVICE": device, "LD_PRELOAD": str(another_boot)
        }

    def tool(self, *words, allowed=(0,)):
        command = [self.build / "tools/ckpt-tool", "--json", *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              env=self.environment, timeout=PATIENCE_SECONDS)
        if done.returncode not in allowed:
            raise Wrong(f"ckpt-tool {' '.join(map(str, words))}: exit code {done.returncode}: "
                        f"{done.stdout}{done.stderr}")
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    def recover(self, state, paths, model):
        """Raises Wrong if anything is not as it must be."""
        self.model = model
        try:
            self.mount(paths)
            self.look(state)
            if state.serve:
                self.serve_on()
            else:
                self.roll_back(state)
        finally:
            self.unmount()
        for fs, path in zip(self.file_systems, paths):
            must(*CHECK_FILE_SYSTEM[fs], path)

    def mount(self, paths):
        for fs, path, name in zip(self.file_systems, paths, DISKS.values()):
            must("mount", "-t", fs, "-o", MOUNT_OPTIONS[fs], path, f"/media/{name}")

    def unmount(self):
        for name in DISKS.values():
            run("umount", f"/media/{name}")

    def look(self, state):
        """Before anything is recovered: what was flushed is there."""
        flags, certain = recorded_flags()
        in_flight = self.model.asked is not None
        self.counters["during a checkpoint"] += in_flight
        self.counters["between intent and answer"] += in_flight and bool(flags & HAS_INTENT)
        self.counters["during a rollback"] += self.model.going_back
        self.half_restored = certain and bool(flags & HAS_ROLLBACK)
        self.counters["between the record of a rollback and its end"] += self.half_restored
        if not self.half_restored:
            self.check_flushed("there")
        self.exported = None
        if state.kind == "store":
            self.export()

    def contents(self, disk):
        return read_contents(str(disk), self.model)

    def check_flushed(self, where):
        """A rollback that is not on record, or not twice, has not begun, or is over."""
        contents, model = self.contents(IMAGE), self.model
        restored = model.going_back and model.audit_checkpoint(contents, model.last)
        if not restored and not model.audit_flushed(contents):
            raise Wrong(f"what was flushed is not {where}")

    def check_checkpoint(self, disk, number, what):
        if not self.model.is_possible(number):
            raise Wrong(f"{what} is checkpoint {number}, answered last was {self.model.last}")
        if not self.model.audit_checkpoint(self.contents(disk), number):
            raise Wrong(f"{what} is not checkpoint {number}")

    def export(self):
        """Of the store alone, without its primary."""
        copy = Path(os.environ["TMPDIR"], "exported")
        copy.unlink(missing_ok=True)
        code, answer = self.tool("export", STORE_FOLDER, "last", copy, allowed=(0, NOTHING_YET))
        if code == NOTHING_YET:
            if self.model.last is not None:
                raise Wrong("the store has no checkpoint")
            return
        self.exported = answer["checkpoint"]
        self.counters["exported from the store alone"] += 1
        self.check_checkpoint(copy, self.exported, "the store's")

    def count_in_flight(self, number):
        if self.model.asked is not None:
            came = "exists" if number not in (None, self.model.last) else "does not exist"
            self.counters["checkpoint in flight " + came] += 1

    def roll_back(self, state):
        code, answer = self.tool("rollback", IMAGE, "--yes", allowed=(0, NOTHING_YET))
        if code == NOTHING_YET:
            if self.model.last is not None or self.exported is not None:
                raise Wrong(f"no checkpoint: {answer}")
            self.count_in_flight(None)
            return
        number = answer["checkpoint"]
        self.count_in_flight(number)
        self.check_checkpoint(IMAGE, number, "the disk rolled back")
        if state.kind == "store" and number != self.exported:
            raise Wrong(f"the store had {self.exported}, the rollback gave {number}")

    def serve_on(self):
        """Without a rollback, to the next checkpoint, after which both sides are the same."""
        server = self.start_server()
        try:
            _, status = self.tool("status", IMAGE)
            self.counters["start knew what may be changed"] += (
                status["changed_bytes"] < status["size_bytes"]
            )
            if self.half_restored:
                self.check_checkpoint(IMAGE, self.model.last, "the disk served")
            else:
                self.check_flushed("served")
            last = status["last_checkpoint"]
            self.count_in_flight(last and last["checkpoint"])
            number = self.tool("checkpoint", IMAGE)[1]["checkpoint"]
            if number <= max([0, *self.model.checkpoints]):
                raise Wrong(f"checkpoint {number} has a number that was used")
        finally:
            self.stop_server(server)
        self.verify()

    def start_server(self):
        socket, pid_file = Path("/media/run/nbd.sock"), Path("/media/run/nbdkit.pid")
        pid_file.unlink(missing_ok=True)
        socket.unlink(missing_ok=True)
        command = ["nbdkit", "-f", "-U", socket, "-P", pid_file,
                   self.build / "plugin/nbdkit-ckpt-plugin.so", IMAGE,
                   f"backup=embedded:{STORE_FOLDER}"]
        self.said = open("/media/run/nbdkit.log", "w+", encoding="utf-8")
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.said,
                                  stderr=self.said, env=self.environment)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (pid_file.exists() and pid_file.read_text()):
            if server.poll() is not None or time.monotonic() > deadline:
                self.stop_server(server, signal.SIGKILL)
            time.sleep(0.005)
        return server

    def stop_server(self, server, how=signal.SIGTERM):
        server.send_signal(how)
        code = server.wait(PATIENCE_SECONDS)
        self.said.seek(0)
        said = self.said.read()
        self.said.close()
        print("".join(f"# {line}\n" for line in said.splitlines()), end="")
        if code != 0:
            raise Wrong(f"nbdkit: exit code {code}: {said[-2000:]}")

    def verify(self):
        _, answer = self.tool("verify", IMAGE)
        if answer["skipped_bytes"] != 0 or answer["mismatched_bytes"] != 0:
            raise Wrong(f"primary and store are not the same: {answer}")
