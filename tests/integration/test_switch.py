#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A planned change of roles: the back-up becomes the primary and the primary its back-up, and nothing
that was written is lost. Two sites, each with a backupd; a model says what the disk is."""

import errno
import os
import shutil
import subprocess
import unittest
from pathlib import Path

from harness import BUSY, FAILED, HALFWAY, OK, TIMEOUT, USAGE, build, eventually, free_port, tool
from link_proxy import PROMOTE, LinkProxy
from link_strikes import Cut
from nbd_client import NbdClient
from sites import SIZE, Model, Sites
from steps import FAIL, KILL_BEFORE, Steps
from tls_files import Secrets

UNREACHABLE, FENCED = 10, 11
INTERRUPTIONS = 24
UNSERVED = "was promoted|not served before it has said"


class Switching(Sites):
    """Both backupds run all the time."""

    def setUp(self):
        super().setUp()
        self.near.start()
        self.volume

    def switch(self, *words, **options):
        place = [] if self.server.image.name == "backup.img" else ["--store", self.near.store]
        return tool("switch", self.server.image, *place, "--yes", *words, **options)

    def change(self, *words):
        """And serves what is the primary then, which is returned: with all that was written."""
        self.server.stop()
        answer = self.switch(*words)
        self.assertEqual(answer["primary"], self.far.address)
        self.assertEqual(answer["store"], str(self.near.store / self.volume))
        return answer, self.serve_there()

    def serve_there(self):
        there = tool("promote", self.far.store / self.volume, "--yes")
        self.assertTrue(there["was_promoted"])
        server = self.serve_promoted(there)
        self.assertEqual(self.content(server.image), self.model.now)
        self.swap(server)
        return server

    def expect_nothing_moves(self, server):
        """The new back-up is what the new primary has, but for what is written now."""
        with NbdClient(str(server.socket)) as client:
            self.model.write(client, 8192, self.draw.randbytes(4096))
        answer = self.checkpoint(server)
        self.assertEqual(answer["changed_bytes"], 4096)


class Switch(Switching):
    def test_there_and_back_again(self):
        numbers = []
        for _ in range(6):
            self.model.write_some(self.server)  # in no checkpoint
            answer, server = self.change()
            numbers.append(answer["checkpoint"])
            self.expect_nothing_moves(server)
            self.expect_two_copies(server, self.far.store)
        self.assertEqual(numbers, sorted(set(numbers)))

    def test_the_old_one_is_no_primary_any_more(self):
        image = self.server.image
        _, server = self.change()
        self.assertFalse(image.exists())
        self.assertFalse(self.server.image == image)
        status = tool("status", f"{self.far.address}/{self.volume}")
        self.assertNotEqual(status["state"], "promoted")
        self.assertTrue(server.running)

    def test_over_tls(self):
        secrets = Secrets.get()
        far = self.keep(f"--tls-psk={secrets.keys}", store=self.folder / "third", listen=f"127.0.0.1:{free_port()}")
        key = f"tls-psk={secrets.psk['carol']}"
        self.server.stop()
        tool("forget", self.server.image, "--yes", expect=None)
        self.server = self.serve(self.server.image, f"backup={far.address}", key)
        del self._volume
        self.far = far
        self.volume
        self.checkpoint()
        self.model.write_some(self.server)
        self.change(f"--{key}")


class Refusals(Switching):
    """Before anything is changed."""

    def refused(self, code, *words, says, volume=None):
        answer = tool("switch", volume or self.server.image, *words, expect=code)
        self.assertIn(says, answer.message)
        return answer

    def expect_unchanged(self):
        if not self.server.running:
            self.server.start()
        self.model.write_some(self.server)
        self.checkpoint()
        self.assertEqual(tool("verify", self.server.image)["mismatched_bytes"], 0)
        self.assertFalse((self.near.store / self.volume).exists())

    def test_while_it_is_served(self):
        self.refused(BUSY, "--store", self.near.store, "--yes", says="stop it")
        self.expect_unchanged()

    def test_unasked(self):
        self.server.stop()
        self.refused(USAGE, "--store", self.near.store, says="--yes")
        self.expect_unchanged()

    def test_without_a_place_for_the_image(self):
        self.server.stop()
        self.refused(USAGE, "--yes", says="--store")
        self.refused(None, "--store", self.folder / "nowhere", "--yes", says="nowhere")
        in_the_way = self.near.store / self.volume
        in_the_way.mkdir()
        self.refused(USAGE, "--store", self.near.store, "--yes", says="there already")
        in_the_way.rmdir()
        self.expect_unchanged()

    def test_on_another_file_system(self):
        other = Path("/dev/shm") / f"ckpt-{os.getpid()}"
        other.mkdir()
        self.addCleanup(shutil.rmtree, other)
        self.server.stop()
        self.refused(USAGE, "--store", other, "--yes", says="another file system")
        self.expect_unchanged()

    def test_whose_back_up_is_not_there(self):
        self.server.stop()
        self.far.kill9()
        self.refused(UNREACHABLE, "--store", self.near.store, "--yes", says=self.far.address)
        self.far.start()
        self.expect_unchanged()

    def test_whose_back_up_is_here(self):
        server = self.serve(self.image("embedded.img", size=1 << 20))
        server.stop()
        self.refused(USAGE, "--store", self.near.store, "--yes", says="this machine", volume=server.image)
        server.start()
        tool("checkpoint", server.image)

    def test_of_a_back_up(self):
        self.refused(USAGE, "--yes", says="", volume=self.far.store / self.volume)

    def test_whose_back_up_was_promoted(self):
        """What was written since is for people to give up."""
        self.server.kill9()
        eventually(lambda: tool("promote", self.far.store / self.volume, "--yes", expect=None).code == OK,
                   "it is let go of")
        self.refused(FENCED, "--store", self.near.store, "--yes", says="rejoin")
        self.rejoin(self.server)


class Interrupted(Switching):
    def test_killed_at_any_moment(self):
        """It is switched, or the primary as before, or the one command that is named goes on: nothing is
        lost, and nobody else is the primary."""
        outcomes = set()
        for n in range(INTERRUPTIONS):
            self.model.write_some(self.server, 5)
            self.server.stop()
            place = [] if self.server.image.name == "backup.img" else ["--store", self.near.store]
            command = [build() / "tools" / "ckpt-tool", "switch", self.server.image, *place, "--yes"]
            subprocess.run(["timeout", "-s", "KILL", str(0.004 * n + 0.002), *command],
                           capture_output=True, check=False)
            outcomes.add(self.end_it())
            self.serve_there()
            eventually(lambda: self.status(self.server)["protected"], "it is protected", 60)
            self.checkpoint()
        self.assertIn("switched", outcomes)
        self.assertIn("primary", outcomes)

    def end_it(self):
        if not self.server.image.exists() or tool("status", self.server.image, expect=None).code != OK:
            return "switched"
        def end():
            answer = self.switch(expect=None)
            return answer.code != BUSY and answer
        answer = eventually(end, "the killed one has left")
        if answer.code == OK:
            return "primary"
        self.assertIn(answer.code, (FENCED, HALFWAY), answer)
        self.rejoin(self.server)
        return "half-way"

    def test_nobody_but_the_back_up_says_that_it_is_none(self):
        """Its answer is lost. A third store that has the same checkpoint does not know."""
        far = self.far.address
        proxy = LinkProxy(self.folder, far)
        self.addCleanup(proxy.close)
        self.server.stop()
        self.server.parameters = (f"backup={proxy.address}",)
        self.server.start()
        self.server.stop()
        swallow = Cut("up", PROMOTE, 0)
        proxy.lay(swallow)
        answer = self.switch(expect=HALFWAY)
        self.assertIn("ckpt-tool rejoin", answer.message)
        eventually(lambda: tool("status", self.far.store / self.volume)["state"] == "promoted", "it has heard")
        third = self.keep(store=self.folder / "third")
        for place in (f"backup={third.address}", f"backup={far}", "backup=none"):
            self.server.parameters = (place,)
            self.assertRegex(self.server.refusal(), "was told to become the primary|has a back-up|was promoted")
        self.assertEqual(third.folders(), [])
        self.server.parameters = ()
        self.assertIn("promoted", self.server.refusal())
        self.rejoin(self.server)
        self.near.kill9()
        self.near.start()
        self.serve_there()

    def test_a_disk_that_fails_at_the_end(self):
        """The other is the primary, and the tool says how to go on."""
        self.server.stop()
        draft = self.near.store / f".rejoin-{self.volume}"
        draft.write_text("in the way")
        answer = self.switch(expect=HALFWAY)
        self.assertIn("ckpt-tool rejoin", answer.message)
        draft.unlink()
        self.rejoin(self.server)
        self.expect_two_copies(self.serve_there(), self.far.store)


class StepsOfTheOther(Interrupted):
    """A file operation of the other's backupd fails, or it is killed there, while it is told that it is the
    primary. CKPT_POINTS=all: at each of them; else at a sample."""

    SAMPLE = 4
    test_killed_at_any_moment = test_a_disk_that_fails_at_the_end = None
    test_nobody_but_the_back_up_says_that_it_is_none = None

    def setUp(self):
        super().setUp()
        print(f"{self.id()}: CKPT_SEED={os.environ.get('CKPT_SEED', '1')}")
        self.steps = Steps(self.folder, "far", self.folder / "far")
        self.far.stop()
        self.far.environment = self.steps.environment
        self.far.start()
        eventually(lambda: self.status(self.server)["protected"], "it has its back-up again", 60)

    def points(self):
        """A step and which time it is, of one change of roles."""
        self.server.stop()
        self.steps.news()
        self.switch()
        found = [(step, time + 1) for step, count in self.steps.news().items() for time in range(count)]
        self.go_back()
        return found

    def go_back(self):
        """The first site is the primary again."""
        self.serve_there()
        self.expect_nothing_moves(self.server)
        self.change()

    def test_whatever_becomes_of_it(self):
        acts = [(point, act) for point in self.points() for act in (FAIL, KILL_BEFORE)]
        self.assertGreater(len(acts), 20)
        outcomes = set()
        for point, act in acts if os.environ.get("CKPT_POINTS") == "all" else self.draw.sample(acts, self.SAMPLE):
            try:
                outcomes.add(self.strike(point, act))
            except Exception as failure:
                failure.add_note(f"{point}, act {act}")
                raise
        print(f"outcomes: {outcomes}")

    def strike(self, point, act):
        self.model.write_some(self.server, 3)
        self.server.stop()
        self.steps.arm(*point, act, errno.EIO)
        first = self.switch(expect=None)
        self.steps.disarm()
        outcome = "at once"
        if first.code != OK:
            self.assertIn(first.code, (FAILED, TIMEOUT, HALFWAY, UNREACHABLE), first)
            self.expect_one_primary(first.code)
            outcome = self.end_it()
        self.go_back()
        return outcome

    def expect_one_primary(self, code):
        """Whoever starts the old one again, with its backupd as it is now, dead, and started again."""
        is_promoted = tool("status", self.far.store / self.volume)["state"] == "promoted"
        if is_promoted:
            self.assertEqual(code, HALFWAY)
        if is_promoted and self.far.process.poll() is None:
            self.assertRegex(self.server.refusal(), UNSERVED)
        self.far.kill9()
        if code == HALFWAY:
            self.assertRegex(self.server.refusal(), UNSERVED)
        self.far.start()
        if is_promoted:
            self.assertIn("promoted", self.server.refusal())
        else:
            self.server.start()
            eventually(lambda: self.status(self.server)["protected"], "it is the primary as before", 60)
            self.server.stop()


class Pair(Switching):
    """docs/failover.md, "A symmetric pair": the disk of Sites is the one of a; b has one, too."""

    def setUp(self):
        super().setUp()
        self.others = Model(self.draw)
        self.other = self.serve(self.image("web.img", size=SIZE, folder=self.folder / "far"),
                                f"backup={self.near.address}")
        self.change_other()

    def change_other(self):
        self.others.write_some(self.other)
        tool("checkpoint", self.other.image)
        self.others.keep()

    def expect_other(self):
        """Its primary has served on, and its back-up has the last checkpoint, whoever has which role."""
        self.assertEqual(self.content(self.other.image), self.others.now)
        eventually(lambda: self.is_applied(self.other), "it is applied")
        volume = tool("status", self.other.image)["volume"]
        self.assertEqual(self.content(self.a.store / volume / "backup.img"), self.others.kept)

    def test_one_is_lost_and_comes_back(self):
        self.a = self.near
        self.server.kill9()
        self.near.kill9()
        self.others.write_some(self.other)  # b works on
        there = eventually(self.promoted, "it is let go of")
        self.model.go_back()
        server = self.serve_promoted(there)
        self.model.write_some(server)
        self.rejoin(self.server)
        self.near.start()
        self.expect_two_copies(server, self.near.store)
        self.change_other()
        self.expect_other()
        self.swap(server)
        self.model.write_some(self.server)
        _, back = self.change()
        self.expect_two_copies(back, self.far.store)
        self.change_other()
        self.expect_other()

    def promoted(self):
        answer = tool("promote", self.far.store / self.volume, "--yes", expect=None)
        return answer.code == OK and answer


if __name__ == "__main__":
    unittest.main()
