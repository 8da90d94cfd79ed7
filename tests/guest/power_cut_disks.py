# SPDX-License-Identifier: Apache-2.0
#
# Makes the disks of power_cut_record.sh as a power cut may have left them.

import random
import subprocess
from pathlib import Path

from sector_log import MAGIC
from write_log import DISCARD, FLUSH, FUA, SECTOR_BYTES

PRIMARY, STORE = 0, 1
DISKS = {PRIMARY: "primary", STORE: "store"}
# ext4's super block has a checksum and is read before the journal: a torn one is not mounted any
# more (seen). It counts on a disk that writes these two sectors as one.
SUPER_BLOCK = range(2, 4)
KEPT_SHARES = (0.1, 0.5, 0.9)


class State:
    """A power cut at one place of the recording, where a flush or FUA write was done.

    "flush": just after that; of what was not flushed nothing was kept. The others are just before
    that: "dropped": each write that was not flushed was kept or not; "torn": or some of its sectors
    were; "store": so for the store's disk, and the primary's kept all, as if it had been another
    machine's.
    """

    KINDS = ("flush", "dropped", "torn", "store")

    def __init__(self, number, place, kind, seed, serve):
        self.number = number
        self.place = place
        self.kind = kind
        self.seed = seed
        self.serve = serve  # recovered by a server, and not by a rollback without one
        self.lost = lambda entry, place: False  # what a disk that lies would have lost
        self.dropped = self.torn = 0

    def __str__(self):
        way = "served" if self.serve else "rolled back"
        return f"state {self.number}: {self.kind} at {self.place}, {way}"

    def is_durable(self, entry):
        at = entry.durable_at
        return at is not None and (at < self.place or (at == self.place and self.kind == "flush"))

    def can_tear(self, entry):
        is_super_block = entry.sector < SUPER_BLOCK.stop and entry.end() > SUPER_BLOCK.start
        return self.kind != "dropped" and entry.count > 1 and not is_super_block

    def kept_sectors(self, entry, rng):
        """Of a write that was not flushed; none, all, or some."""
        whole = range(entry.count)
        if self.kind == "flush":
            return ()
        if self.kind == "store" and entry.disk == PRIMARY:
            return whole
        if self.can_tear(entry) and rng.random() < 0.3:
            return [sector for sector in whole if rng.random() < 0.5]
        return whole if rng.random() < self.share else ()

    def begin(self):
        rng = random.Random(self.seed)
        self.share = rng.choice(KEPT_SHARES)
        self.dropped = self.torn = 0
        return rng


def write_sectors(file, entry, sectors):
    if len(sectors) == entry.count and not entry.flags & DISCARD:
        file.seek(entry.sector * SECTOR_BYTES)
        file.write(entry.data)
        return
    for sector in sectors:
        start = sector * SECTOR_BYTES
        data = bytes(SECTOR_BYTES)
        if not entry.flags & DISCARD:
            data = entry.data[start : start + SECTOR_BYTES]
        file.seek(entry.sector * SECTOR_BYTES + start)
        file.write(data)


class Disks:
    """The disks' files, for states in the order of their places."""

    def __init__(self, recording, first, folder):
        self.entries = recording.entries
        self.folder = Path(folder)
        self.ahead = {disk: 0 for disk in DISKS}  # of the base: the first entry that is not in it
        self.bases = {}
        for disk, name in DISKS.items():
            subprocess.run(["cp", "--sparse=always", first / name, self.base(disk)], check=True)
            self.bases[disk] = open(self.base(disk), "r+b")

    def base(self, disk):
        return self.folder / f"{DISKS[disk]}.base"

    def advance(self, disk, state):
        """Puts into the base what every state from here on has."""
        file = self.bases[disk]
        while self.ahead[disk] <= state.place:
            entry = self.entries[self.ahead[disk]]
            if entry.disk == disk:
                if not state.is_durable(entry) or state.lost(entry, self.ahead[disk]):
                    break
                write_sectors(file, entry, range(entry.count))
            self.ahead[disk] += 1
        file.flush()

    def make(self, state):
        """The files of both disks."""
        rng = state.begin()
        paths = []
        for disk, name in DISKS.items():
            self.advance(disk, state)
            path = self.folder / name
            subprocess.run(["cp", "--sparse=always", self.base(disk), path], check=True)
            with open(path, "r+b") as file:
                self.add(file, disk, state, rng)
            paths.append(path)
        return paths

    def add(self, file, disk, state, rng):
        for place in range(self.ahead[disk], state.place + 1):
            entry = self.entries[place]
            if entry.disk != disk or state.lost(entry, place):
                continue
            kept = range(entry.count)
            if not state.is_durable(entry):
                kept = state.kept_sectors(entry, rng)
                state.dropped += not kept
                state.torn += 0 < len(kept) < entry.count
            write_sectors(file, entry, kept)


def is_flush(entry):
    return bool(entry.flags & (FLUSH | FUA))


def is_load(entry):
    """Whether it begins with a sector of the load's."""
    return bool(entry.data) and entry.data.startswith(MAGIC)
