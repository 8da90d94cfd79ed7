#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A back-up is promoted while the backupd that has it runs, and serves others."""

import shutil
import subprocess
import unittest
from pathlib import Path

from harness import BUSY, OK, build, eventually, free_port, tool
from promotions import INTERRUPTIONS, SIZE, PromoteCase, digest, write_some

DENIED = 12


class WhileBackupdRuns(PromoteCase):
    """It lets go of that volume, and serves the others."""

    def setUp(self):
        super().setUp()
        self.backupd = self.keep()

    def served(self, **options):
        """A volume whose primary is connected; truth is what it was at its checkpoint."""
        server = self.serve(self.image(size=SIZE, **options), f"backup={self.backupd.address}")
        write_some(server, self.draw)
        self.checkpoint = tool("checkpoint", server.image)["checkpoint"]
        shutil.copyfile(server.image, self.truth)
        return server, self.backupd.folder_of(server)

    def lost_beside(self):
        """One whose server was killed. What it left is confirmed, and perhaps not applied."""
        server = self.lost(f"backup={self.backupd.address}")
        return server, self.backupd.folder_of(server)

    def promote(self, folder, *options):
        """The end of a connection may take a moment to be heard of."""
        def promoted():
            answer = tool("promote", folder, "--yes", *options, expect=None)
            return answer.code != BUSY and answer
        answer = eventually(promoted, "it is let go of")
        self.assertEqual(answer.code, OK, answer)
        return answer

    def assert_undisturbed(self, server):
        """Its session is the one that it had."""
        ended = [line for line in self.backupd.said().splitlines()
                 if tool("status", server.image)["volume"] in line and "has ended" in line]
        self.assertEqual(ended, [])
        self.assertGreater(tool("checkpoint", server.image)["checkpoint"], self.checkpoint)

    def test_one_whose_primary_is_dead(self):
        (self.folder / "other").mkdir()
        other, _ = self.served(folder=self.folder / "other")
        server, folder = self.lost_beside()
        answer = self.promote(folder)
        self.assertEqual(answer["checkpoint"], self.checkpoint)
        status = tool("status", f"{self.backupd.address}/{answer['volume']}")
        self.assertEqual(status["timeline"], answer["timeline"], "backupd has it again")
        self.assertIn("was promoted", server.refusal())
        self.assert_undisturbed(other)
        again = self.keep(store=self.folder / "again")
        self.assert_works(self.serve_promoted(answer, f"backup={again.address}"))
        self.assertIsNone(self.backupd.process.poll())

    def test_one_whose_primary_is_connected(self):
        server, folder = self.served()
        answer = tool("promote", folder, "--yes", expect=BUSY)
        for word in (str(server.image), "--force"):
            self.assertIn(word, answer.message)
        self.assert_undisturbed(server)
        self.assertEqual(tool("status", server.image)["state"], "running")

    def test_it_can_be_forced(self):
        server, folder = self.served()
        write_some(server, self.draw)  # some of it is pending
        answer = tool("promote", folder, "--yes", "--force")
        eventually(lambda: tool("status", server.image)["state"] == "diverged", "it hears of it")
        again = self.keep(store=self.folder / "again")
        self.assert_works(self.serve_promoted(answer, f"backup={again.address}"))

    def test_others_read_meanwhile(self):
        """Whoever has an export of it under way is cut off, and has no file."""
        server, folder = self.lost_beside()
        out = self.folder / "out.raw"
        address = f"{self.backupd.address}/{folder.name}"
        readers = [subprocess.Popen([build() / "tools" / "ckpt-tool", "export", address, "last", f"{out}{n}"],
                                    stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for n in range(4)]
        answer = self.promote(folder)
        for n, reader in enumerate(readers):
            if reader.wait() == OK:
                self.assertEqual(digest(f"{out}{n}"), digest(self.truth))
            else:
                self.assertFalse(Path(f"{out}{n}").exists())
        self.assertEqual(digest(answer["image"]), digest(self.truth))
        self.assertFalse(server.running)

    def test_a_tool_that_dies_gives_it_back(self):
        """Or has promoted it."""
        server, folder = self.lost_beside()
        command = [build() / "tools" / "ckpt-tool", "promote", folder, "--yes"]
        given_back = 0
        for n in range(INTERRUPTIONS):
            subprocess.run(["timeout", "-s", "KILL", str(0.002 * n + 0.004), *command], capture_output=True,
                           check=False)
            if tool("status", folder)["state"] == "promoted":
                break
            server.start()
            eventually(lambda: tool("status", server.image)["protected"], "its session goes on")
            tool("checkpoint", server.image)
            shutil.copyfile(server.image, self.truth)
            server.kill9()
            given_back += 1
        self.assertGreater(given_back, 0)
        answer = self.promote(folder)
        self.assertEqual(digest(answer["image"]), digest(self.truth))
        self.assertIn("was promoted", server.refusal())

    def test_a_fence_ends_a_primary_that_is_connected(self):
        server, folder = self.served()
        write_some(server, self.draw)
        answer = tool("promote", folder, "--yes", "--fence", f"kill -KILL {server.process.pid}")
        self.assertFalse(server.running)
        self.assertEqual(digest(answer["image"]), digest(self.truth))

    def test_a_fence_may_take_longer_than_backupd_waits_for_words(self):
        self.backupd.stop()
        self.backupd = self.keep("--silence=2")
        _, folder = self.lost_beside()
        tool("promote", folder, "--yes", "--fence", "sleep 5")

    def test_no_fence_where_nothing_could_be_promoted(self):
        _, folder = self.lost_beside()
        (self.backupd.store / "backupd.sock").unlink()
        tool("promote", folder, "--yes", "--fence", f"touch {self.folder}/fenced", expect=BUSY)
        self.assertFalse((self.folder / "fenced").exists())

    def test_a_connected_primary_does_not_notice_a_fence_that_fails(self):
        server, folder = self.served()
        self.assertIn("nothing was promoted",
                      tool("promote", folder, "--yes", "--force", "--fence", "false", expect=None).message)
        self.assert_undisturbed(server)

    def test_a_fence_that_fails_gives_it_back(self):
        server, folder = self.lost_beside()
        self.assertIn("nothing was promoted",
                      tool("promote", folder, "--yes", "--fence", "false", expect=None).message)
        server.start()
        tool("checkpoint", server.image)

    def test_one_that_cannot_be_asked(self):
        _, folder = self.lost_beside()
        (self.backupd.store / "backupd.sock").unlink()
        answer = tool("promote", folder, "--yes", expect=BUSY)
        self.assertIn("stop it", answer.message)
        self.assertIn("backupd.sock", answer.message)
        self.promote(folder, "--backupd", self.backupd.address)

    def test_the_socket_is_its_users(self):
        self.assertEqual((self.backupd.store / "backupd.sock").stat().st_mode & 0o777, 0o600)

    def test_not_over_tcp(self):
        """Whoever is there need not be on this machine."""
        _, folder = self.lost_beside()
        address = f"127.0.0.1:{free_port()}"
        self.backupd.stop()
        self.backupd = self.keep(listen=address)
        answer = tool("promote", folder, "--yes", "--backupd", address, expect=DENIED)
        self.assertIn("Unix socket", answer.message)
        self.promote(folder)

    def test_a_folder_whose_path_is_long(self):
        deep = self.folder / "/".join(["d" * 60] * 4)
        deep.mkdir(parents=True)
        self.backupd = self.keep(store=deep / "shelf")
        _, folder = self.lost_beside()
        self.promote(folder)

    def test_back_into_its_own_folder(self):
        """The image of what was promoted rejoins where it is, while backupd runs."""
        _, folder = self.lost_beside()
        answer = self.promote(folder)
        far = self.keep(store=self.folder / "far")
        promoted = self.serve_promoted(answer, f"backup={far.address}")
        eventually(lambda: tool("status", promoted.image)["protected"], "it has a back-up", 60)
        write_some(promoted, self.draw)
        number = tool("checkpoint", promoted.image)["checkpoint"]
        shutil.copyfile(promoted.image, self.truth)
        promoted.kill9()
        there = far.store / folder.name
        back = self.promote(there)
        tool("rejoin", promoted.image, "--yes")
        again = self.serve(Path(back["image"]), f"backup={self.backupd.address}")
        self.assertEqual(digest(again.image), digest(self.truth))
        self.checkpoint = number
        self.assert_works(again)


if __name__ == "__main__":
    unittest.main()
