#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The examples of the patent application, a file with "ABCD" into which "X" is written at position 1:
its Fig. 4 (updating), 5 (restoring the primary) and 12 (the back-up takes over)."""

import unittest
from pathlib import Path

from harness import MIB, eventually, run, tool
from nbd_client import NbdClient
from test_remote import Remote

AT_T1, WITH_X, WORK_GOES_ON = b"ABCD", b"AXCD", b"ABYD"


class Figures(Remote):
    def setUp(self):
        super().setUp()
        image = self.image(size=4 * MIB)
        with open(image, "r+b") as file:
            file.write(AT_T1)
        self.server = self.serve(image)
        eventually(lambda: self.status(self.server)["protected"], "the first copy")
        eventually(lambda: self.is_applied(self.server), "which is applied")
        self.assertEqual(self.of_backup(), AT_T1)
        # t1: X at position 1. The primary has it at once, and the back-up file does not; what is
        # pending there by now is not the checkpoint's.
        with NbdClient(str(self.server.socket)) as client:
            client.write(1, b"X")
        self.assertEqual(self.of_primary(), WITH_X)
        eventually(lambda: self.status(self.server)["backup"]["pending_bytes"] > 0, "it is shipped")
        self.assertEqual(self.of_backup(), AT_T1)

    def of_primary(self):
        with NbdClient(str(self.server.socket)) as client:
            return client.read(0, 4)

    def of_backup(self):
        with open(self.backupd.folder_of(self.server) / "backup.img", "rb") as file:
            return file.read(4)

    def test_figure_4_a_checkpoint_confirms_and_then_the_backup_is_updated(self):
        tool("checkpoint", self.server.image)
        eventually(lambda: self.of_backup() == WITH_X, "the back-up file is updated")
        self.assertEqual(self.of_primary(), WITH_X)

    def test_figure_5_the_primary_is_restored_from_the_backup(self):
        outcome = tool("rollback", self.server.image, "--yes")
        self.assertEqual(outcome["restored_bytes"], 4096)
        self.assertEqual(self.of_primary(), AT_T1)
        self.assertEqual(self.of_backup(), AT_T1)

    def test_figure_12_the_backup_can_be_used_as_it_stands(self):
        volume = self.backupd.folder_of(self.server)
        self.server.kill9()
        self.server.image.unlink()
        self.assertEqual(self.of_backup(), AT_T1)
        exported = self.folder / "taken-over.img"
        tool("export", f"{self.backupd.address}/{volume.name}", "last", exported)
        run("cmp", exported, volume / "backup.img")

    def test_figure_12_the_work_goes_on_at_the_backup(self):
        """Whose file is the primary's from then on; the old one, repaired, is not served again."""
        volume = self.backupd.folder_of(self.server)
        self.server.kill9()
        self.backupd.stop()
        promoted = tool("promote", volume, "--yes")
        self.backupd.start()
        old, self.server = self.server, self.serve(Path(promoted["image"]), "backup=embedded")
        self.assertEqual(self.of_primary(), AT_T1)
        with NbdClient(str(self.server.socket)) as client:
            client.write(2, b"Y")
        tool("checkpoint", self.server.image)
        with NbdClient(str(self.server.socket)) as client:
            client.write(3, b"Z")
        tool("rollback", self.server.image, "--yes")
        self.assertEqual(self.of_primary(), WORK_GOES_ON)
        self.assertIn("was promoted", old.refusal())
        self.assertEqual(old.image.read_bytes()[:4], WITH_X)


if __name__ == "__main__":
    unittest.main()
