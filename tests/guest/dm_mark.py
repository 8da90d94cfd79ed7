# SPDX-License-Identifier: Apache-2.0
#
# Marks in the log of a dm-log-writes device: "dmsetup message NAME 0 mark TEXT" without starting a
# program, since there is one for each line of a load's log.

import fcntl
import struct

# linux/dm-ioctl.h: DM_TARGET_MSG is _IOWR(0xfd, 14, struct dm_ioctl).
HEADER = struct.Struct("=3I7IQ128s129s7x")
VERSION = (4, 0, 0)
TARGET_MSG = 3 << 30 | HEADER.size << 16 | 0xFD << 8 | 14
FIRST_SECTOR = struct.pack("=Q", 0)  # struct dm_target_msg: of the table's target that is meant


class Marker:
    def __init__(self, name):
        self.name = name.encode()
        self.control = open("/dev/mapper/control", "rb")

    def mark(self, text):
        """In the log when it returns, though not yet on the log's disk."""
        data = FIRST_SECTOR + f"mark {text}".encode() + b"\0"
        head = HEADER.pack(
            *VERSION, HEADER.size + len(data), HEADER.size, 0, 0, 0, 0, 0, 0, self.name, b""
        )
        fcntl.ioctl(self.control, TARGET_MSG, bytearray(head + data))
