# SPDX-License-Identifier: Apache-2.0
#
# The oracle of the power-cut test, shared by the load that writes and the audit that reads: the
# format of a self-describing sector, and the log of what the disk was asked and what it answered.

import os
import struct
import zlib

SECTOR_BYTES = 512
BLOCK_SECTORS = 8  # of the product: the unit in which a write in flight at the cut is in or out
ZERO_SECTOR = bytes(SECTOR_BYTES)

MAGIC = b"ckptsect"
HEADER = struct.Struct("<8s16sQQQ")  # magic, volume, sector, sequence, checkpoints answered so far
CRC = struct.Struct("<I")
FILL_BYTES = SECTOR_BYTES - HEADER.size - CRC.size

# What a sector may hold, as a number: ZEROES, the sequence of the write that it names, or FOREIGN
# when it names none (torn), or another sector (misdirected), or another volume.
ZEROES = 0
FOREIGN = -1


def encode_sector(volume, sector, sequence, epoch, fill):
    """One sector's bytes; fill is FILL_BYTES long."""
    body = HEADER.pack(MAGIC, volume, sector, sequence, epoch) + fill
    return body + CRC.pack(zlib.crc32(body))


def decode_sector(volume, sector, data):
    """What the sector holds, as a number."""
    if data == ZERO_SECTOR:
        return ZEROES
    magic, its_volume, its_sector, sequence, _ = HEADER.unpack_from(data)
    if (magic, its_volume, its_sector) != (MAGIC, volume, sector):
        return FOREIGN
    if zlib.crc32(data[: -CRC.size]) != CRC.unpack(data[-CRC.size :])[0]:
        return FOREIGN
    return sequence


class Operation:
    """A write, FUA write, zero or trim: kind is one of w, f, z, t."""

    def __init__(self, sequence, kind, first_sector, sector_count):
        self.sequence = sequence
        self.kind = kind
        self.sectors = range(first_sector, first_sector + sector_count)

    def content(self):
        """What its sectors hold afterwards."""
        return self.sequence if self.kind in "wf" else ZEROES


class LogWriter:
    """Appends one line an event. In the guest the file is on the host, uncached: a line is safe
    from the power cut when the method returns.

        volume ID SECTORS        first line
        op SEQ KIND FIRST COUNT  about to be issued; SEQ is 1, 2, 3 ...
        done SEQ                 answered (told for FUA writes only)
        flushed SEQ              a flush was answered that was issued after op SEQ was answered
        cut SEQ                  a checkpoint is about to be asked for; op SEQ is answered
        exists N SEQ             checkpoint N was answered; SEQ is the last op issued by then
        void                     it failed, and there is none
        back N                   a rollback to checkpoint N is about to be asked for
        restored N               it was answered
    """

    def __init__(self, path, volume, sector_count):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self.line("volume", volume.hex(), sector_count)

    def line(self, *words):
        os.write(self.fd, (" ".join(map(str, words)) + "\n").encode())

    def operation(self, op):
        self.line("op", op.sequence, op.kind, op.sectors.start, len(op.sectors))


def read_log(path):
    """The complete lines, as lists of words, the first one apart."""
    with open(path, encoding="ascii") as file:
        lines = [line.split() for line in file.read().split("\n")[:-1]]
    return lines[0], lines[1:]
