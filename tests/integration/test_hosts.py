#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Fail-over and its return between two and three machines, which are network namespaces of one, each with an
nbdkit and a backupd of its own: cut off from each other, dead, and back."""

import random
import unittest
from pathlib import Path

from harness import BUSY, MIB, OK, eventually, tool
from namespaces import switched_hosts
from nbd_client import NbdClient
from sites import SIZE, Model, Modelled

UNREACHABLE = 10
PORT = 7000
SILENCE = 2  # seconds until a link that says nothing is given up


class Host:
    """A machine: where what runs on it is, and its backupd."""

    def __init__(self, case, name, namespace, *options):
        self.case, self.namespace = case, namespace
        self.shelf = case.folder / name / "shelf"
        self.shelf.mkdir(parents=True)
        self.backupd = case.keep("--tls=off", f"--silence={SILENCE}", *options, store=self.shelf, start=False,
                                 listen=self.address, under=namespace.under)
        self.servers = []

    @property
    def address(self):
        return self.namespace.address_of(PORT)

    def serve(self, image, backup, *parameters, **options):
        server = self.case.serve(Path(image), f"backup={backup.address}", "tls=off", *parameters,
                                 under=self.namespace.under, **options)
        self.servers.append(server)
        return server

    def tool(self, *words, **options):
        return tool(*words, under=self.namespace.under, **options)

    def promote(self, volume, *words, **options):
        return self.tool("promote", self.shelf / volume, "--yes", *words, **options)

    def rejoin(self, server, *words, **options):
        place = [] if server.image.name == "backup.img" else ["--store", self.shelf]
        return self.tool("rejoin", server.image, *place, "--yes", *words, **options)

    def dies(self):
        self.namespace.down()
        for one in (*self.servers, self.backupd):
            one.kill9()


class Hosts(Modelled):
    def setUp(self):
        super().setUp()
        self.draw = random.Random(23)
        self.model = Model(self.draw)

    def protected(self, host, keeper):
        """A volume with a checkpoint."""
        self.server = host.serve(self.image(size=SIZE, folder=host.shelf.parent), keeper)
        self.volume = tool("status", self.server.image)["volume"]
        self.model.write_some(self.server)
        self.checkpoint(self.server)

    def write_lost(self, server):
        """What is in no checkpoint."""
        with NbdClient(str(server.socket)) as client:
            for block in range(64):
                client.write(block * MIB // 8, self.draw.randbytes(4096))

    def expect_model(self, host):
        """The back-up there, which has been promoted."""
        self.model.go_back()
        self.assertEqual(self.content(host.shelf / self.volume / "backup.img"), self.model.now)


class Two(Hosts):
    def setUp(self):
        super().setUp()
        self.one, self.other = (Host(self, name, namespace)
                                for name, namespace in zip(("one", "other"), switched_hosts(self, 2)))
        self.other.backupd.start()
        self.protected(self.one, self.other)

    def test_cut_off_from_each_other_and_both_alive(self):
        """Whoever promotes has to wait, or to say so; each then knows its own line, and the first that hears of the
        other gives in."""
        old = self.server
        self.write_lost(old)
        self.assertEqual(self.other.promote(self.volume, expect=BUSY).code, BUSY)
        self.other.namespace.down()
        promoted = eventually(lambda: self.promoted(self.other), "its primary is given up", 30)
        self.expect_model(self.other)
        new = self.other.serve(promoted["image"], self.one)
        self.model.write_some(new)
        self.write_lost(old)  # it cannot know
        self.assertEqual(self.status(old)["state"], "running")
        self.other.namespace.up()
        eventually(lambda: self.status(old)["state"] == "diverged", "it hears of it", 60)
        with self.assertRaises(OSError):
            NbdClient(str(old.socket))
        told, theirs = self.status(old), self.status(new)
        self.assertEqual(theirs["lineage"], [{"timeline": told["timeline"], "checkpoint": promoted["checkpoint"]}])
        self.assertEqual((told["backup"]["timeline"], theirs["timeline"]), (promoted["timeline"],) * 2)
        old.stop()
        self.one.rejoin(old)
        self.one.backupd.start()
        self.expect_two_copies(new, self.one.shelf)

    def promoted(self, host):
        answer = host.promote(self.volume, expect=None)
        self.assertIn(answer.code, (OK, BUSY))
        return answer if answer.code == OK else None

    def test_there_and_back(self):
        """Each machine dies, and comes back, by turns."""
        near, far, server = self.one, self.other, self.server
        for _ in range(3):
            self.write_lost(server)
            near.dies()
            far.backupd.kill9()
            promoted = far.promote(self.volume)
            self.expect_model(far)
            new = far.serve(promoted["image"], near)
            self.model.write_some(new)
            near.namespace.up()
            far.backupd.start()
            near.rejoin(server)
            near.backupd.start()
            self.expect_two_copies(new, near.shelf)
            near, far, server = far, near, new


class Three(Hosts):
    def setUp(self):
        super().setUp()
        hosts = switched_hosts(self, 3)
        config = self.folder / "middle.toml"
        self.third = Host(self, "third", hosts[2])
        config.write_text(f'[[relay]]\nto = "{self.third.address}"\ntls = "off"\n')
        self.middle = Host(self, "middle", hosts[1], "--config", config)
        self.first = Host(self, "first", hosts[0])
        for host in self.third, self.middle:
            host.backupd.start()
        self.protected(self.first, self.middle)
        eventually(lambda: self.confirmed_at_third() == self.status(self.server)["last_checkpoint"]["checkpoint"],
                   "the third one has it")

    def confirmed_at_third(self):
        answer = self.third.tool("status", f"{self.third.address}/{self.volume}", "--tls=off", expect=None)
        return answer["backup"]["confirmed"] if answer.code == OK else None

    def serve_third(self):
        self.third.backupd.kill9()
        promoted = self.third.promote(self.volume)
        self.expect_model(self.third)
        self.third.backupd.start()
        return promoted

    def test_two_die_and_the_third_goes_on(self):
        self.write_lost(self.server)
        self.first.dies()
        self.middle.dies()
        promoted = self.serve_third()
        new = self.third.serve(promoted["image"], self.first)
        self.model.write_some(new)
        self.first.namespace.up()
        self.assertIn("--force", self.first.rejoin(self.server, expect=UNREACHABLE).message)
        self.first.rejoin(self.server, "--force")
        self.first.backupd.start()
        self.expect_two_copies(new, self.first.shelf)
        # The middle one comes back with the last checkpoint of the old line, and disturbs nobody. It is where the new
        # line began: so it can take the other's place, and has all of the disk with the next checkpoint.
        self.middle.namespace.up()
        self.middle.backupd.start()
        self.expect_two_copies(new, self.first.shelf)
        new.stop()
        self.first.dies()
        again = self.third.serve(new.image, self.middle)
        self.assertIn("has lost checkpoint", self.status(again)["problem"])
        self.checkpoint(again)
        self.expect_two_copies(again, self.middle.shelf)

    def test_the_third_is_cut_off_and_comes_back(self):
        """What is confirmed meanwhile is passed on, whole."""
        self.third.namespace.down()
        for _ in range(3):
            self.model.write_some(self.server)
            last = self.checkpoint(self.server)["checkpoint"]
        self.assertLess(self.confirmed_at_third(), last)
        self.third.namespace.up()
        eventually(lambda: self.confirmed_at_third() == last, "it catches up", 60)
        self.first.dies()
        self.middle.dies()
        self.serve_third()


if __name__ == "__main__":
    unittest.main()
