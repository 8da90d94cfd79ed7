#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""verify finds a single wrong byte on either side, says where, and reports nothing else.
CKPT_VERIFY_SECONDS is how long it is repeated under load (20); over a link, without and with TLS, a
quarter of it each, or with CKPT_OVER_LINKS=all as long."""

import os
import random
import time
import unittest

from harness import (BLOCK, DEGRADED, FAILED, MIB, MISMATCH, OK, Case, eventually,
                     share_over_link, tool)
from nbd_client import NbdClient
from store_deaths import StoreDeaths
from tls_files import keep_with_keys

UNREACHABLE = 10


def flip(path, offset):
    """Inverts one bit in a file."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def verify_seconds():
    return float(os.environ.get("CKPT_VERIFY_SECONDS", "20"))


class Verify(Case):
    share = 1  # of the time

    def setUp(self):
        super().setUp()
        self.reach_backup()
        self.server = self.serve(self.image(size=32 * MIB), "multi-conn=on")
        self.content = random.Random(1).randbytes(16 * MIB)

    def reach_backup(self):
        """Before the server starts; nothing: the store is embedded."""

    def fill_and_checkpoint(self):
        """16 MiB of data, a hole, all of it applied; afterwards 1 MiB is changed."""
        with NbdClient(str(self.server.socket)) as client:
            for offset in range(0, len(self.content), MIB):
                client.write(offset, self.content[offset:offset + MIB])
            self.number = tool("checkpoint", self.server.image)["checkpoint"]
            eventually(lambda: self.is_applied(self.server), "the checkpoint is applied")
            client.write(0, b"changed since" * 80659)

    def verify(self, **options):
        return tool("verify", self.server.image, **options)

    def expect_clean(self):
        clean = self.verify()
        self.assertEqual(clean["mismatched_bytes"], 0)
        self.assertEqual(clean["mismatches"], [])
        self.assertEqual(clean["checkpoint"], self.number)
        self.assertGreaterEqual(clean["skipped_bytes"], MIB)
        self.assertEqual(clean["checked_bytes"] + clean["skipped_bytes"], 32 * MIB)

    def expect_found(self, offset):
        found = self.verify(expect=MISMATCH)
        self.assertEqual(len(found["mismatches"]), 1)
        first, length = (found["mismatches"][0][field] for field in ("offset", "length"))
        self.assertTrue(first <= offset < first + length, f"{offset} is not in {first}+{length}")
        self.assertEqual((first % BLOCK, length, found["mismatched_bytes"]), (0, BLOCK, BLOCK))

    def flip_and_expect(self, path):
        self.fill_and_checkpoint()
        self.expect_clean()
        for offset in (8 * MIB + 12345, 16 * MIB - 1, 5 * MIB, 20 * MIB + BLOCK - 1):
            flip(path, offset)
            self.expect_found(offset)
            flip(path, offset)
            self.expect_clean()

    def test_finds_one_wrong_byte_in_the_primary(self):
        self.flip_and_expect(self.server.image)

    def test_finds_one_wrong_byte_in_the_backup(self):
        self.fill_and_checkpoint()
        self.flip_and_expect(self.backup_image(self.server))

    def test_finds_several(self):
        self.fill_and_checkpoint()
        offsets = [2 * MIB + 1, 9 * MIB, 15 * MIB + 77]
        for offset in offsets:
            flip(self.server.image, offset)
        found = self.verify(expect=MISMATCH)["mismatches"]
        for offset in offsets:
            hits = [m for m in found if 0 <= offset - m["offset"] < m["length"]]
            self.assertEqual(len(hits), 1, f"{offset} in {found}")

    def test_a_changed_block_is_skipped_and_no_mismatch(self):
        self.fill_and_checkpoint()
        flip(self.server.image, 100)
        self.expect_clean()

    def test_says_that_there_was_nothing_to_compare(self):
        self.fill_and_checkpoint()
        with NbdClient(str(self.server.socket)) as client:
            for offset in range(0, 32 * MIB, MIB):
                client.write(offset, b"x" * MIB)
        nothing = self.verify(expect=DEGRADED)
        self.assertEqual((nothing["checked_bytes"], nothing["skipped_bytes"]), (0, 32 * MIB))

    def test_compares_what_was_changed_by_others_too(self):
        self.fill_and_checkpoint()
        self.server.stop()
        with open(self.server.image, "r+b") as file:
            file.seek(8 * MIB)
            file.write(b"by somebody else")
        found = self.verify()
        self.assertEqual((found["checked_bytes"], found["skipped_bytes"]),
                         (31 * MIB - BLOCK, MIB + BLOCK))

    def test_reports_nothing_false_under_load(self):
        hammer = self.hammer(self.server, 4)
        hammer.must("ops", 50, 1)
        hammer.checkpoint(self.server, "c0")
        hammer.must("start", 2, "pause=500")
        deadline = time.monotonic() + verify_seconds() * self.share
        rounds = 0
        while time.monotonic() < deadline:
            answer = self.verify()
            self.assertEqual(answer["mismatched_bytes"], 0)
            rounds += 1
            if rounds % 3 == 0:
                hammer.checkpoint(self.server, f"c{rounds}")
        self.assertGreater(rounds, 2)
        hammer.must("stop")
        hammer.must("check", "now")
        hammer.checkpoint(self.server, "end")
        still = self.verify()
        self.assertEqual((still["mismatched_bytes"], still["skipped_bytes"]), (0, 0))


class OverLink:
    """To be mixed in: what is only so over a link."""

    share = share_over_link(0.25)

    def verify_while_the_store_dies(self):
        with self.deaths.within(self.takes):
            answer = self.verify(expect=None)
        self.assertIn(answer.code, (OK, DEGRADED, MISMATCH, FAILED, UNREACHABLE), answer)
        # While somebody waits for a checkpoint, the server asks at once for a store that died again
        # and again.
        eventually(lambda: tool("checkpoint", self.server.image, expect=None).code == OK,
                   "a checkpoint", 60)
        return answer

    def expect_deaths(self):
        """From here on, as long as one takes that is left in peace."""
        self.deaths = StoreDeaths(self.backupd, random.Random(self.id()))
        begin = time.monotonic()
        self.verify()
        self.takes = time.monotonic() - begin

    def test_the_store_dies_meanwhile(self):
        """Then there is no answer, or it is right."""
        self.fill_and_checkpoint()
        self.expect_deaths()
        offset = 8 * MIB + 12345
        for path in (self.server.image, self.backup_image(self.server)):
            flip(path, offset)
            found = [self.verify_while_the_store_dies() for _ in range(5)]
            self.expect_found(offset)
            flip(path, offset)
            clean = [self.verify_while_the_store_dies() for _ in range(5)]
            self.assertEqual(self.verify()["mismatched_bytes"], 0)
            self.assertNotIn(OK, [answer.code for answer in found])
            self.assertNotIn(MISMATCH, [answer.code for answer in clean])
        self.assertGreater(self.deaths.count, 5, "most came too late")

    def test_reports_nothing_false_under_load_while_the_store_dies(self):
        hammer = self.hammer(self.server, 4)
        hammer.checkpoint(self.server, "c0")
        self.expect_deaths()
        hammer.must("start", 3, "pause=500")
        deadline = time.monotonic() + verify_seconds() * self.share
        answers = 0
        while time.monotonic() < deadline or answers < 3:
            answer = self.verify_while_the_store_dies()
            self.assertNotEqual(answer.code, MISMATCH, answer)
            answers += 1
        hammer.must("stop")
        hammer.must("check", "now")
        hammer.checkpoint(self.server, "end")
        still = self.verify()
        self.assertEqual((still["mismatched_bytes"], still["skipped_bytes"]), (0, 0))
        self.expect_same_backup(self.server)


class VerifyRemote(OverLink, Verify):

    def reach_backup(self):
        self.backupd = self.keep()


class VerifyWithKeys(OverLink, Verify):

    def reach_backup(self):
        keep_with_keys(self)


if __name__ == "__main__":
    unittest.main()
