#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""No space: for the back-up, for the primary, for both on one file system. No write is lost, and protection
comes back."""

import errno
import random
import unittest

from harness import BLOCK, FAILED, MIB, OK, Case, Tmpfs, eventually, run, tool
from nbd_client import NbdClient, NbdError
from test_faults import digest, fill, scribble


class FullDisks(Case):
    def test_a_full_store_fails_no_write_and_recovers(self):
        small = Tmpfs(self, "48m", self.folder)
        server = self.serve(self.image(size=128 * MIB), f"backup=embedded:{small.path}",
                            "compress=none")
        with NbdClient(str(server.socket)) as client:
            for offset in range(0, 4 * MIB, MIB):
                client.write(offset, random.Random(offset).randbytes(MIB))
        first = tool("checkpoint", server.image, "--name", "first")["checkpoint"]
        good = digest(server.image)
        with NbdClient(str(server.socket)) as client:
            for offset in range(0, 100 * MIB, MIB):
                client.write(offset, random.Random(offset + 1).randbytes(MIB))
            failed = tool("checkpoint", server.image, "--name", "second", expect=FAILED)
            self.assertRegex(failed.message.lower(), "space")
            status = self.status(server)
            self.assertEqual(status["backup"]["state"], "failed")
            self.assertRegex(status["backup"]["error"].lower(), "space")
            self.assertEqual(status["last_checkpoint"]["checkpoint"], first)
            for offset in range(0, 100 * MIB, MIB):
                client.write(offset, random.Random(offset + 2).randbytes(MIB))
        tool("checkpoint", server.image, "--name", "third", expect=FAILED)
        run("mount", "-o", "remount,size=512m", small.path)
        again = tool("checkpoint", server.image, "--name", "fourth")["checkpoint"]
        self.assertGreater(again, first)
        self.assertEqual(tool("verify", server.image)["mismatched_bytes"], 0)
        fourth = digest(server.image)
        self.assertNotEqual(fourth, good)
        scribble(server, 5)
        tool("rollback", server.image, "--yes")
        self.assertEqual(digest(server.image), fourth)

    def test_the_store_makes_room_for_the_disk(self):
        """Both are on one file system, and what the store keeps back is the disk's when it is full."""
        small = Tmpfs(self, "96m", self.folder)
        server = self.serve(self.image(size=64 * MIB, folder=small.path), "compress=none")
        reserve = server.state / "store" / "reserve"
        with NbdClient(str(server.socket)) as client:
            for offset in range(0, 8 * MIB, MIB):
                client.write(offset, random.Random(offset).randbytes(MIB))
        tool("checkpoint", server.image)
        eventually(lambda: self.is_applied(server), "the checkpoint is applied")
        self.assertEqual(reserve.stat().st_blocks * 512, 64 * MIB // 20 // BLOCK * BLOCK)
        ballast = fill(small.path)
        late = random.Random(3).randbytes(2 * MIB)
        with NbdClient(str(server.socket)) as client:
            client.write(32 * MIB, late)
            self.assertFalse(reserve.exists())
            backup = self.status(server)["backup"]
            self.assertEqual(backup["state"], "failed")
            self.assertRegex(backup["error"], "file system is full|no space")
            self.assertEqual(client.read(32 * MIB, len(late)), late)
        self.assertIn("space", tool("checkpoint", server.image, expect=FAILED).message)
        self.assertFalse(reserve.exists())
        ballast.unlink()
        tool("checkpoint", server.image)
        before = digest(server.image)
        eventually(reserve.exists, "there is a reserve again")
        self.assertEqual(self.status(server)["backup"]["error"], "")
        verified = tool("verify", server.image)
        self.assertEqual((verified["mismatched_bytes"], verified["skipped_bytes"]), (0, 0))
        scribble(server, 5)
        tool("rollback", server.image, "--yes")
        self.assertEqual(digest(server.image), before)

    def test_a_rollback_while_the_store_is_full(self):
        small = Tmpfs(self, "48m", self.folder)
        server = self.serve(self.image(size=128 * MIB), f"backup=embedded:{small.path}",
                            "compress=none")
        scribble(server, 1)
        tool("checkpoint", server.image, "--name", "first")
        good = digest(server.image)
        with NbdClient(str(server.socket)) as client:
            for offset in range(0, 100 * MIB, MIB):
                client.write(offset, random.Random(offset).randbytes(MIB))
        tool("checkpoint", server.image, expect=FAILED)
        tool("rollback", server.image, "first", "--yes")
        self.assertEqual(digest(server.image), good)

    def test_a_full_primary_tells_the_client_and_nothing_else_breaks(self):
        small = Tmpfs(self, "32m", self.folder)
        server = self.serve(self.image(size=64 * MIB, folder=small.path),
                            f"state={self.folder / 'state'}")
        scribble(server, 1)
        tool("checkpoint", server.state)
        good = digest(server.image)
        with NbdClient(str(server.socket)) as client:
            with self.assertRaises(NbdError) as full:
                for offset in range(0, 64 * MIB, MIB):
                    client.write(offset, random.Random(offset).randbytes(MIB))
            self.assertEqual(full.exception.errno, errno.ENOSPC)
            client.trim(0, 16 * MIB)
            client.write(0, b"there is room again")
        self.assertEqual(tool("checkpoint", server.state).code, OK)
        self.assertEqual(tool("verify", server.state)["mismatched_bytes"], 0)
        self.assertNotEqual(digest(server.image), good)


if __name__ == "__main__":
    unittest.main()
