#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Three processes: one counts into a pipe, one writes what comes out of it to a file and says so when
a number is missing or the file has another one than its memory, and their parent waits for both.

Usage: family.py FILE LOG. LOG is opened for each line only, as in counter.py."""

import os
import sys
import time

path, log = sys.argv[1:]


def produce(pipe):
    count = 0
    while True:
        count += 1
        os.write(pipe, b"%020d" % count)
        time.sleep(0.005)


def consume(pipe):
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    count = 0
    while True:
        came = int(os.read(pipe, 20))
        found = int(os.pread(file, 20, 0) or 0)
        if came != count + 1 or found != count:
            with open(log, "a", encoding="utf-8") as lines:
                lines.write(f"in memory {count}, out of the pipe {came}, in the file {found}\n")
            os._exit(1)
        count = came
        os.pwrite(file, b"%020d" % count, 0)


out, into = os.pipe()
for work, end in ((produce, into), (consume, out)):
    if os.fork() == 0:
        work(end)
os.wait()
