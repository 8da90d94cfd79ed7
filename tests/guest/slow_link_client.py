# SPDX-License-Identifier: Apache-2.0
#
# The client of slow_link.sh.
#
# Usage: slow_link_client.py SOCKET IMAGE checkpoint COPY SEED BYTES BLOCKS
#        slow_link_client.py SOCKET IMAGE rollback
#
#   checkpoint  writes so many bytes that do not shrink, at a place of their own for each seed,
#               makes a copy of the image and asks for a checkpoint. Once that is cut it overwrites
#               so many blocks, one after the other and no two of them side by side: first an eighth
#               of them where it wrote before, which is being shipped. Prints the checkpoint's
#               answer, and in it whether that came before those were written, and how long the
#               slowest took.
#   rollback    goes back to the last checkpoint. Prints the answer, and how long it took.

import json
import random
import select
import shutil
import socket
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "integration"))
from nbd_client import NbdClient  # it starts faster than libnbd, in emulation

BLOCK = 4096
PIECE = 65536
FILL_EVERY = 4 << 20


class Control:
    """A connection to the control socket (docs/control-protocol.md)."""

    def __init__(self, image):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(f"{image}.ckpt/control.sock")
        self._lines = self._socket.makefile("r")

    def ask(self, command, **fields):
        request = {"schema": 1, "command": command, **fields}
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def has_answer(self):
        return bool(select.select([self._socket], [], [], 0)[0])

    def answer(self):
        lines = map(json.loads, self._lines)
        return next(line for line in lines if line["type"] != "progress")

    def epoch(self):
        self.ask("status")
        return self.answer()["epoch"]


def fill(client, draw, filled):
    for at in range(filled.start, filled.stop, PIECE):
        client.write(at, draw.randbytes(PIECE))


def choose(draw, size, filled, count):
    """Offsets of blocks in what was filled, and of others anywhere."""
    inside = draw.sample(filled[::2 * BLOCK], count // 8)
    rest = set(range(0, size, 2 * BLOCK)) - set(inside)
    return inside, draw.sample(sorted(rest), count - len(inside))


def overwrite(client, draw, offsets):
    """How many seconds the slowest took."""
    slowest = 0.0
    for offset in offsets:
        data = draw.randbytes(BLOCK)
        began = time.monotonic()
        client.write(offset, data)
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def cut(image):
    """Asks for a checkpoint; returns once it is cut, with who has the answer later."""
    asked, status = Control(image), Control(image)
    before = status.epoch()
    asked.ask("checkpoint", timeout_ms=120000)
    while status.epoch() == before and not asked.has_answer():
        pass
    return asked


def checkpoint(client, image, copy, seed, size, count):
    draw = random.Random(seed)
    filled = range(seed * FILL_EVERY, seed * FILL_EVERY + size)
    inside, others = choose(draw, client.size, filled, count)
    fill(client, draw, filled)
    shutil.copyfile(image, copy)
    asked = cut(image)
    slowest = overwrite(client, draw, inside)
    answered_first = asked.has_answer()
    slowest = max(slowest, overwrite(client, draw, others))
    return {**asked.answer(), "answered_first": answered_first,
            "slowest_write_ms": round(slowest * 1000)}


def roll_back(image):
    control = Control(image)
    began = time.monotonic()
    control.ask("rollback")
    answer = control.answer()
    return {**answer, "took_ms": round((time.monotonic() - began) * 1000)}


def main():
    nbd_socket, image, command, *words = sys.argv[1:]
    if command == "rollback":
        said = roll_back(image)
    else:
        with NbdClient(nbd_socket, timeout=200) as client:
            said = checkpoint(client, image, words[0], *map(int, words[1:]))
    print(json.dumps(said))


main()
