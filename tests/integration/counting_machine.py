# SPDX-License-Identifier: Apache-2.0
"""Real QEMU with a guest that is a boot sector, and does nothing but count, in its memory and on its
disks."""

import json
import os
import socket
import struct
import subprocess

from harness import MIB, eventually

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
            self.process = subprocess.Popen([*self.words, *words], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
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
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def written(server):
    """The counter on a disk."""
    with open(server.image, "rb") as image:
        return struct.unpack("<I", os.pread(image.fileno(), 4, SECTOR * 512))[0]
