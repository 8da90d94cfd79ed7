# SPDX-License-Identifier: Apache-2.0
"""Real QEMU with a guest that is a boot sector, and does nothing but count, in its memory and on its
disks; and what its tests have in common."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess

from harness import MIB, UNKNOWN, Case, build, eventually, tool

NOT_FOUND = UNKNOWN
HALFWAY = 9
SIZE = 4 * MIB
COUNTER = 0x7E00  # in memory: what is written
SECTOR = 8  # on each disk: where to


def boot_sector():
    """Counts at COUNTER, and writes that sector to the first and the second disk, for ever."""
    begin = bytes.fromhex("fa31c08ed88ec08ed0bc007cfb")
    loop = bytes.fromhex("66ff06007e")
    packet_at = len(begin) + len(loop) + 2 * 10 + 2
    for disk in 0x80, 0x81:  # mov dl, disk; mov si, packet; mov ax, 0x4300; int 0x13
        loop += b"\xb2" + bytes([disk]) + b"\xbe" + struct.pack("<H", 0x7C00 + packet_at)
        loop += b"\xb8\x00\x43\xcd\x13"
    loop += b"\xeb" + struct.pack("<b", -(len(loop) + 2))
    packet = struct.pack("<BBHHHQ", 16, 0, 1, COUNTER, 0, SECTOR)
    code = begin + loop + packet
    assert len(begin + loop) == packet_at
    return code + bytes(510 - len(code)) + b"\x55\xaa"


class Qmp:
    """A client of a monitor."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r")
        json.loads(self.lines.readline())
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while "event" in (answer := json.loads(self.lines.readline())):
            pass
        if "error" in answer:
            raise AssertionError(f"{command}: {answer}")
        return answer["return"]

    def close(self):
        self.lines.close()
        self.socket.close()


class Machine:
    """A QEMU. Its second monitor is the test's own."""

    def __init__(self, case, *servers, memory=16, words=(), more=()):
        self.folder = case.folder
        self.qmp = self.folder / "qmp"
        self.own = self.folder / "own"
        self.log = self.folder / "qemu.log"
        self.successor = None
        disks = []
        for number, server in enumerate(servers):
            disks += ["-blockdev", f"driver=nbd,node-name=disk{number},server.type=unix,"
                      f"server.path={server.socket},reconnect-delay=30",
                      "-device", f"virtio-blk-pci,drive=disk{number},bootindex={number}"]
        self.words = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "pc", "-m", str(memory),
                      "-nodefaults", "-display", "none", *disks, *more,
                      "-qmp", f"unix:{self.qmp},server=on,wait=off",
                      "-qmp", f"unix:{self.own},server=on,wait=off"]
        with open(self.log, "ab") as log:
            # A limit of a file's size is an error, as Python leaves it, and no end.
            self.process = subprocess.Popen([*self.words, *words], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, restore_signals=False)
        case.addCleanup(self.end)
        eventually(lambda: self.own.exists() or self.process.poll() is not None, "QEMU starts")
        self.ask = eventually(self._connect, "QEMU answers")

    def _connect(self):
        if self.process.poll() is not None:
            raise AssertionError(f"QEMU ends: {self.log.read_text()}")
        try:
            return Qmp(self.own)
        except OSError:
            return None

    @property
    def state(self):
        return self.ask("query-status")["status"]

    def counter(self):
        """In its memory."""
        path = self.folder / "memory"
        self.ask("pmemsave", val=COUNTER, size=4, filename=str(path))
        return struct.unpack("<I", path.read_bytes())[0]

    def end(self):
        if self.successor:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.successor, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def follow(self, pid):
        """Another QEMU has taken its place, with its words."""
        self.successor = pid
        self.ask = eventually(lambda: Qmp(self.own), "QEMU answers")


def written(server):
    """The counter on a disk."""
    with open(server.image, "rb") as image:
        return struct.unpack("<I", os.pread(image.fileno(), 4, SECTOR * 512))[0]


class VmCase(Case):
    def disk(self, name="disk.img", *parameters):
        image = self.image(name, SIZE)
        with open(image, "r+b") as file:
            file.write(boot_sector())
        server = self.serve(image, *parameters)
        eventually(lambda: tool("status", image, "--state", server.state)["protected"],
                   "the first copy")
        return server

    def counting(self, *servers, **options):
        """A machine that counts on its disks."""
        machine = Machine(self, *servers, **options)
        self.assert_counts(*servers)
        return machine

    def assert_counts(self, *servers):
        for server in servers:
            before = written(server)
            eventually(lambda: written(server) > before + 5, "it counts")

    def checkpoint(self, server, machine, *words, **options):
        return tool("vm", "checkpoint", server.image, "--qmp", machine.qmp, *words, **options)

    def rollback(self, server, machine, *words, **options):
        return tool("vm", "rollback", server.image, "--qmp", machine.qmp, "--yes", *words, **options)

    def last(self, server):
        """The number of its checkpoint."""
        return tool("list", server.image)["checkpoints"][-1]["checkpoint"]

    def in_background(self, *words):
        """ckpt-tool vm, while the test goes on."""
        process = subprocess.Popen([build() / "tools/ckpt-tool", "vm", *words],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def assert_one_instant(self, counter, *servers):
        """It stands still: what its memory says was, or was about to be, written to each disk."""
        for server in servers:
            self.assertIn(counter - written(server), (0, 1))

    def refused(self, expect, *texts, servers, machine, act):
        """Nothing was done, and the machine counts on."""
        before = [tool("list", server.image)["checkpoints"] for server in servers]
        answer = act(expect=expect)
        for text in texts:
            self.assertIn(text, answer.message)
        self.assertEqual(machine.state, "running")
        self.assert_counts(*servers)
        self.assertEqual([tool("list", server.image)["checkpoints"] for server in servers], before)
        return answer

    @contextlib.contextmanager
    def new_qemu(self, answer):
        """One that was started by a rollback; it ends here."""
        pid = answer["pid"]
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)

    def when(self, condition, what, words):
        """Runs the tool, and sends it a signal as soon as it has come so far."""
        process = self.in_background(*words)
        while not (seen := condition()) and process.poll() is None:
            pass
        if seen:
            process.send_signal(what)
        process.wait(60)
        return seen
