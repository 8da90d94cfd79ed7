# SPDX-License-Identifier: Apache-2.0
"""The page on which the plugin or backupd shows what it is doing, when the environment variable
CKPT_PHASE_FILE names a file: a little-endian uint32 a phase, not zero while the process is in it.
Each process has a page of its own, and begins in none of them."""

import mmap
import struct
import time

PHASES = ("shipping", "confirming", "applying", "rolling back")


class PhasePage:
    def __init__(self, path):
        self.path = path
        with open(path, "w+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    @property
    def environment(self):
        return {"CKPT_PHASE_FILE": str(self.path)}

    def current(self):
        """The phases the process is in, or was in when it died."""
        return {name for name, flag in zip(PHASES, struct.unpack("<4I", self._page[:16])) if flag}

    def wait_for(self, phase, seconds):
        """Spins until the phase is on; False when it does not come."""
        at = PHASES.index(phase) * 4
        deadline = time.monotonic() + seconds
        while self._page[at:at + 4] == b"\0\0\0\0":
            if time.monotonic() > deadline:
                return False
            time.sleep(0)
        return True
