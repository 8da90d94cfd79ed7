#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 under load, at random instants and in the middle of each phase. No answered write is
lost, an answered checkpoint exists, a rollback is exact, one that was killed is completed first.
CKPT_KILLS is the number of kills (100); with backupd a third of it, and over TLS a sixth, or with
CKPT_OVER_LINKS=all as many. CKPT_SEED repeats a run's choices."""

import collections
import os
import random
import subprocess
import threading
import time
import unittest

from harness import OK, Case, eventually, share_over_link, tool
from phases import PHASES, PhasePage
from tls_files import keep_with_keys

LEAST_SHARE = 15  # per cent of the kills that must fall into each phase
AFTER_ANSWER = "just after an answer"  # what was told must be durable by then


class Checkpointer(threading.Thread):
    """Takes checkpoints every 50 to 500 ms, until told to stop or until one fails."""

    def __init__(self, server, hammer, prefix, seed):
        super().__init__(daemon=True)
        self.answered = []    # (name, number)
        self.unanswered = []  # may exist or not
        self.problem = None
        self._server, self._hammer, self._prefix = server, hammer, prefix
        self._random = random.Random(seed)
        self._stop_asked = threading.Event()
        self.got_answer = threading.Event()

    def run(self):
        try:
            while not self._stop_asked.wait(self._random.uniform(0.05, 0.5)) and self._one():
                pass
        except Exception as problem:  # shown by finish(), in the test's own thread
            self.problem = problem

    def _one(self):
        name = f"{self._prefix}-{len(self.answered)}"
        self._hammer.must("mark", name, "begin")
        answer = tool("checkpoint", self._server.image, "--name", name, expect=None, timeout=90)
        if answer.code != OK:
            self.unanswered.append((name, answer))
            if not self._server.killed:
                raise AssertionError(f"a checkpoint failed while the server ran: {answer}")
            return False
        self.got_answer.set()
        self._hammer.must("mark", name, "end")
        self.answered.append((name, answer["checkpoint"]))
        return True

    def stop(self):
        self._stop_asked.set()
        self.join(120)

    def finish(self):
        self.stop()
        if self.problem:
            raise self.problem


class Kill(Case):
    def setUp(self):
        super().setUp()
        self.kills = int(os.environ.get("CKPT_KILLS", "100"))
        self.seed = int(os.environ.get("CKPT_SEED", random.randrange(1 << 31)))
        self.random = random.Random(self.seed)
        self.page = PhasePage(self.folder / "phases")
        self.counts = collections.Counter({phase: 0 for phase in PHASES})
        self.prepare()
        self.backup_path = None
        self.server = self.serve(self.image(), "multi-conn=on", environment=self.page.environment)
        self.hammer_ = self.hammer(self.server, 4)
        self.last = ("first", self.hammer_.checkpoint(self.server, "first")["checkpoint"])

    def prepare(self):
        pass

    @property
    def least(self):
        """Of the kills, in each phase."""
        return self.kills * LEAST_SHARE // 100

    def load(self):
        shape = self.random.choice((["pause=300"], ["max=65536"],
                                    ["min=4096", "max=1048576", "pause=1000"]))
        self.hammer_.must("start", self.random.randrange(1 << 30), *shape)

    def wanted_phase(self, rounds_left):
        """The phase that was hit least; now and then, while there are rounds to spare, none, or the
        instant after an answer."""
        dice = self.random.random()
        lacking = sum(max(0, self.least - self.counts[phase]) for phase in PHASES)
        if dice < 0.25 and rounds_left > 2 * lacking:  # some come too late
            return None if dice < 0.1 else AFTER_ANSWER
        return min(PHASES, key=lambda phase: (self.counts[phase], self.random.random()))

    def page_of(self, phase):
        """Where it is seen."""
        return self.page

    def die(self, phase):
        self.counts.update(self.kill(phase) or {"none"})

    def kill(self, phase):
        """In the middle of a phase, or of none; returns those that were hit."""
        self.assertTrue(self.server.kill9(), "the server had died by itself")
        return self.page.current()

    def kill_under_load(self, phase, checkpointer):
        time.sleep(self.random.uniform(0.05, 0.6))
        if phase is None:
            time.sleep(self.random.uniform(0, 1))
        elif phase == AFTER_ANSWER:
            checkpointer.got_answer.clear()
            checkpointer.got_answer.wait(5)
        else:
            self.page_of(phase).wait_for(phase, 5)
            time.sleep(self.random.choice((0, 0, 0.001)))
        self.die(phase)
        checkpointer.finish()

    def kill_in_rollback(self, checkpointer):
        """The load has stopped and left, or is fenced."""
        eventually(lambda: checkpointer.answered or not checkpointer.is_alive(), "a checkpoint")
        time.sleep(self.random.uniform(0.1, 0.5))
        checkpointer.finish()
        clients = self.random.choice(("refuse", "fence"))
        if clients == "refuse":
            self.hammer_.must("stop")
            self.hammer_.must("disconnect")
        arguments = ("rollback", self.server.image, "--yes", f"--clients={clients}")
        rollback = threading.Thread(target=tool, args=arguments, kwargs={"expect": None})
        rollback.start()
        self.page.wait_for("rolling back", 30)
        time.sleep(self.random.choice((0, 0, 0.002, 0.01)))
        self.die("rolling back")
        rollback.join()

    def restart(self):
        """Starts it again; one time in five only after killing it a few times while it starts."""
        choices = (("batch-bytes=64K", "batch-bytes=4M"), ("compress=zstd", "compress=none"),
                   ("io=uring", "io=sync"), ("direct=on", "direct=off"))
        places = [p for p in self.server.parameters if p.startswith(("state=", "backup="))]
        self.server.parameters = ("multi-conn=on", *places, *map(self.random.choice, choices))
        if self.random.random() < 0.2:
            for _ in range(self.random.randint(1, 3)):
                self.server.start_and_kill(self.random.uniform(0, 0.1))
        self.server.start()
        if self.status(self.server)["state"] == "fenced":
            tool("accept", self.server.image)

    def existing(self, checkpointer):
        """The name of the last checkpoint: the last that was answered, or one that was not."""
        kept = tool("list", self.server.image)["checkpoints"]
        newest = max(kept, key=lambda one: one["checkpoint"])
        last = (checkpointer.answered or [self.last])[-1]
        if newest["name"] != last[0]:
            possible = [name for name, _ in checkpointer.unanswered]
            self.assertIn(newest["name"], possible, f"answered was {last}")
            self.assertGreater(newest["checkpoint"], last[1])
        self.last = (newest["name"], newest["checkpoint"])
        return newest["name"]

    def one_round(self, number):
        phase = self.wanted_phase(self.kills - number)
        timeline = self.status(self.server)["timeline"]
        self.load()
        checkpointer = Checkpointer(self.server, self.hammer_, f"r{number}", self.random.random())
        checkpointer.start()
        if phase == "rolling back":
            self.kill_in_rollback(checkpointer)
        else:
            self.kill_under_load(phase, checkpointer)
        self.hammer_.must("lost")
        how = number % 3
        offline = how == 0 and phase != "rolling back"
        self.revive_store(offline)
        if offline:
            tool("rollback", self.server.image, "--yes")
        self.restart()
        self.wait_for_store()
        self.hammer_.must("reconnect", self.server.uri)
        name = self.existing(checkpointer)
        if self.status(self.server)["timeline"] != timeline:
            self.hammer_.must("adopt", name)
        else:
            self.assertTrue(how != 0 or phase == "rolling back",
                            "the offline rollback left no new timeline")
            self.hammer_.must("check", "now")
            self.roll_back_online(name) if how == 1 else self.go_on(number)
        self.expect_same_everywhere()

    def expect_same_everywhere(self):
        """Nothing was written since the disk was compared with the model: the back-up comes to hold the
        same, in every byte."""
        if self.backup_path is None:
            self.backup_path = self.backup_image(self.server)
        same = ["cmp", "-s", self.server.image, self.backup_path]
        eventually(lambda: subprocess.run(same, check=False).returncode == 0,
                   "primary and back-up are equal", 60)

    def roll_back_online(self, name):
        self.hammer_.must("disconnect")
        tool("rollback", self.server.image, "--yes")
        self.hammer_.must("reconnect", self.server.uri)
        self.hammer_.must("adopt", name)

    def go_on(self, number):
        """Without a rollback the next checkpoint is complete."""
        name = f"v{number}"
        made = self.hammer_.checkpoint(self.server, name)["checkpoint"]
        self.assertGreater(made, self.last[1])
        self.assertEqual(tool("verify", self.server.image)["mismatched_bytes"], 0)
        self.hammer_.must("adopt", "now")
        self.last = (name, made)

    def revive_store(self, is_needed):
        pass

    def wait_for_store(self):
        pass

    def test_random_kills(self):
        try:
            for number in range(self.kills):
                self.one_round(number)
                rate = self.kills // 10 or 1
                if number % rate == rate - 1:
                    print(f"{number + 1} kills, seed {self.seed}: {dict(self.counts)}", flush=True)
        except Exception as problem:
            where = f"seed {self.seed}, round {number}, {dict(self.counts)}"
            raise AssertionError(f"{where}: {problem}") from problem
        for phase in PHASES:
            self.assertGreaterEqual(self.counts[phase], self.least, f"{phase}: {self.counts}")


class KillWithBackupd(Kill):
    """The same with the store in another process, which dies too, now and then, a moment before
    or after, and first where it is to die while it applies; they start again in either order."""

    share = share_over_link(1 / 3)  # of the kills

    def prepare(self):
        self.kills = max(1, int(self.kills * self.share))
        self.store_page = PhasePage(self.folder / "store-phases")
        self.keep_store(environment=self.store_page.environment)
        self.starter = None

    def keep_store(self, **options):
        self.backupd = self.keep(**options)

    def page_of(self, phase):
        return self.store_page if phase == "applying" else self.page

    def kill(self, phase):
        dice = self.random.random()
        found = set()
        if dice < 0.2 or phase == "applying":
            self.server.killed = True  # from here on a checkpoint may be void
            found |= self.kill_store()
            time.sleep(self.random.choice((0, 0.001, 0.02)))
        found |= super().kill(phase)
        if 0.2 <= dice < 0.4:
            time.sleep(self.random.choice((0, 0.001, 0.02)))
            found |= self.kill_store()
        return found

    def kill_store(self):
        """If it has not died yet."""
        if self.backupd.process is None:
            return set()
        self.assertTrue(self.backupd.kill9(), "backupd had died by itself")
        return self.store_page.current()

    def revive_store(self, is_needed):
        """A rollback under way is gone on with at the start, and needs it too."""
        if self.backupd.process is not None:
            return
        rolling = (tool("status", self.server.image)["state"] == "rolling-back")
        if is_needed or rolling or self.random.random() < 0.5:
            self.backupd.start()
        else:
            self.starter = threading.Timer(self.random.uniform(0, 1), self.backupd.start)
            self.starter.start()

    def wait_for_store(self):
        if self.starter:
            self.starter.join()
            self.starter = None
        eventually(lambda: self.status(self.server)["backup"]["state"] in ("connected", "syncing"),
                   "the server has found its store", 60)


class KillWithKeys(KillWithBackupd):
    """Over TCP and TLS."""

    share = share_over_link(1 / 6)

    def keep_store(self, **options):
        keep_with_keys(self, **options)


if __name__ == "__main__":
    unittest.main()
