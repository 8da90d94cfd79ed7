# SPDX-License-Identifier: Apache-2.0
"""A fresh file system of its own on a loop device, so that the age and the mount options of the
machine's do not show in the numbers. Needs root."""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

from servers import MIB

MAKE = {"ext4": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"],
        "xfs": ["mkfs.xfs", "-q", "-K"]}


def _run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _write_through(path, size):
    """A file whose blocks are all there: the file system below has nothing to allocate later."""
    zeroes = bytes(8 * MIB)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        for offset in range(0, size, len(zeroes)):
            file.write(zeroes)
            if offset % (64 * len(zeroes)) == 0:
                os.fdatasync(file.fileno())
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def fresh_file_system(kind, below, size):
    """The mount point of a new file system, without discard, on a file in the folder `below` that
    the loop device reads and writes directly. All of it is gone afterwards."""
    with contextlib.ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="ckpt-bench-fs-",
                                                                     dir=below)))
        image = folder / "image"
        _write_through(image, size)
        device = _run("losetup", "--find", "--show", "--direct-io=on", str(image))
        undo.callback(_run, "losetup", "-d", device)
        _run(*MAKE[kind], device)
        mount = folder / "mount"
        mount.mkdir()
        _run("mount", "-o", "nodiscard", device, str(mount))
        undo.callback(_run, "umount", str(mount))
        yield mount
