# SPDX-License-Identifier: Apache-2.0
#
# Reads the log of dm-log-writes (Linux, Documentation/admin-guide/device-mapper/log-writes.rst and
# the structures in drivers/md/dm-log-writes.c): what power_cut_record.sh recorded.

import mmap
import struct
from collections import defaultdict

SECTOR_BYTES = 512
MAGIC, VERSION = 0x6A736677736872, 1
SUPER = struct.Struct("<QQQI")  # magic, version, entries, bytes of a sector
ENTRY = struct.Struct("<QQQQ")  # sector, sectors, flags, bytes of a mark
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


class LogError(Exception):
    pass


class Entry:
    """What was done at one place of a log."""

    def __init__(self, sector, count, flags, data):
        self.sector = sector
        self.count = count
        self.flags = flags
        self.data = data  # nothing of a discard
        self.disk = None  # its index, and sector is within it: see Recording
        self.durable_at = None  # the place of the flush that makes it durable

    def is_write(self):
        return self.count > 0

    def end(self):
        return self.sector + self.count


def read_entries(path):
    """All of a log, in its order: writes once they are flushed, a FUA write or mark at once."""
    with open(path, "rb") as file:
        log = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    magic, version, entries, sector_bytes = SUPER.unpack_from(log)
    if (magic, version, sector_bytes) != (MAGIC, VERSION, SECTOR_BYTES):
        raise LogError(f"{path} is not a log of writes")
    offset = SECTOR_BYTES
    for _ in range(entries):
        sector, count, flags, mark_bytes = ENTRY.unpack_from(log, offset)
        start = offset + (ENTRY.size if flags & MARK else SECTOR_BYTES)
        length = mark_bytes if flags & MARK else 0 if flags & DISCARD else count * SECTOR_BYTES
        yield Entry(sector, count, flags, log[start : start + length])
        offset += SECTOR_BYTES + (0 if flags & (MARK | DISCARD) else length)


class Recording:
    """The log of a device that is two disks with a cache each, half of it each, in the order in
    which things were done: a write was done before the first flush of either disk after it.

    This holds if flushes end in the order in which they began. What was done before one is in the
    log before its end, and is taken at its beginning: if another one begins later and ends sooner,
    that seems to have left it out (seen, as lost writes and as writes in the wrong order). Hence
    one processor; and flushes that go no further, since one with FUA on a disk without makes two,
    and the other may be done with the second.

    It is durable at the first flush of its own disk after it; a FUA write is at once. An empty
    flush has no sector, but device-mapper's linear target adds the start of the half to it all the
    same (Linux, drivers/md/dm-linear.c): so the log says whose it is.
    """

    def __init__(self, path, disk_sectors):
        self.entries = list(read_entries(path))
        unflushed = defaultdict(list)
        for place, entry in enumerate(self.entries):
            if entry.flags & MARK:
                continue
            entry.disk, entry.sector = divmod(entry.sector, disk_sectors)
            if entry.flags & FLUSH:
                for write in unflushed.pop(entry.disk, []):
                    write.durable_at = place
            if entry.is_write():
                self.add_write(place, entry, unflushed[entry.disk])

    @staticmethod
    def add_write(place, entry, unflushed):
        if entry.flags & FUA:
            entry.durable_at = place
        else:
            unflushed.append(entry)

    def marks(self):
        """(place, text) of each."""
        return [
            (place, entry.data.decode())
            for place, entry in enumerate(self.entries)
            if entry.flags & MARK
        ]
