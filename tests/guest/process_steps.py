# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: ckpt-tool dies before and after each step that it makes of a checkpoint of a process
with its disk, and of a restore, one at a time. Process and disk are of one number afterwards.

Usage: process_steps.py BUILD IMAGE MOUNT COMPLAINTS POINTS SEED; POINTS 0: all of them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
build, image, mount, complaints, count, seed = sys.argv[1:]
os.environ["CKPT_BUILD"] = build

from harness import eventually  # noqa: E402: it looks where the build is
from steps import KILL_AFTER, KILL_BEFORE, Steps  # noqa: E402

COUNTER = Path(__file__).resolve().parent / "counter.py"
DIED = -signal.SIGKILL


class Failure(Exception):
    pass


def expect(truth, what):
    if not truth:
        raise Failure(what)


class Machine:
    """A counter on the mounted disk, and the tool."""

    def __init__(self):
        # On the disk's own file system, beside the state directory: what the tool does there counts.
        self.steps = Steps(Path("/run"), "tool", Path(image).parent)
        self.steps.environment["CKPT_STEPS_ACTS"] = "1"
        self.file = Path(mount) / "count"

    def start_counter(self):
        # Forked off: who started it would have to wait for it, each time that it ends.
        subprocess.run(["setsid", "--fork", sys.executable, "-S", str(COUNTER), str(self.file), complaints],
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=True)
        eventually(lambda: self.file.exists() and self.file.stat().st_size, "the counter's start", 60)

    def processes(self):
        found = subprocess.run(["pgrep", "-f", "counter[.]py"], capture_output=True, text=True)
        return [int(word) for word in found.stdout.split()]

    def end_counter(self):
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.processes(), "the counter's end", 60)

    def number(self):
        return int(self.file.read_bytes()[:20])

    def counts_on(self, what):
        """It goes on to count, once, and has found no other number in the file than in its memory."""
        before = self.number()
        try:
            eventually(lambda: self.number() > before + 2, "it counts", 60)
        except AssertionError as error:
            raise Failure(f"{what}: it does not count on") from error
        expect(len(self.processes()) == 1, f"{what}: processes {self.processes()}")
        expect(not os.path.exists(complaints), f"{what}: memory and disk do not agree")

    def tool(self, *words, with_steps=False):
        done = subprocess.run([f"{build}/tools/ckpt-tool", "--json", *words], capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=300,
                              env=os.environ | (self.steps.environment if with_steps else {}))
        last = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
        return done.returncode, last

    def checkpoint(self, **options):
        return self.tool("checkpoint", image, "--criu", str(self.processes()[0]), "--fs", mount,
                         **options)

    def restore(self, **options):
        return self.tool("restore", image, "--yes", **options)

    def last_checkpoint(self):
        return self.tool("status", image)[1]["last_checkpoint"]["checkpoint"]

    def restored(self, what):
        wanted = self.last_checkpoint()
        code, answer = self.restore()
        expect(code == 0, f"{what}: restore: {answer}")
        expect(answer["checkpoint"] == wanted, f"{what}: restored to {answer['checkpoint']}, not {wanted}")
        self.counts_on(what)

    # What dies.

    def trace(self, act):
        """How often each step is made."""
        self.steps.news()
        code, answer = act(with_steps=True)
        expect(code == 0, f"{act.__name__}: {answer}")
        self.counts_on(act.__name__)
        seen = self.steps.news()
        print(f"# {act.__name__}:", ", ".join(f"{step} {times}" for step, times in sorted(seen.items())))
        return seen

    def points(self):
        return [(act, step, occurrence, when)
                for act in (self.checkpoint, self.restore)
                for step, times in sorted(self.trace(act).items())
                for occurrence in range(1, times + 1)
                for when in (KILL_BEFORE, KILL_AFTER)]

    def die_at(self, act, step, occurrence, when):
        """Whether it did: how often some steps are made differs from run to run."""
        before = self.last_checkpoint()
        self.steps.arm(step, occurrence, when)
        code, answer = act(with_steps=True)
        self.steps.disarm()
        what = f"{act.__name__}, {'after' if when == KILL_AFTER else 'before'} {step} ({occurrence})"
        fired = self.steps.fired > 0
        expect(code == (DIED if fired else 0), f"{what}: exit code {code}: {answer}")
        if act == self.checkpoint:
            self.counts_on(what)
            expect(self.last_checkpoint() >= before, f"{what}: a checkpoint is lost")
        self.restored(what)
        if not fired:
            print(f"# missed: {what}")
        return fired


def a_few(every, chance):
    """Few of those at which it only tidies up."""
    tidying = [point for point in every if point[1].startswith("unlink")]
    others = [point for point in every if point not in tidying]
    few = int(count) // 5
    return chance.sample(tidying, few) + chance.sample(others, int(count) - few)


def main():
    machine = Machine()
    chance = random.Random(seed)
    machine.start_counter()
    every = machine.points()
    some = every if count == "0" else a_few(every, chance)
    began = time.monotonic()
    died = sum(machine.die_at(*point) for point in some)
    machine.end_counter()
    print(f"# {died} deaths, {len(some) - died} missed, of {len(every)} points, "
          f"in {time.monotonic() - began:.0f} s, seed {seed}")
    expect(died * 2 > len(some), "most of the points are never reached")


try:
    main()
except Failure as failure:
    print(f"not ok - {failure}")
    sys.exit(1)
print("ok - process and disk are of one number wherever the tool dies")
