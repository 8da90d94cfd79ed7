#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every step at which the plugin, backupd or ckpt-tool changes a file: before it and
after it, of one of them or of both at once, in each stage of a volume's life. The steps are not
listed here: a run without deaths names them.
CKPT_POINTS=all takes every time that a step is made in a stage (else one of them), CKPT_POINT_ROUNDS
is how often each is taken (1), CKPT_SEED repeats a run's choices."""

import collections
import os
import threading
import time
import unittest

from stages import Stages
from steps import KILL_AFTER, KILL_BEFORE


class Reviver(threading.Thread):
    """Starts a backupd again soon after it has died, for those who wait for it."""

    def __init__(self, backupd, delay):
        super().__init__(daemon=True)
        self._backupd, self._delay = backupd, delay
        self._stop_asked = threading.Event()

    def run(self):
        while not self._stop_asked.wait(0.02):
            if self._backupd.process is not None and self._backupd.process.poll() is not None:
                time.sleep(self._delay)
                self._backupd.process = None
                self._backupd.start()
                return

    def finish(self, is_dying):
        """A killed process is not gone at once."""
        if not is_dying:
            self._stop_asked.set()
        self.join(60)


class KillPoints(Stages):
    def setUp(self):
        super().setUp()
        self.rounds = int(os.environ.get("CKPT_POINT_ROUNDS", "1"))
        self.counts = collections.Counter()

    def others(self, point):
        """Whoever may die with it: what does not run yet cannot."""
        if not self.backupd or point.victim == "backupd" and not self.server.running:
            return [None]
        return [None, {"plugin": "backupd", "backupd": "plugin", "tool": "backupd"}[point.victim]]

    def process_of(self, program):
        process = {"plugin": self.server.process, "backupd": self.backupd and self.backupd.process,
                   None: None}[program]
        return process.pid if process else 0

    def die_at(self, point, act):
        self.prepare(point.stage)
        other = self.random.choice(self.others(point))
        steps = self.steps[point.victim]
        self.server.killed = True
        reviver = Reviver(self.backupd, self.random.uniform(0, 0.3)) if self.backupd else None
        steps.arm(point.step, point.occurrence, act, other=self.process_of(other))
        if reviver:
            reviver.start()
        self.do(point.stage)
        self.wait_for(steps)
        dead = (point.victim, other) if steps.fired else ()
        if reviver:
            reviver.finish("backupd" in dead)
        if "plugin" in dead:
            self.see_server_dead()
        self.counts["died" if steps.fired else "not reached"] += 1
        self.counts[f"{point.victim} in {point.stage}"] += steps.fired
        self.hit.update([point.step] * steps.fired)
        steps.disarm()
        self.finish(point.stage)

    def wait_for(self, steps):
        """The steps of its threads come later."""
        deadline = time.monotonic() + 0.5
        while not steps.fired and self.server.running and time.monotonic() < deadline:
            time.sleep(0.01)

    def see_server_dead(self):
        if self.server.process is not None:
            self.server.process.wait(60)
            self.server.process = None

    def test_each(self):
        points = self.points()
        self.assertGreater(len(points), 100)
        made = {point.step for point in points if point.stage == "create"}
        self.assertIn("fsync *", made, "what holds a new image and its state is synced, too")
        self.hit = collections.Counter()
        for number in range(self.rounds):
            self.one_round(points, number)
        print(f"\n{len(points)} points, seed {self.seed}: {dict(self.counts)}", flush=True)
        never = {point.step for point in points} - set(self.hit)
        self.assertFalse(never, "steps at which nothing has died")
        self.assertGreater(self.counts["died"], 4 * self.counts["not reached"])

    def one_round(self, points, number):
        self.random.shuffle(points)
        for point in points:
            act = self.random.choice((KILL_BEFORE, KILL_AFTER))
            try:
                self.die_at(point, act)
            except Exception as problem:
                when = {KILL_BEFORE: "before", KILL_AFTER: "after"}[act]
                raise AssertionError(f"seed {self.seed}, round {number}: {when} {point}: "
                                     f"{problem}") from problem


class KillPointsWithBackupd(KillPoints):
    is_remote = True


if __name__ == "__main__":
    unittest.main()
