# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: ckpt-tool dies before and after each step that it makes of a checkpoint of a process
with its disk, and of a restore, one at a time. Process and disk are of one number afterwards.

Usage: process_steps.py BUILD IMAGE MOUNT COMPLAINTS POINTS SEED; POINTS 0: all of them."""

import random
import signal
import sys
import time

from stepped_process import SteppedProcess, a_few, expect, run

count, seed = int(sys.argv[5]), sys.argv[6]
DIED = -signal.SIGKILL


def die_at(process, point):
    """Whether it did."""
    before = process.last_checkpoint()
    fired, code, answer = process.do_until(point)
    expect(code == (DIED if fired else 0), f"{point}: exit code {code}: {answer}")
    if point.act == "checkpoint":
        process.counts_on(point)
        expect(process.last_checkpoint() >= before, f"{point}: a checkpoint is lost")
    process.restored(point)
    if not fired:
        print(f"# missed: {point}")
    return fired


def main():
    process = SteppedProcess()
    process.start_counter()
    every = process.points()
    some = every if count == 0 else a_few(every, count, random.Random(seed))
    began = time.monotonic()
    died = sum(die_at(process, point) for point in some)
    process.end_counter()
    print(f"# {died} deaths, {len(some) - died} missed, of {len(every)} points, "
          f"in {time.monotonic() - began:.0f} s, seed {seed}")
    expect(died * 2 > len(some), "most of the points are never reached")
    return "process and disk are of one number wherever the tool dies"


run(main)
