# SPDX-License-Identifier: Apache-2.0
"""A process on a mounted disk that counts in its memory and in a file, and ckpt-tool, to which something
happens at a step of a checkpoint or of a restore. For scripts that run in the guest, whose first
arguments are BUILD IMAGE MOUNT COMPLAINTS."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
build, image, mount, complaints = sys.argv[1:5]
os.environ["CKPT_BUILD"] = build

from harness import eventually  # noqa: E402: it looks where the build is
from steps import KILL_AFTER, KILL_BEFORE, Steps  # noqa: E402

COUNTER = Path(__file__).resolve().parent / "counter.py"


class Failure(Exception):
    pass


def expect(truth, what):
    if not truth:
        raise Failure(what)


class SteppedProcess:
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

    # Where something happens.

    def trace(self, act):
        """How often each step is made."""
        self.steps.news()
        code, answer = self.do(act)
        expect(code == 0, f"{act}: {answer}")
        self.counts_on(act)
        seen = self.steps.news()
        print(f"# {act}:", ", ".join(f"{step} {times}" for step, times in sorted(seen.items())))
        return seen

    def points(self):
        return [Point(act, step, occurrence, when)
                for act in ("checkpoint", "restore")
                for step, times in sorted(self.trace(act).items())
                for occurrence in range(1, times + 1)
                for when in (KILL_BEFORE, KILL_AFTER)]

    def do(self, act):
        """With the step that was armed."""
        return (self.checkpoint if act == "checkpoint" else self.restore)(with_steps=True)

    def do_until(self, point):
        """Whether it comes to it: how often some steps are made differs from run to run."""
        self.steps.arm(point.step, point.occurrence, point.when)
        code, answer = self.do(point.act)
        self.steps.disarm()
        return self.steps.fired > 0, code, answer


class Point(NamedTuple):
    """Before or after a step of an act, the time that `occurrence` says."""
    act: str
    step: str
    occurrence: int
    when: int

    def __str__(self):
        when = "after" if self.when == KILL_AFTER else "before"
        return f"{self.act}, {when} {self.step} ({self.occurrence})"


def a_few(every, count, chance):
    """Few of those at which it only tidies up."""
    tidying = [point for point in every if point.step.startswith("unlink")]
    others = [point for point in every if point not in tidying]
    few = count // 5
    return chance.sample(tidying, few) + chance.sample(others, count - few)


def run(main):
    try:
        print(f"ok - {main()}")
    except Failure as failure:
        print(f"not ok - {failure}")
        sys.exit(1)
