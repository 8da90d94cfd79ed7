#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts in its memory and in a file, and says so when the two do not agree.

Usage: counter.py FILE LOG. LOG is opened for each line only: CRIU wants open files to have the size
that they had."""

import os
import sys
import time

path, log = sys.argv[1:]
file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
count = 0
while True:
    if count:
        found = int(os.pread(file, 20, 0))
        if found != count:
            with open(log, "a", encoding="utf-8") as lines:
                lines.write(f"in memory {count}, in the file {found}\n")
            sys.exit(1)
    count += 1
    os.pwrite(file, b"%020d" % count, 0)
    if count % 50 == 0:
        os.fsync(file)
    time.sleep(0.005)
