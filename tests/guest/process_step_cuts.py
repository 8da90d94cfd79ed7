# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: the power is cut before a step that ckpt-tool makes of a checkpoint of a process with
its disk, or of a restore, which is after the step before it; a boot each. After it process and disk come
back, of one number, and no answered checkpoint is lost.

Usage: process_step_cuts.py BUILD IMAGE MOUNT COMPLAINTS first|again|last POINTS SEED; POINTS 0: all.
/out/points has those that are left, /out/answered the last checkpoint that was answered, and /out/cuts a
line for each that was reached."""

import json
import random
import sys
import time
from pathlib import Path

from stepped_process import KILL_BEFORE, Point, SteppedProcess, a_few, expect, run

part, count, seed = sys.argv[5], int(sys.argv[6]), sys.argv[7]
POINTS, ANSWERED, CUTS = (Path("/out") / name for name in ("points", "answered", "cuts"))
CONSOLE = "/dev/console"


class CutProcess(SteppedProcess):
    def choose(self):
        """Where the power will be cut."""
        every = [point for point in self.points() if point.when == KILL_BEFORE]
        chance = random.Random(seed)
        some = a_few(every, count, chance) if count else chance.sample(every, len(every))
        print(f"# {len(some)} of {len(every)} points, seed {seed}")
        POINTS.write_text(json.dumps(some))

    def keep(self):
        """A checkpoint that must not be lost."""
        before = self.number()
        code, answer = self.checkpoint()
        expect(code == 0, f"checkpoint: {answer}")
        ANSWERED.write_text(json.dumps([answer["checkpoint"], before]))

    def comes_back(self):
        answered, before = json.loads(ANSWERED.read_text())
        code, answer = self.restore()
        expect(code == 0, f"restore: {answer}")
        expect(answer["checkpoint"] >= answered, f"of {answer['checkpoint']}; {answered} was answered")
        expect(self.number() >= before, f"counts from {self.number()}, had counted to {before}")
        self.counts_on("after the power was cut")
        print("ok - process and disk are back, of one number")

    def cut_at_next(self):
        """Does not return."""
        point, *left = (Point(*words) for words in json.loads(POINTS.read_text()))
        POINTS.write_text(json.dumps(left))
        lines = CUTS.read_text() if CUTS.exists() else ""
        CUTS.write_text(f"{lines}{point}\n")
        print(f"# next: {point}", flush=True)
        self.steps.environment["CKPT_STEPS_CONSOLE"] = CONSOLE
        _, code, answer = self.do_until(point)
        expect(code == 0, f"{point}: exit code {code}: {answer}")
        CUTS.write_text(lines)
        Path(CONSOLE).write_text(f"\n# missed: {point}\ncut the power now\n")
        time.sleep(60)


def main():
    process = CutProcess()
    if part == "first":
        process.start_counter()
        process.choose()
    else:
        process.comes_back()
    process.keep()
    if part != "last":
        process.cut_at_next()
    process.end_counter()
    return "the process ends"


run(main)
