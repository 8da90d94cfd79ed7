#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A volume and its copy have the same back-up: one of them has a session, the other is told which one,
and the first notices nothing."""

import os
import random
import signal
import unittest

from harness import BUSY, MIB, OK, eventually, run, tool
from nbd_client import NbdClient
from test_remote import Remote

SIZE = 16 * MIB


class TwoPrimaries(Remote):
    def setUp(self):
        super().setUp()
        self.copied = self.folder / "elsewhere" / "copy.img"
        self.original = self.serve(self.image(size=SIZE))
        for i in range(2):
            self.write(self.original, i)
            tool("checkpoint", self.original.image)

    def write(self, server, at):
        with NbdClient(str(server.socket)) as client:
            client.write(at * MIB, random.Random(at).randbytes(65536))

    def copy(self):
        """Image and state, as they are at this moment, and a server of them that was not started."""
        self.copied.parent.mkdir()
        run("cp", "-a", self.original.image, self.copied)
        run("cp", "-a", self.original.state, f"{self.copied}.ckpt")
        return self.serve(self.copied, start=False)

    def expect_both_named(self, text):
        host = os.uname().nodename
        for place in (self.original.image, self.copied):
            self.assertIn(f"{host}:{place.resolve()}", text)
        self.assertIn(self.backupd.address, text)

    def expect_refused(self, server):
        """Its status says so."""
        def state():
            answer = self.status(server)
            return answer if answer["backup"]["state"] == "failed" else None
        answer = eventually(state, "it is refused")
        self.expect_both_named(answer["problem"])
        self.expect_both_named(answer["backup"]["error"])
        self.assertFalse(answer["protected"])

    def expect_diverged(self, server):
        eventually(lambda: self.status(server)["state"] == "diverged", "it has diverged", 60)

    def expect_undisturbed(self):
        """The original: a checkpoint at once, equal in every byte, and no session was begun anew."""
        tool("checkpoint", self.original.image)
        status = self.status(self.original)
        self.assertEqual((status["problem"], status["backup"]["state"]), ("", "connected"))
        self.assertEqual(tool("verify", self.original.image)["mismatched_bytes"], 0)
        self.expect_same_backup(self.original)

    def test_a_copy_of_a_running_volume_is_refused(self):
        self.write(self.original, 2)  # which is not in the last checkpoint
        copy = self.copy().start()
        self.expect_refused(copy)
        self.write(copy, 5)  # its clients are served
        with NbdClient(str(copy.socket)) as client:
            self.assertEqual(client.read(5 * MIB, 65536), random.Random(5).randbytes(65536))
        for at in range(6, 9):
            self.write(self.original, at)
            self.expect_both_named(tool("checkpoint", copy.image, expect=BUSY).message)
            self.expect_undisturbed()
        self.assertEqual(self.backupd.said().count("it is served by"), 1, "the log has it once")
        copy.stop()
        again = self.serve(copy.image, "start=contact", start=False)
        self.expect_both_named(again.refusal())
        self.expect_undisturbed()
        # The original has gone further: the copy is on another line, which has no back-up.
        self.original.stop()
        self.assertIn("diverged", again.refusal())
        self.original.start()
        self.expect_undisturbed()

    def test_a_copy_that_runs_is_found_to_have_diverged(self):
        copy = self.copy().start()
        self.expect_refused(copy)
        self.write(self.original, 3)
        self.expect_undisturbed()
        self.original.stop()
        self.expect_diverged(copy)
        told, last = self.status(copy), tool("status", self.original.image)["last_checkpoint"]
        self.assertEqual((told["backup"]["confirmed"], told["backup"]["timeline"]),
                         (last["checkpoint"], last["timeline"]))
        self.assertIn(f"its last checkpoint: {told['last_checkpoint']['checkpoint']} of timeline",
                      told["problem"])
        # It stays connected, and keeps nobody out.
        self.original.start()
        self.connected(self.original)
        self.write(self.original, 4)
        self.expect_undisturbed()

    def test_a_copy_that_is_as_good_takes_over(self):
        """The original stopped, and the back-up has nothing that the copy does not know."""
        copy = self.copy().start()
        self.expect_refused(copy)
        self.write(copy, 3)
        self.original.stop()
        eventually(lambda: tool("checkpoint", copy.image, expect=None).code == OK, "a checkpoint")
        self.assertEqual(tool("verify", copy.image)["mismatched_bytes"], 0)
        self.expect_same_backup(copy)
        self.original.start()
        self.expect_refused(self.original)
        copy.stop()
        self.expect_diverged(self.original)

    def test_a_copy_costs_the_original_no_comparison(self):
        """What the original's server has written is known exactly after it was killed, though a copy
        of its state, which names the same maps in memory, was served meanwhile."""
        copy = self.copy().start()
        self.expect_refused(copy)
        copy.stop()
        self.backupd.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.backupd.kill9)
        self.write(self.original, 3)
        self.original.kill9()
        self.original.start()
        self.assertEqual(self.status(self.original)["changed_bytes"], 65536)

    def test_the_same_primary_killed_is_accepted_at_once(self):
        copy = self.copy().start()
        self.expect_refused(copy)
        tool("checkpoint", self.original.image)
        self.original.kill9()
        contact = self.serve(self.original.image, "start=contact", start=False)
        for at in range(3, 6):
            contact.start()
            self.write(contact, at)
            tool("checkpoint", contact.image)
            self.assertEqual(tool("verify", contact.image)["mismatched_bytes"], 0)
            contact.kill9()
        self.expect_diverged(copy)


if __name__ == "__main__":
    unittest.main()
