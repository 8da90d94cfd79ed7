# SPDX-License-Identifier: Apache-2.0
"""Writes that are scattered over a disk and change exactly so many bytes."""

import os
import random

from paced import write_all
from servers import MIB, NbdClient

BLOCK = 4096
LONGEST_BLOCKS = 16  # 64 KiB


def places(disk_bytes, total_bytes, seed):
    """Disjoint ranges, (offset, length), of 4 to 64 KiB in whole blocks, so many bytes together, at
    random places and in random order. The same seed gives the same."""
    draw = random.Random(seed)
    lengths = _lengths(total_bytes // BLOCK, draw)
    free = (disk_bytes - total_bytes) // BLOCK
    before = sorted(draw.randrange(free + 1) for _ in lengths)  # free blocks in front of each
    found, taken = [], 0
    for gap, length in zip(before, lengths):
        found.append(((gap + taken) * BLOCK, length * BLOCK))
        taken += length
    draw.shuffle(found)
    return found


def _lengths(blocks, draw):
    """Random ones, in blocks, with that sum."""
    lengths = []
    while blocks:
        lengths.append(min(draw.randint(1, LONGEST_BLOCKS), blocks))
        blocks -= lengths[-1]
    return lengths


def write_scattered(server, disk_bytes, total_bytes, seed):
    """Writes random bytes, which do not shrink, there."""
    pool = os.urandom(16 * MIB)
    draw = random.Random(seed)

    def content(length):
        begin = draw.randrange(len(pool) - length)
        return pool[begin:begin + length]

    with NbdClient(server.socket, timeout=300) as client:
        write_all(client, ((offset, content(length))
                           for offset, length in places(disk_bytes, total_bytes, seed)))
