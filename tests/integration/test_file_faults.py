#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every step at which a real plugin, backupd or ckpt-tool changes a file fails, once or for good:
with an error of the disk, for want of space, in a short write, with EAGAIN. Nothing crashes or
hangs, no answered checkpoint is lost, no disk is wrong, and what only hit the back-up fails no write.
The steps are not listed here: a run without faults names them.
CKPT_POINTS=all takes every time that a step is made in a stage, with each kind of fault (else one
of them), CKPT_SEED repeats a run's choices."""

import collections
import errno
import os
import unittest

from harness import HALFWAY, OK, tool
from nbd_client import NbdClient, NbdError
from stages import Stages
from steps import FAIL, SHORT

Kind = collections.namedtuple("Kind", "name act number for_good")

ERRORS = [Kind("EIO once", FAIL, errno.EIO, False), Kind("EIO for good", FAIL, errno.EIO, True)]
NO_SPACE = [Kind("ENOSPC once", FAIL, errno.ENOSPC, False),
            Kind("ENOSPC for good", FAIL, errno.ENOSPC, True)]
OF_WRITES = [Kind("short", SHORT, 0, False), Kind("short for good", SHORT, 0, True),
             Kind("EAGAIN once", FAIL, errno.EAGAIN, False)]


def kinds_of(step):
    call = step.split()[0]
    kinds = list(ERRORS)
    if call in ("pwrite", "fallocate", "create", "mkdir", "ftruncate", "rename"):
        kinds += NO_SPACE
    if call == "pwrite":
        kinds += OF_WRITES
    return kinds


def is_of_the_store(step):
    return "/store/" in step or "shelf" in step


class FileFaults(Stages):
    def setUp(self):
        super().setUp()
        self.counts = collections.Counter()
        self.fails = None  # what is armed: (point, kind)

    # ---- What may fail, and what may not.

    def write_failed(self, problem):
        point, kind = self.fails or (None, None)
        self.assertIsNotNone(point, f"a write failed, and nothing is armed: {problem}")
        self.assertFalse(is_of_the_store(point.step), f"the back-up's fault fails a write: {problem}")
        self.assertNotEqual(kind.act, SHORT, f"a short write is no error: {problem}")
        self.counts["requests failed"] += 1

    def flush(self, client):
        try:
            client.flush()
        except NbdError as problem:
            self.write_failed(problem)

    def checkpoint(self, attach=False, **more):
        """What is there is what it will hold, when some writes failed before."""
        if self.disk.may:
            self.look()
        if self.fails is None:
            return super().checkpoint(attach, **more)
        point, steps = self.fails[0], self.steps[self.fails[0].victim]
        before = steps.fired
        answer = super().checkpoint(attach, timeout=3)
        if point.step.startswith("fdatasync") and "/journal/" in point.step:
            self.assertFalse(answer.code == OK and steps.fired > before,
                             "a checkpoint exists whose journal was not synced")
        if answer.code != OK:
            self.counts["checkpoints failed"] += 1
            self.assertNotEqual(self.fails[1].act, SHORT, str(answer))
            self.assertTrue(answer.message)
        return answer

    def look(self):
        at = self.disk.differs(self.read_disk())
        self.assertIsNone(at, f"the disk differs at {at}")

    # ---- One fault.

    def fail_at(self, point, kind):
        self.prepare(point.stage)
        steps = self.steps[point.victim]
        steps.arm(point.step, point.occurrence, kind.act, kind.number, kind.for_good)
        self.fails = (point, kind)
        self.do(point.stage)
        if self.server.running and self.server.control("status")["state"] == "running":
            self.writes()  # clients are served, or told; but not in half of a rollback
            self.checkpoint()
        self.counts["hit" if steps.fired else "not reached"] += 1
        self.hit.update([point.step] if steps.fired else [])
        self.expect_alive(point)
        steps.disarm()
        self.fails = None
        if self.server.running and self.server.control("status")["state"] == "rolling-back":
            self.ask_again(point)
        self.begin_again()
        self.finish(point.stage)

    def expect_alive(self, point):
        """An error is no death; only a start may be refused."""
        if self.backupd:
            self.assertIsNone(self.backupd.process.poll(), self.backupd.said())
        if point.stage in ("write", "checkpoint", "attach", "roll back"):
            self.assertTrue(self.server.running, self.server.said())

    def ask_again(self, point):
        """A rollback that stopped half-way says so, and goes on; what failed for good, after a
        restart."""
        status = self.server.control("status")
        self.assertTrue(status["problem"])
        self.assertFalse(status["protected"])
        answer = self.roll_back()
        self.counts["rollbacks that went on"] += answer.code == OK
        is_of_the_image = point.step.split()[0] in ("pwrite", "fallocate") and \
            point.step.endswith("/disk.img")
        self.assertIn(answer.code, (OK,) if is_of_the_image else (OK, HALFWAY), str(answer))

    def begin_again(self):
        """What failed is final until a restart."""
        self.stop()
        if self.backupd and self.backupd.process:
            self.backupd.stop()

    def is_settled(self):
        """Or what was written may be lost, and nobody was told: a rollback settles that."""
        if "in doubt" in self.server.control("status")["problem"]:
            self.counts["in doubt"] += 1
            self.check()
            self.roll_back_again()
        return super().is_settled()

    # ---- All of them.

    def cases(self, points):
        """Each step with one kind of fault, or with each."""
        every = os.environ.get("CKPT_POINTS") == "all"
        for point in points:
            kinds = kinds_of(point.step)
            for kind in kinds if every else [self.random.choice(kinds)]:
                yield point, kind

    def test_each(self):
        points = self.points()
        self.assertGreater(len(points), 100)
        self.hit = collections.Counter()
        for point, kind in self.cases(points):
            try:
                self.fail_at(point, kind)
            except Exception as problem:
                raise AssertionError(f"seed {self.seed}: {kind.name} at {point}: "
                                     f"{problem}") from problem
        print(f"\n{len(points)} points, seed {self.seed}: {dict(self.counts)}", flush=True)
        never = {point.step for point in points} - set(self.hit)
        self.assertFalse(never, "steps that never failed")
        self.assertGreater(self.counts["requests failed"], 3)
        self.assertGreater(self.counts["checkpoints failed"], 10)


class FileFaultsWithBackupd(FileFaults):
    is_remote = True


class HalfWay(Stages):
    """Who goes on with a rollback that has stopped half-way says again what is to be done with the
    clients."""

    def setUp(self):
        super().setUp()
        self.start()
        self.client = NbdClient(str(self.server.socket))
        self.addCleanup(self.client.close)
        self.overwrite()
        self.assertEqual(self.checkpoint().code, OK)
        self.overwrite()
        self.steps["plugin"].arm("pwrite */disk.img", 1, FAIL, errno.EIO, for_good=True)
        self.assertEqual(self.roll_back("--clients=keep").code, HALFWAY)
        self.steps["plugin"].disarm()

    def overwrite(self):
        data = self.random.randbytes(65536)
        self.one_write(self.client, 0, data, lambda client: client.write(0, data))

    def test_not_under_a_client_that_nobody_vouches_for_now(self):
        answer = self.roll_back()
        self.assertEqual(answer.code, HALFWAY)
        self.assertIn("connected", answer.message)
        status = self.server.control("status")
        self.assertEqual(status["state"], "rolling-back")
        self.assertIn("Input/output error", status["problem"])
        with self.assertRaises(OSError):
            self.client.read(0, 4096)
        self.client.close()
        self.roll_back_again()
        self.check()

    def test_a_fence_asked_for_then_is_on_record(self):
        answer = self.roll_back("--clients=fence")
        self.assertEqual(answer.code, OK, str(answer))
        self.assertTrue(answer["fenced"])
        with self.assertRaises(OSError):
            self.client.write(0, b"of before")
        self.server.kill9()
        self.server.start()
        with self.assertRaises(OSError):
            NbdClient(str(self.server.socket))
        tool("accept", self.server.image)
        self.check()

    def test_only_the_one_that_was_begun(self):
        answer = tool("rollback", self.server.image, "77", "--yes", expect=None)
        self.assertEqual(answer.code, HALFWAY)
        self.assertIn("Input/output error", self.server.control("status")["problem"])
        self.assertEqual(self.roll_back("--clients=keep").code, OK)
        self.assertEqual(self.client.read(0, 4096), bytes(self.disk.now[:4096]))


if __name__ == "__main__":
    unittest.main()
