#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The way back after a fail-over: the old primary's image becomes the new one's back-up, and only what
differs is shipped. Two sites, each with a backupd; a model says what the disk is.

CKPT_FAIL_OVERS is the number of random ones in a row (20), CKPT_SEED repeats a run's choices."""

import errno
import os
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

from harness import BUSY, FAILED, MIB, USAGE, Tmpfs, build, eventually, run, tool
from link_proxy import CONFIRM, READER, SESSION, LinkProxy
from link_strikes import Stall
from nbd_client import NbdClient
from sites import SIZE, Sites
from steps import KILL_BEFORE, Steps

NOTHING, UNREACHABLE = 4, 10


def begin_full_copy(sites, promoted):
    """All of it is there but for its first checkpoint. Returns the new primary's server."""
    sites.near.start()
    proxy = LinkProxy(sites.folder, sites.near.address)
    sites.addCleanup(proxy.close)
    stall = Stall("up", CONFIRM)
    proxy.lay(stall)
    server = sites.serve_promoted(promoted, proxy.address)
    sites.assertTrue(stall.happened.wait(60))
    return server


class Rejoin(Sites):
    def test_what_differs_moves_and_nothing_else(self):
        with NbdClient(str(self.server.socket)) as client:
            for block in range(0, 64, 2):  # 128 KiB of the old side
                self.model.write(client, block * 16384, self.draw.randbytes(4096))
        self.server.kill9()
        promoted = self.promote()
        answer = self.rejoin(self.server)
        self.assertEqual((answer["checkpoint"], answer["stale_bytes"]), (promoted["checkpoint"], 32 * 4096))
        self.assertEqual(answer["volume"], self.volume)
        self.assertFalse(self.server.image.exists())
        self.assertFalse(self.server.state.exists())
        folder = self.near.store / self.volume
        self.assertIn("is no back-up before", tool("status", folder)["problem"])
        self.assertIn("the old primary", tool("promote", folder, "--yes", expect=NOTHING).message)
        self.near.start()
        proxy = LinkProxy(self.folder, self.near.address)
        self.addCleanup(proxy.close)
        server = self.serve_promoted(promoted, proxy.address)
        with NbdClient(str(server.socket)) as client:
            for block in range(1, 64, 2):  # and of the new one
                self.model.write(client, block * 16384, self.draw.randbytes(4096))
        eventually(lambda: self.status(server)["last_checkpoint"], "a checkpoint", 60)
        self.checkpoint(server)
        differ = 64 * 4096
        moved = proxy.bytes_of(SESSION) + proxy.bytes_of(READER)
        self.assertGreater(moved, differ)
        self.assertLess(moved, 1.1 * differ + 32768)  # the talk around it, and its digests
        self.expect_two_copies(server, self.near.store)

    def test_both_ways(self):
        """And what has become a back-up is promoted, too: each site by turns."""
        for _ in range(3):
            self.model.write_some(self.server)
            self.server.kill9()
            server = self.serve_promoted(self.promote())
            self.model.write_some(server)
            self.rejoin(self.server)
            self.near.start()
            self.expect_two_copies(server, self.near.store)
            self.far.stop()  # its volume is served
            self.swap(server)

    def test_an_old_primary_that_lives_hears_of_it(self):
        """Cut off, it serves on; then it is refused, and has more to give up."""
        promoted = self.promote()
        with NbdClient(str(self.server.socket)) as client:
            client.write(MIB, b"lost" * 1024)
        eventually(lambda: self.status(self.server)["state"] == "diverged", "it hears of it", 60)
        self.assertEqual(self.rejoin(self.server, expect=BUSY).code, BUSY)
        self.server.stop()
        self.rejoin(self.server)
        self.near.start()
        server = self.serve_promoted(promoted)
        self.expect_two_copies(server, self.near.store)

    def test_its_maps_are_lost(self):
        """All of it is compared, and what is equal does not move."""
        self.model.write_some(self.server)
        self.server.stop()
        promoted = self.promote()
        for name in "regions", "saved-map":
            (self.server.state / name).unlink()
        self.assertEqual(self.rejoin(self.server)["stale_bytes"], SIZE)
        self.near.start()
        proxy = LinkProxy(self.folder, self.near.address)
        self.addCleanup(proxy.close)
        server = self.serve_promoted(promoted, proxy.address)
        eventually(lambda: self.status(server)["last_checkpoint"], "a checkpoint", 60)
        self.assertLess(proxy.bytes_of(SESSION), 3 * MIB)
        self.expect_two_copies(server, self.near.store)

    def test_the_primary_is_no_old_one(self):
        answer = self.rejoin(self.server, expect=BUSY)
        self.server.stop()
        answer = self.rejoin(self.server, expect=USAGE)
        self.assertIn("was not promoted", answer.message)
        self.far.stop()
        answer = self.rejoin(self.server, expect=UNREACHABLE)
        self.assertIn("--force", answer.message)
        self.far.start()
        self.server.start()  # nothing was changed
        self.model.write_some(self.server)
        self.checkpoint()
        self.assertEqual(tool("verify", self.server.image)["mismatched_bytes"], 0)

    def test_nobody_can_say_that_it_was_promoted(self):
        self.server.kill9()
        promoted = self.promote()
        self.far.stop()
        self.rejoin(self.server, "--force")
        self.near.start()
        self.expect_two_copies(self.serve_promoted(promoted), self.near.store)

    def test_it_answered_for_more(self):
        """A back-up that was put back from an older copy is promoted: what came later is named."""
        folder = self.far.store / self.volume
        eventually(lambda: self.is_applied(self.server), "it is applied")
        self.far.stop()
        shutil.copytree(folder, self.folder / "older")
        self.far.start()
        then = self.model.kept
        self.model.write_some(self.server)
        last = self.checkpoint()["checkpoint"]
        self.server.kill9()
        self.far.kill9()
        shutil.rmtree(folder)
        shutil.copytree(self.folder / "older", folder)
        self.model.kept = then
        promoted = self.promote()
        self.rejoin(self.server)
        self.near.start()
        server = self.serve_promoted(promoted, start=False)
        said = server.refusal()
        self.assertIn(f"checkpoint {last} ", said)
        self.assertIn("--discard", said)
        self.near.stop()
        tool("rejoin", self.near.store / self.volume, "--discard")
        self.near.start()
        server.start()
        self.expect_two_copies(server, self.near.store)

    def test_where_it_cannot_go(self):
        self.server.kill9()
        promoted = self.promote()
        answer = tool("rejoin", self.server.image, "--yes", expect=USAGE)
        self.assertIn("--store", answer.message)
        answer = tool("rejoin", self.server.image, "--yes", "--store", self.folder / "none", expect=NOTHING)
        answer = tool("rejoin", self.server.image, "--store", self.near.store, expect=USAGE)
        self.assertIn("--yes", answer.message)
        (self.near.store / self.volume).mkdir(parents=True)
        answer = self.rejoin(self.server, expect=USAGE)
        self.assertIn("is there already", answer.message)
        (self.near.store / self.volume).rmdir()
        with self.subTest("another file system"):
            shelf = self.tmpfs()
            answer = tool("rejoin", self.server.image, "--yes", "--store", shelf, expect=USAGE)
            self.assertIn("another file system", answer.message)
        self.rejoin(self.server)
        self.near.start()
        self.expect_two_copies(self.serve_promoted(promoted), self.near.store)

    def test_the_new_primary_was_faster(self):
        """Its full copy makes way, as long as there is no checkpoint of it."""
        self.model.write_some(self.server)
        self.server.kill9()
        server = begin_full_copy(self, self.promote())
        self.model.write_some(server)
        self.assertGreater(self.rejoin(self.server)["stale_bytes"], 0)
        self.assertEqual([*self.near.store.glob(".*unfinished*")], [])
        self.expect_two_copies(server, self.near.store)

    def test_the_new_primary_has_another_back_up_by_now(self):
        self.server.kill9()
        self.near.start()
        server = self.serve_promoted(self.promote())
        eventually(lambda: self.status(server)["last_checkpoint"], "a checkpoint", 60)
        self.assertIn("is there already", self.rejoin(self.server, expect=USAGE).message)
        self.expect_two_copies(server, self.near.store)
        self.assertTrue(self.server.image.exists())

    def tmpfs(self):
        path = self.folder / "elsewhere"
        path.mkdir()
        run("mount", "-t", "tmpfs", "none", path)
        self.addCleanup(run, "umount", path)
        return path

    def test_the_new_side_dies_meanwhile(self):
        """Again and again, either of them, before there is a checkpoint."""
        self.model.write_some(self.server, 200)
        self.server.kill9()
        promoted = self.promote()
        self.rejoin(self.server)
        self.near.start()
        proxy = LinkProxy(self.folder, self.near.address)
        self.addCleanup(proxy.close)
        server = self.serve_promoted(promoted, proxy.address)
        for _ in range(4):
            self.model.write_some(server, 10)
            self.draw.choice((server, self.near)).kill9()
            self.near.kill9()
            self.near.start()
            if server.process is None or not server.running:
                server.start()
        self.expect_two_copies(server, self.near.store)


class FullDisk(Sites):
    """The old primary's file system, on which its image becomes the back-up."""

    def site(self, name):
        if name != "near":
            return super().site(name)
        return self.keep("--silence=2", store=Tmpfs(self, "72m", self.folder, name).path / "shelf", start=False)

    def fill(self):
        filler = self.folder / "near" / "filler"
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(MIB) if shutil.disk_usage(filler.parent).free > MIB else bytes(4096))
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
        return filler

    def test_no_space_for_what_is_stale(self):
        """Nothing is changed, and the same command does it when there is space."""
        self.model.write_some(self.server)
        self.server.kill9()
        promoted = self.promote()
        filler = self.fill()
        answer = self.rejoin(self.server, expect=FAILED)
        self.assertIn("No space left", answer.message)
        self.assertTrue(self.server.image.exists())
        self.assertFalse((self.near.store / self.volume).exists())
        filler.unlink()
        self.rejoin(self.server)
        self.near.start()
        self.expect_two_copies(self.serve_promoted(promoted), self.near.store)

    def test_no_space_while_it_catches_up(self):
        """The new primary serves on, says so, and has its back-up when there is space."""
        self.model.write_some(self.server)
        self.server.kill9()
        promoted = self.promote()
        self.rejoin(self.server)
        self.near.start()
        filler = self.fill()
        server = self.serve_promoted(promoted)
        self.model.write_some(server, 60)
        eventually(lambda: "space" in str(self.status(server)["backup"]["error"]), "it says so", 60)
        self.assertFalse(self.status(server)["protected"])
        self.model.write_some(server)
        filler.unlink()
        self.expect_two_copies(server, self.near.store)


class Interrupted(Sites):
    """Killed before each step that changes a file: the same command ends it. Every few steps both sides
    are served then."""

    SERVED_EVERY = 12

    def expect_repeatable(self, command, prepare, image, shelf):
        prepare()
        steps = Steps(self.folder, "tool", self.folder)
        self.killed(command, steps, None)
        made = steps.news()
        points = [(step, time) for step, times in made.items() for time in range(1, times + 1)]
        self.assertGreater(len(points), 15)
        for number, (step, time) in enumerate(points):
            with self.subTest(f"{step}, {time}"):
                prepare()
                self.killed(command, steps, (step, time))
                state = Path(f"{image}.ckpt")
                if (state / "volume").exists():
                    self.assertEqual(self.repeated(command)["store"], str(shelf / self.volume))
                    self.assertFalse(state.exists())
                else:  # it is done, but for an empty folder
                    self.assertEqual([*state.glob("*")], [])
                self.assertEqual(image.exists(), image.parent == shelf / self.volume)
                if number % self.SERVED_EVERY == 0 or state.exists():
                    self.expect_served()

    def killed(self, command, steps, point):
        if point is not None:
            steps.arm(*point, KILL_BEFORE)
        done = subprocess.run([*steps.words, *command], capture_output=True, text=True, check=False)
        steps.disarm()
        self.assertEqual(done.returncode, 0 if point is None else -signal.SIGKILL, done.stderr)

    def repeated(self, command):
        return tool(*command[1:])

    def command(self, image, *words):
        return [build() / "tools" / "ckpt-tool", "rejoin", image, "--yes", *words]

    def expect_served(self):
        self.near.start()
        server = self.serve_promoted(self.promoted)
        eventually(lambda: self.status(server)["last_checkpoint"], "a checkpoint", 60)
        self.assertEqual(tool("verify", server.image)["mismatched_bytes"], 0)
        eventually(lambda: self.is_applied(server), "it is applied")
        self.assertEqual(self.content(self.near.store / self.volume / "backup.img"), self.model.now)
        server.stop()
        self.near.stop()

    def put_back(self, *folders):
        """As they are now, again and again."""
        kept = [(folder, self.folder / f"kept-{number}") for number, folder in enumerate(folders)]
        for folder, copy in kept:
            run("cp", "-a", "--sparse=always", folder, copy)

        def prepare():
            for folder, copy in kept:
                shutil.rmtree(folder, ignore_errors=True)
                run("cp", "-a", "--sparse=always", copy, folder)
        return prepare

    def test_into_the_shelf(self):
        self.model.write_some(self.server)
        self.server.kill9()
        self.promoted = self.promote()
        self.near.store.mkdir()
        self.far.stop()
        prepare = self.put_back(self.folder / "near", self.folder / "far")
        self.expect_repeatable(self.command(self.server.image, "--store", self.near.store, "--force"), prepare,
                               self.server.image, self.near.store)

    def test_in_the_place_of_a_full_copy(self):
        self.model.write_some(self.server)
        self.server.kill9()
        self.promoted = self.promote()
        begin_full_copy(self, self.promoted).kill9()
        for backupd in self.near, self.far:
            backupd.kill9()
        prepare = self.put_back(self.folder / "near", self.folder / "far")
        self.expect_repeatable(self.command(self.server.image, "--store", self.near.store, "--force"), prepare,
                               self.server.image, self.near.store)

    def test_in_its_own_folder(self):
        self.server.kill9()
        server = self.serve_promoted(self.promote())
        self.rejoin(self.server)
        self.near.start()
        self.expect_two_copies(server, self.near.store)
        self.far.stop()
        self.swap(server)
        self.model.write_some(self.server)
        self.server.kill9()
        self.promoted = self.promote()
        self.far.stop()
        prepare = self.put_back(self.folder / "near", self.folder / "far")
        self.expect_repeatable(self.command(self.server.image, "--force"), prepare, self.server.image,
                               self.near.store)


class FailOvers(Sites):
    def test_fail_overs_in_a_row(self):
        for number in range(int(os.environ.get("CKPT_FAIL_OVERS", "20"))):
            with self.subTest(number=number):
                self.fail_over()

    def fail_over(self):
        for _ in range(self.draw.randrange(3)):
            self.model.write_some(self.server, self.draw.randrange(1, 30))
            self.checkpoint()
        self.model.write_some(self.server, self.draw.randrange(1, 30))
        self.draw.choice((self.server.kill9, self.server.stop))()
        promoted = self.promote()
        is_early = self.draw.random() < 0.5
        if is_early:
            server = self.serve_promoted(promoted)
            self.model.write_some(server, self.draw.randrange(1, 30))
        self.rejoin(self.server)
        self.near.start()
        if not is_early:
            server = self.serve_promoted(promoted)
        for _ in range(self.draw.randrange(2)):
            self.model.write_some(server, 5)
            server.kill9()
            server.start()
        self.expect_two_copies(server, self.near.store)
        self.far.stop()
        self.swap(server)


if __name__ == "__main__":
    unittest.main()
