#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One store of several that a backupd keeps is of a newer format, half deleted, or another's: it is
refused by name, and not touched; the others are served meanwhile."""

import hashlib
import random
import shutil
import struct
import unittest

from harness import FAILED, MIB, OK, Case, eventually, run, tool
from link_strikes import crc32c
from nbd_client import NbdClient

SLOT = 65536  # bytes of each of the four slots in `volume` (docs/volume-format.md)
JOURNAL_HEADER = 128


def digests(folder):
    """Of all that is in it: content, size, and names."""
    return {str(path.relative_to(folder)):
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            for path in folder.rglob("*")}


def applied_and_confirmed(folder):
    """The numbers in the newest record in `volume`; the second is 0 once it is applied
    (docs/store-format.md)."""
    volume = (folder / "volume").read_bytes()
    newest = max((struct.unpack_from("<Q", volume, at + 8)[0], at)
                 for at in range(0, len(volume), SLOT))[1]
    return struct.unpack_from("<QQ", volume, newest + 64 + 0x40)


def change(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


class BadStores(Case):
    def setUp(self):
        super().setUp()
        self.backupd = self.keep("--silence=2")
        self.server = self.serve(self.image(size=16 * MIB))
        self.other = self.serve(self.image("other.img", size=16 * MIB))
        tool("checkpoint", self.other.image)
        self.bad = self.backupd.folder_of(self.server)
        self.apply_something()
        self.last = self.half_applied()
        self.whole = self.folder / "whole"
        self.copy(self.bad, self.whole)

    @staticmethod
    def copy(source, target):
        shutil.rmtree(target, ignore_errors=True)
        run("cp", "-a", "--sparse=always", source, target)

    def apply_something(self):
        """A back-up image without data says nothing about whose it is."""
        with NbdClient(str(self.server.socket)) as client:
            client.write(15 * MIB, b"applied" * 4096)
        tool("checkpoint", self.server.image)
        eventually(lambda: applied_and_confirmed(self.bad)[1] == 0, "it is applied")

    def half_applied(self):
        """Leaves a stopped backupd, whose store of the server has a checkpoint that is confirmed and
        not applied; its number."""
        for draw in range(50):
            with NbdClient(str(self.server.socket)) as client:
                client.write(draw % 4 * 4 * MIB, random.Random(draw).randbytes(4 * MIB))
            made = tool("checkpoint", self.server.image)["checkpoint"]
            self.backupd.kill9()
            applied, confirmed = applied_and_confirmed(self.bad)
            if applied < confirmed:
                return confirmed
            self.backupd.start()
        raise AssertionError("every checkpoint was applied before it could be killed")

    def expect_refused(self, *texts):
        """The store that lies there now. The other one is served, and nothing of this is changed."""
        before = digests(self.bad)
        self.backupd.start()
        tool("checkpoint", self.other.image)
        self.assertEqual(tool("verify", self.other.image)["mismatched_bytes"], 0)

        def problem():
            said = self.status(self.server)["problem"]
            return said if all(text in said for text in texts) else None
        said = eventually(problem, f"the server says {texts}", 60)
        self.assertIn(str(self.bad), said)
        with NbdClient(str(self.server.socket)) as client:  # the disk is served all the same
            client.write(0, b"z" * 65536)
        answer = tool("checkpoint", self.server.image, "--timeout", 1, expect=FAILED)
        self.assertIn(texts[0], answer.message)
        self.assertIn(texts[0], self.backupd.said(100000))
        self.backupd.stop()
        self.assertEqual(digests(self.bad), before)

    def test_a_bad_store_is_refused_by_name_and_left_alone(self):
        journal = self.bad / "journal"
        newest = journal / f"{self.last:020}"
        self.assertTrue(newest.exists(), sorted(journal.iterdir()))
        newer = "written by a newer version of ckpt; use one as new"
        restore = f"bring back a whole copy of {self.bad}, or move it away"

        def newer_volume():
            for slot in range(4):
                change(self.bad / "volume", slot * SLOT + 4, struct.pack("<H", 2))

        def newer_journal():
            header = bytearray(newest.read_bytes()[:JOURNAL_HEADER])
            header[8:10] = struct.pack("<H", 2)
            header[-4:] = struct.pack("<I", crc32c(header[:-4]))
            change(newest, 0, header)

        def without(*patterns):
            for pattern in ("volume", *patterns):
                for file in list(self.bad.glob(pattern)):
                    file.unlink()

        def of_another():
            self.copy(self.backupd.folder_of(self.other), self.bad)

        for damage, *texts in (
                (newer_volume, f"{self.bad}/volume: {newer}"),
                (newer_journal, f"{newest}: ", newer),
                (newest.unlink, f"{newest}: is missing, though", restore),
                (lambda: shutil.rmtree(journal), f"{journal}: is missing", restore),
                ((self.bad / "backup.img").unlink, f"{self.bad}/backup.img: is missing", restore),
                (lambda: change(self.bad / "backup.img", 16 * MIB, b"x"),
                 f"{self.bad}/backup.img: has 16777217 bytes, not 16777216", restore),
                (without, f"{self.bad}: has backup.img and name, but `volume` is missing", restore),
                (lambda: without("name"), f"{self.bad}: has a journal, but `volume` is missing",
                 restore),
                (lambda: without("name", "journal/*"),
                 f"{self.bad}/backup.img: has data, but `volume` is missing", restore),
                (of_another, f"{self.bad}: is the store of volume", "back under its own name")):
            with self.subTest(texts[0]):
                self.backupd.kill9()
                self.copy(self.whole, self.bad)
                damage()
                self.expect_refused(*texts)
        self.copy(self.whole, self.bad)
        self.backupd.start()
        eventually(lambda: tool("checkpoint", self.server.image, expect=None).code == OK,
                   "a checkpoint, with the whole store back in its place", 60)
        self.expect_same_backup(self.server)


if __name__ == "__main__":
    unittest.main()
