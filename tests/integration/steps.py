# SPDX-License-Identifier: Apache-2.0
"""The steps of a real program that change a file, by name, and what is to happen at one of them
(file_steps.cc, which is loaded into the program)."""

import collections
import ctypes
import mmap
import struct

from harness import build

NOTHING, KILL_BEFORE, KILL_AFTER, FAIL, SHORT, PAUSE = range(6)

# act, number of the error or milliseconds of a pause, for good, countdown, fired, other process, step
_PAGE = struct.Struct("<IIIiIi232s")
_FIRED = 16


class Steps:
    """Of one program, over all its starts. `under`: only files below this folder."""

    def __init__(self, folder, name, under):
        self._log = folder / f"{name}.steps"
        self._log.touch()
        page = folder / f"{name}.page"
        page.write_bytes(bytes(mmap.PAGESIZE))
        with open(page, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._seen = 0
        self.environment = {
            "LD_PRELOAD": str(build() / "tests" / "integration" / "file_steps.so"),
            "CKPT_STEPS_UNDER": str(under), "CKPT_STEPS_PAGE": str(page),
            "CKPT_STEPS_LOG": str(self._log)}

    @property
    def words(self):
        """A command that runs another one with it."""
        return ["env", *(f"{name}={value}" for name, value in self.environment.items())]

    def arm(self, step, occurrence, act, number=0, for_good=False, other=0):
        """From now on: at that step, the time that `occurrence` says (1: the next)."""
        page = _PAGE.pack(NOTHING, number, for_good, occurrence, 0, other, step.encode())
        self._page[:_PAGE.size] = page
        ctypes.c_uint32.from_buffer(self._page).value = act

    def disarm(self):
        ctypes.c_uint32.from_buffer(self._page).value = NOTHING

    @property
    def fired(self):
        """How often it has happened."""
        return struct.unpack_from("<I", self._page, _FIRED)[0]

    def news(self):
        """How often each step was made since this was last asked."""
        with open(self._log, encoding="utf-8") as log:
            log.seek(self._seen)
            text = log.read()
        self._seen += len(text.encode())
        return collections.Counter(text.splitlines())
