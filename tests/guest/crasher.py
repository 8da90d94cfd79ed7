#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts in its memory and in a file, asks for a checkpoint of itself, and fails half-way to the next
one: once after each, by a signal or an exit code in turn. Ends well at LAST.

Usage: crasher.py FILE CRASHES LOG TOOL LAST. CRASHES, outside the volume, has a byte for each crash.
LOG gets a line when memory and file do not agree."""

import os
import signal
import subprocess
import sys
import time

STEP = 40
path, crashes, log, tool, last = sys.argv[1:]


def crash():
    with open(crashes, "ab") as file:
        file.write(b".")
    way = os.path.getsize(crashes) % 3
    if way == 0:
        sys.exit(3)
    os.kill(os.getpid(), signal.SIGKILL if way == 1 else signal.SIGSEGV)


def crashed():
    return os.path.getsize(crashes) if os.path.exists(crashes) else 0


def complain(text):
    with open(log, "a", encoding="utf-8") as lines:
        lines.write(text + "\n")
    sys.exit(1)


file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
os.pwrite(file, b"%020d" % 0, 0)
for count in range(1, int(last) + 1):
    found = int(os.pread(file, 20, 0))
    if found != count - 1:
        complain(f"in memory {count - 1}, in the file {found}")
    os.pwrite(file, b"%020d" % count, 0)
    if count % STEP == 0:
        done = subprocess.run([tool, "checkpoint", "--self"], stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            complain(f"checkpoint --self: exit code {done.returncode}")
    if count % STEP == STEP // 2 and crashed() < count // STEP:
        crash()
    time.sleep(0.002)
print("counted to", last, flush=True)
