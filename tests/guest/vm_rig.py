# SPDX-License-Identifier: Apache-2.0
"""A volume, its server and its machine, and what must hold of the three: memory, disk and
checkpoint are of one instant. The machine compares its own memory with its disk, past its page
cache (vm_counter.c); from outside, the count in its paused memory is compared with the image, and
the image with the checkpoint."""

import json
import subprocess
import time

from vm_machine import Machine, QmpError, install  # isort:skip: it says where the harness is
from harness import MIB, Backupd, Server, build, run, tool

MODES = ("background", "snapshot")
STEPS_A_SECOND = 21  # of the counter, at most
ENOUGH_STEPS = 15  # to tell before from after, whatever ckpt-tool takes to say that it is done
# What makes people want a rollback.
MESS = ("rm -rf /usr/lib/files/[a-m]*"
        " && dd if=/dev/urandom of=/var/mess bs=1M count=6 2>/dev/null"
        " && dd if=/dev/urandom of=/sbin/init bs=4k count=2 conv=notrunc 2>/dev/null && sync")


def check(good, text):
    if not good:
        raise AssertionError(text)


def ok(text):
    print(f"ok - {text}", flush=True)


class Made:
    """A checkpoint of the machine, and between which counts it was made; exactly at which, once it
    has been seen from outside."""

    def __init__(self, number, before, high):
        self.number = number
        self.before = before  # the state told last before it
        self.low, self.high = before.memory, high

    def has(self, count, more=0):
        return self.low <= count <= self.high + more


class Rig:
    """In a folder of its own; the machine runs between enter and exit. An exit without an exception
    checks the end of all three."""

    def __init__(self, folder, draw, remote=False):
        folder.mkdir()
        self.folder = folder
        self.draw = draw
        self.image = folder / "root.img"
        self.files = install(self.image)
        self.backupd = Backupd(folder / "shelf", folder=folder).start() if remote else None
        words = [f"backup={self.backupd.address}"] if remote else []
        self.server = Server(self.image, *words, folder=folder)
        self.machine = Machine(self.server, folder)

    def __enter__(self):
        try:
            self.server.start()
            self.machine.boot()
        except BaseException:
            self._cleanup()
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            if kind:
                print(f"nbdkit {'runs' if self.server.running else 'has ended'}, QEMU: "
                      f"{self.machine.processes() or 'none'}, {self.status_or_none()}")
            else:
                self._end()
        finally:
            self._cleanup()

    def _cleanup(self):
        self.machine.cleanup()
        self.server.cleanup()
        if self.backupd:
            self.backupd.cleanup()

    def _end(self):
        """The machine powers off, and what it leaves is in order."""
        self.checkpoint()
        verified = tool("verify", self.image)
        check(verified["mismatched_bytes"] == 0, verified)
        self.machine.power_off()
        self.server.stop()
        run("e2fsck", "-fn", self.image)

    def attachments_folder(self):
        if self.backupd:
            return self.backupd.folder_of(self.server) / "attachments"
        return self.server.state / "store" / "attachments"

    def status_or_none(self):
        try:
            return self.machine.status()
        except (OSError, QmpError, ValueError):
            return None

    # What ckpt-tool is asked for.

    def vm_words(self, verb, *words, volume=None, qmp=None):
        monitor = [] if "--disk-only" in words else ["--qmp", qmp or self.machine.qmp_socket]
        return ["vm", verb, volume or self.image, *words, *monitor]

    def start_tool(self, *words):
        return subprocess.Popen([build() / "tools/ckpt-tool", *map(str, self.vm_words(*words))],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    def checkpoint(self, mode=None):
        """Made while the machine runs on."""
        before = self.machine.state()
        answer = tool(*self.vm_words("checkpoint", *(["--mode", mode] if mode else [])))
        after = self.machine.state()
        self.check_answer(answer, mode)
        self.check_attached(answer["checkpoint"])
        self.check_running(after)
        return Made(answer["checkpoint"], before, after.memory)

    @staticmethod
    def check_answer(answer, mode):
        check(answer["mode"] in ((mode,) if mode else MODES), f"not mode {mode}: {answer}")
        check(answer["state"] == "confirmed", answer)
        check(answer["memory_bytes"] > MIB, answer)
        check(0 < answer["flush_us"] + answer["cut_us"] <= answer["paused_us"], answer)

    def check_attached(self, number):
        """The checkpoint has the memory, and the record that belongs to it."""
        shown = tool("show", self.image, number)["attachments"]
        sizes = {one["name"]: one["size_bytes"] for one in shown}
        check(set(sizes) == {"vm", "vm-memory"} and sizes["vm-memory"] > MIB, f"attached: {shown}")
        record = self.folder / "record.json"
        tool("export", self.image, number, record, "--attachment", "vm", "--force")
        check(isinstance(json.loads(record.read_text()), dict), record.read_text())

    def roll_back(self, *words):
        answer = tool(*self.vm_words("rollback", *words, "--yes"))
        for field in ("restored_bytes", "elapsed_ms", "disk_ms", "memory_ms"):
            check(answer[field] >= 0, answer)
        return answer

    def last(self):
        return tool("list", self.image)["checkpoints"][-1]["checkpoint"]

    # What is done to the machine.

    def go_on_for_a_while(self):
        time.sleep(self.draw.uniform(0.1, 1.0))

    def make_mess(self):
        """The state after it, and some steps later."""
        state = self.machine.state()
        self.machine.shell(MESS)
        return self.machine.counts_on(state, ENOUGH_STEPS)

    def pause(self):
        with self.machine.monitor() as monitor:
            monitor.command("stop")

    def resume(self):
        with self.machine.monitor() as monitor:
            monitor.command("cont")

    # What must hold.

    def check_running(self, since):
        """It runs and counts on; returns the state."""
        check(self.machine.status() == "running", f"the machine is {self.machine.status()}")
        return self.machine.counts_on(since)

    def check_back(self, made, began, late=None):
        """It runs, and is back at `made` by what began at that time; it was at `late` before."""
        back = self.machine.state()
        elapsed = time.monotonic() - began
        check(made.has(back.memory, more=STEPS_A_SECOND * elapsed + 1),
              f"count {back.memory}, checkpoint {made.low} to {made.high}, {elapsed:.1f} s ago")
        check(back.uptime >= made.before.uptime, f"up {back}, checkpoint after {made.before}")
        if late:
            check(back.memory < late.memory and back.uptime < late.uptime,
                  f"not gone back: {back}, before {late}")
        check(back.physical == made.before.physical, "another machine")
        self.check_running(back)

    def check_files(self):
        """Each is as it was installed, read from the disk."""
        says = self.machine.shell("echo 3 >/proc/sys/vm/drop_caches;"
                                  " sha256sum -c /manifest 2>/dev/null | grep -c ': OK$'; true")
        check(int(says) == self.files, f"{says} files of {self.files} are as installed")

    def check_file_system(self):
        """Frozen between two steps, the disk by itself is clean and has the count."""
        copy = self.folder / "copy.img"
        self.machine.must("freeze")
        state = self.machine.state()
        run("cp", "--sparse=always", self.image, copy)
        self.machine.must("thaw")
        run("e2fsck", "-fn", copy)
        found, lines = counted(copy)
        check(found == lines == state.memory, f"{found} and {lines} on the disk, in memory {state}")
        copy.unlink()

    def check_paused(self, made):
        """Back at the checkpoint, and not a step further: disk, memory and checkpoint are one."""
        check(self.machine.status() != "running", "the machine runs")
        count = self.machine.count_in_memory(made.before)
        check(made.has(count), f"{count} in memory, checkpoint {made.low} to {made.high}")
        made.low = made.high = count
        exported = self.folder / "checkpoint.img"
        tool("export", self.image, "last", exported)
        run("cmp", self.image, exported)
        check_within_a_step(exported, count)
        exported.unlink()

    def check_goes_back(self, made, late=None):
        """Again, step by step, and with all that is on the disk."""
        self.roll_back("--paused")
        self.check_paused(made)
        began = time.monotonic()
        self.resume()
        self.check_back(made, began, late)
        self.check_files()
        self.check_file_system()


def counted(image):
    """What the files in an image say: the count, and how many lines the log has, without a gap."""
    count = int(run("debugfs", "-R", "cat /var/counter", image).split()[0])
    lines = run("debugfs", "-R", "cat /var/log/count", image).split()
    check(lines == [str(number + 1) for number in range(len(lines))], f"the log: {lines}")
    return count, len(lines)


def check_within_a_step(image, count):
    """A disk that nobody told of the cut: its journal is replayed, then it is clean, and the step
    that was being made is there in part (vm_counter.c)."""
    done = subprocess.run(["e2fsck", "-fy", image], capture_output=True, text=True)
    check(done.returncode in (0, 1), f"e2fsck: {done.stdout}")
    run("e2fsck", "-fn", image)
    found, lines = counted(image)
    check(count - 1 <= found <= lines <= count,
          f"{found} and {lines} on the disk, {count} in memory")
