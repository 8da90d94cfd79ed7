#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The link between a server and its backupd breaks, anywhere: no confirmed checkpoint is lost, and
nothing is applied twice."""

import random
import threading
import unittest

from harness import MIB, OK, eventually, run, tool
from link_proxy import BATCH, CONTENT, READER, SESSION, Fault, LinkProxy
from nbd_client import NbdClient
from test_remote import Remote


class Link(Remote):
    """A proxy cuts the link, anywhere."""

    def setUp(self):
        super().setUp()
        self.proxy = LinkProxy(self.folder, self.backupd.address)
        self.addCleanup(self.proxy.close)
        image = self.image(size=16 * MIB)
        image.write_bytes(random.Random(0).randbytes(16 * MIB))  # no holes: rollbacks are content
        self.server = self.serve(image, f"backup={self.proxy.address}", "compress=none")
        self.write(0)
        self.answered = tool("checkpoint", self.server.image)["checkpoint"]

    def write(self, seed):
        draw = random.Random(seed)
        with NbdClient(str(self.server.socket)) as client:
            for _ in range(3):
                client.write(draw.randrange(client.size - 9000), draw.randbytes(9000))

    def last_of_store(self):
        """What backupd itself has, past the proxy."""
        volume = self.backupd.folder_of(self.server).name
        kept = tool("list", f"{self.backupd.address}/{volume}")["checkpoints"]
        return kept[-1]["checkpoint"]

    def checkpoint_through(self, fault):
        """Takes one while the fault strikes; it exists if it was answered, and is void or may exist
        if it was not."""
        self.proxy.fault = fault
        self.proxy.cut_all()
        answer = tool("checkpoint", self.server.image, "--timeout", 20, expect=None)
        last = self.last_of_store()
        if answer.code == OK:
            self.answered = answer["checkpoint"]
            self.assertEqual(last, self.answered, fault)
        else:
            self.assertGreaterEqual(last, self.answered, f"{fault}: {answer}")
        return answer

    def test_a_comparison_costs_digests_and_not_content(self):
        before = self.passed_bytes()
        verified = tool("verify", self.server.image)
        self.assertEqual(verified["checked_bytes"], 16 * MIB)
        self.assertLess(self.passed_bytes() - before, MIB)
        # A start that knows only regions, or nothing: all is compared, and little is shipped.
        self.server.kill9()
        with open(self.server.image, "r+b") as image:
            image.write(b"changed outside")
        self.server.start()
        self.expect_equal()
        self.assertLess(self.passed_bytes() - before, 3 * MIB)

    def passed_bytes(self):
        return sum(self.proxy.bytes_of(role) for role in (READER, SESSION))

    def expect_equal(self):
        eventually(lambda: tool("checkpoint", self.server.image, expect=None).code == OK,
                   "a checkpoint")
        self.answered = self.last_of_store()
        verified = tool("verify", self.server.image)
        self.assertEqual((verified["mismatched_bytes"], verified["skipped_bytes"]), (0, 0))

    def frames_of_a_checkpoint(self):
        self.proxy.cut_all()
        self.write(1)
        self.expect_equal()
        return self.proxy.frames_of(SESSION)

    def test_a_cut_at_every_frame_of_a_checkpoint(self):
        frames = self.frames_of_a_checkpoint()
        struck = 0
        for direction in ("up", "down"):
            for index in range(min(frames[direction], 8)):
                for part in ("none", "byte", "most", "all"):
                    fault = Fault(SESSION, direction, index, part)
                    self.write(1000 + struck)
                    self.checkpoint_through(fault)
                    struck += fault.happened.is_set()
                self.expect_equal()
        self.assertGreater(struck, 30)
        eventually(lambda: self.is_applied(self.server), "the store has applied it", 60)
        run("cmp", self.server.image, self.backupd.folder_of(self.server) / "backup.img")

    def test_a_link_that_stalls_is_given_up(self):
        for direction, index in (("up", 0), ("down", 0), ("up", 3), ("down", 2)):
            with self.subTest(direction=direction, index=index):
                self.write(index)
                fault = Fault(SESSION, direction, index, "most", stall=True)
                self.checkpoint_through(fault)
                self.assertTrue(fault.happened.is_set())
                self.expect_equal()

    def test_a_rollback_goes_on_where_the_link_broke(self):
        good = self.server.image.read_bytes()
        for index, part, kind in ((1, "none", None), (1, "most", None), (0, "none", CONTENT),
                                  (0, "most", CONTENT), (1, "byte", CONTENT), (1, "all", CONTENT),
                                  (2, "most", CONTENT)):
            with self.subTest(index=index, part=part, kind=kind):
                self.write(500 + index)
                self.proxy.cut_all()  # a new reader, whose frames are counted from 0
                self.proxy.fault = fault = Fault(READER, "down", index, part, type=kind)
                tool("rollback", self.server.image, "--yes")
                self.assertEqual(self.server.image.read_bytes(), good)
                self.assertTrue(fault.happened.is_set())

    def test_a_rollback_waits_for_a_store_that_is_gone(self):
        good = self.server.image.read_bytes()
        self.write(9)
        self.proxy.fault = fault = Fault(READER, "down", 1, "byte", refuse=True, type=CONTENT)
        self.proxy.cut_all()
        rollback = threading.Thread(target=tool,
                                    args=("rollback", self.server.image, "--yes", "--clients=fence"))
        rollback.start()
        # It may say that it waits because of the cut, before the fault makes the proxy refuse.
        self.assertTrue(fault.happened.wait(30))
        waiting = eventually(self.waits, "it says what it waits for")
        self.assertIn(self.proxy.address, waiting["problem"])
        self.proxy.refuse = False
        rollback.join(60)
        self.assertEqual(self.server.image.read_bytes(), good)
        tool("accept", self.server.image)
        self.expect_equal()

    def waits(self):
        status = self.status(self.server)
        return status if status["state"] == "rolling-back" and status["problem"] else None

    def test_an_export_that_breaks_off_is_no_export(self):
        self.proxy.fault = Fault(READER, "down", 3, "most")
        self.proxy.cut_all()
        destination = self.folder / "out.img"
        answer = tool("export", self.server.image, "last", destination, expect=None)
        self.assertNotEqual(answer.code, OK)
        self.assertFalse(destination.exists())


class FirstCopies(Remote):
    """What has arrived of a first copy does not travel again."""

    SIZE, DATA = 96 * MIB, 80 * MIB  # the rest are holes

    def setUp(self):
        super().setUp()
        self.proxy = LinkProxy(self.folder, self.backupd.address)
        self.addCleanup(self.proxy.close)
        image = self.image(size=self.SIZE)
        with open(image, "r+b") as file:
            file.write(random.Random(0).randbytes(self.DATA))
        self.fault = self.break_after(40)
        self.server = self.serve(image, f"backup={self.proxy.address}", "compress=none", "batch-bytes=1M")

    def break_after(self, batches):
        """On one connection."""
        self.proxy.fault = Fault(SESSION, "up", batches, "most", type=BATCH)
        return self.proxy.fault

    def passed_bytes(self):
        return sum(self.proxy.bytes_of(role) for role in (READER, SESSION))

    def expect_copied(self):
        eventually(lambda: self.status(self.server)["last_checkpoint"], "the first copy", 120)
        self.assertLess(self.passed_bytes(), self.DATA + 12 * MIB)
        made = tool("checkpoint", self.server.image)["checkpoint"]
        self.assertEqual(tool("verify", self.server.image)["mismatched_bytes"], 0)
        eventually(lambda: self.is_applied(self.server), "the store has applied it", 60)
        run("cmp", self.server.image, self.backupd.folder_of(self.server) / "backup.img")
        return made

    def test_the_link_breaks_again_and_again(self):
        for batches in 15, 5:
            self.assertTrue(self.fault.happened.wait(60))
            self.fault = self.break_after(batches)
            self.assertIsNone(self.status(self.server)["last_checkpoint"])
        self.assertTrue(self.fault.happened.wait(60))
        self.expect_copied()

    def test_the_disk_changes_meanwhile(self):
        """Also what has arrived: written, zeroed, and given back."""
        self.assertTrue(self.fault.happened.wait(60))
        with NbdClient(str(self.server.socket)) as client:
            for offset in range(0, self.DATA, 10 * MIB):
                client.write(offset + 5000, random.Random(offset).randbytes(9000))
                client.trim(offset + MIB, MIB)
                client.zero(offset + 3 * MIB, 70000)
        self.expect_copied()

    def test_the_server_dies(self):
        self.assertTrue(self.fault.happened.wait(60))
        self.server.kill9()
        self.server.start()
        self.expect_copied()

    def test_the_store_dies(self):
        """It may have had a failed sync: all of it travels again."""
        self.assertTrue(self.fault.happened.wait(60))
        self.backupd.kill9()
        self.backupd.start()
        eventually(lambda: self.status(self.server)["last_checkpoint"], "the first copy", 120)
        self.assertGreater(self.passed_bytes(), self.DATA + 30 * MIB)
        self.assertEqual(tool("verify", self.server.image)["mismatched_bytes"], 0)


if __name__ == "__main__":
    unittest.main()
