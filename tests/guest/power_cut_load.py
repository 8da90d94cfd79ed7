# SPDX-License-Identifier: Apache-2.0
#
# The load of the power-cut test: writes self-describing sectors over NBD and takes checkpoints,
# until the power goes. One thread and one request at a time, so that the log says exactly what the
# disk was at every instant.
#
# Usage: power_cut_load.py SOCKET IMAGE CKPT_TOOL LOG CANARY MODE CHECKPOINTS SEED
#
# After CHECKPOINTS checkpoints it asks for the power cut, on the console, and goes on: MODE
# "writing" in the middle of an epoch, "checkpoint" with a checkpoint in flight.

import json
import os
import random
import subprocess
import sys
import time

import nbd

from sector_log import FILL_BYTES, SECTOR_BYTES, LogWriter, Operation, encode_sector

CUT_REQUEST = "cut the power now"  # run.sh waits for this line
OPS_PER_EPOCH = 40
MAX_SECTORS = 64  # 32 KiB: also less than a block, unaligned, and many blocks


class Load:
    def __init__(self, handle, log, volume, rng):
        self.handle = handle
        self.log = log
        self.volume = volume
        self.rng = rng
        self.sector_count = handle.get_size() // SECTOR_BYTES
        self.sequence = 0
        self.epoch = 0

    def choose_operation(self):
        rng = self.rng
        self.sequence += 1
        kind = rng.choices("wfzt", weights=(80, 8, 6, 6))[0]
        count = rng.choice((1, 3, 8, rng.randint(1, MAX_SECTORS)))
        # Half of them in the first 1/16 of the disk: rewrites and overlaps, and marked regions
        # next to regions that hardly ever are.
        space = self.sector_count // rng.choice((1, 16))
        first = rng.randrange(space - count)
        if count == 8:
            first -= first % 8
        return Operation(self.sequence, kind, first, count)

    def issue(self, op):
        offset, length = op.sectors.start * SECTOR_BYTES, len(op.sectors) * SECTOR_BYTES
        if op.kind == "z":
            self.handle.zero(length, offset)
        elif op.kind == "t":
            self.handle.trim(length, offset)
        else:
            flags = nbd.CMD_FLAG_FUA if op.kind == "f" else 0
            self.handle.pwrite(self.payload(op), offset, flags)

    def payload(self, op):
        fill = self.rng.randbytes(FILL_BYTES // 2).ljust(FILL_BYTES, b".")
        return b"".join(
            encode_sector(self.volume, sector, op.sequence, self.epoch, fill)
            for sector in op.sectors
        )

    def step(self):
        """One operation, now and then with a flush after it."""
        op = self.choose_operation()
        self.log.operation(op)
        self.issue(op)
        if op.kind == "f":
            self.log.line("done", op.sequence)
        if self.rng.random() < 0.05:
            self.handle.flush()
            self.log.line("flushed", op.sequence)

    def steps(self, count):
        for _ in range(count):
            self.step()


class Checkpointer:
    """Takes checkpoints of a load, with writes going on meanwhile or not."""

    def __init__(self, load, tool, image):
        self.load = load
        self.command = [tool, "--json", "checkpoint", image]
        self.seconds = 0.0  # the last one took
        self.number = 0  # the last one's

    def begin(self):
        self.load.log.line("cut", self.load.sequence)
        self.began = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE)

    def end(self):
        """Waits for the answer and logs it; anything but success ends the load."""
        output, _ = self.process.communicate()
        if self.process.returncode != 0:
            sys.exit(f"not ok - checkpoint: exit code {self.process.returncode}: {output!r}")
        self.number = json.loads(output.splitlines()[-1])["checkpoint"]
        self.load.log.line("exists", self.number, self.load.sequence)
        self.seconds = time.monotonic() - self.began
        self.load.epoch += 1

    def checkpoint(self, busy):
        self.begin()
        while busy and self.process.poll() is None:
            self.load.step()
        self.end()


def write_canary(path):
    """A file that is in the page cache only: a true power cut takes it away."""
    with open(path, "w", encoding="ascii") as file:
        file.write("not synced\n" * 1000)


def request_cut(load, checkpointer, mode):
    """Brings the load to where the cut is wanted, then asks for it."""
    if mode == "checkpoint":
        checkpointer.begin()
        deadline = checkpointer.began + load.rng.uniform(0, checkpointer.seconds)
        while time.monotonic() < deadline:
            load.step()
    else:
        load.steps(load.rng.randrange(OPS_PER_EPOCH))
    print(CUT_REQUEST, flush=True)
    if mode == "checkpoint":
        while checkpointer.process.poll() is None:
            load.step()
        checkpointer.end()


def main():
    socket, image, tool, log_path, canary, mode, checkpoints, seed = sys.argv[1:]
    rng = random.Random(seed)
    handle = nbd.NBD()
    handle.connect_unix(socket)
    volume = os.urandom(16)
    log = LogWriter(log_path, volume, handle.get_size() // SECTOR_BYTES)
    load = Load(handle, log, volume, rng)
    checkpointer = Checkpointer(load, tool, image)
    for number in range(int(checkpoints)):
        load.steps(OPS_PER_EPOCH)
        checkpointer.checkpoint(busy=number % 2 == 1)
    write_canary(canary)
    request_cut(load, checkpointer, mode)
    while True:  # until the power goes
        load.steps(OPS_PER_EPOCH)
        checkpointer.checkpoint(busy=True)


if __name__ == "__main__":
    main()
