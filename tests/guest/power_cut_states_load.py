# SPDX-License-Identifier: Apache-2.0
#
# The load of the test of a power cut at any instant: that of the power-cut test, with rollbacks,
# and a mark in the disks' log for each line of its own. Ends by itself.
#
# Usage: power_cut_states_load.py SOCKET IMAGE CKPT_TOOL LOG SEED

import os
import random
import subprocess
import sys

import nbd

from dm_mark import Marker
from power_cut_load import Checkpointer, Load
from sector_log import SECTOR_BYTES, LogWriter, Operation

OPS_PER_EPOCH = 24
PLACES = 8
# Quiet ones, ones under load, and rollbacks: to a quiet one, since only there it is known what the
# disk was.
ACTS = "quiet busy busy quiet back busy quiet busy quiet back quiet busy".split()


class WanderingLoad(Load):
    """In each epoch at one place of the disk: so most regions have no mark, some lose theirs."""

    def choose_operation(self):
        op = super().choose_operation()
        place_sectors = self.sector_count // PLACES
        shift = place_sectors * (self.epoch * 5 % PLACES)
        first = op.sectors.start // PLACES // 8 * 8 + op.sectors.start % 8
        first = min(first, place_sectors - len(op.sectors))  # not beyond the disk's end
        return Operation(op.sequence, op.kind, shift + first, len(op.sectors))


class MarkedLog(LogWriter):
    """Mark K: the first K lines after the head are in the log."""

    def __init__(self, path, volume, sector_count):
        self.marker = Marker("both")
        self.lines = -1
        super().__init__(path, volume, sector_count)

    def line(self, *words):
        super().line(*words)
        self.lines += 1
        self.marker.mark(self.lines)


def roll_back(load, tool, image, number):
    load.log.line("back", number)
    command = [tool, "--json", "rollback", image, str(number), "--clients=keep", "--yes"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    load.log.line("restored", number)


def run(load, checkpointer, tool, image):
    for act in ACTS:
        load.steps(load.rng.randrange(1, OPS_PER_EPOCH))
        if act == "back":
            roll_back(load, tool, image, checkpointer.number)
        else:
            checkpointer.checkpoint(busy=act == "busy")
            load.handle.flush()
            load.log.line("flushed", load.sequence)
    load.steps(OPS_PER_EPOCH)


def main():
    socket, image, tool, log_path, seed = sys.argv[1:]
    handle = nbd.NBD()
    handle.connect_unix(socket)
    volume = os.urandom(16)
    log = MarkedLog(log_path, volume, handle.get_size() // SECTOR_BYTES)
    load = WanderingLoad(handle, log, volume, random.Random(int(seed)))
    log.line("cut", 0)  # checkpoint 1, of the disk as it was when it was new: it is there already
    log.line("exists", 1, 0)
    run(load, Checkpointer(load, tool, image), tool, image)
    log.marker.mark("end")


main()
