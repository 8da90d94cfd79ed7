# SPDX-License-Identifier: Apache-2.0
"""A process on a mounted disk that counts in its memory and in a file, and ckpt-tool with a choice of
steps at which something happens to it. For scripts that run in the guest, with the arguments BUILD IMAGE
MOUNT COMPLAINTS first."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

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
