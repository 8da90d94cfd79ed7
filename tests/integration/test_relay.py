#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A backupd passes the checkpoints of its volumes on to a further one, which takes its place or is
promoted when it is gone."""

import hashlib
import os
import random
import shutil
import threading
import time
import unittest
from pathlib import Path

from harness import HALFWAY, MIB, OK, TIMEOUT, Backupd, eventually, free_port, tool
from nbd_client import NbdClient
from test_remote import Remote
from tls_files import Secrets

SIZE = 32 * MIB


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


class Relayed(Remote):
    """self.backupd passes on to self.further, which is of another folder."""

    def setUp(self):
        super().setUp()
        self.backupd.kill9()
        self.further = self.backupd_at("further")
        self.backupd = self.backupd_at("near", to=self.further)
        self.draw = random.Random(17)

    def backupd_at(self, name, *options, to=None, text="", start=True, **more):
        words = ["--silence=2", *options]
        if to is not None or text:
            config = self.folder / f"{name}.toml"
            config.write_text((f'[[relay]]\nto = "{to.address}"\n' if to else "") + text)
            words += ["--config", config]
        backupd = Backupd(self.folder / name, *words, folder=self.folder, **more)
        self.addCleanup(backupd.cleanup)
        return backupd.start() if start else backupd

    def served(self, *parameters, **options):
        return self.serve(self.image(size=SIZE), f"backup={self.backupd.address}", *parameters, **options)

    def change(self, server, count=20):
        with NbdClient(str(server.socket)) as client:
            for _ in range(count):
                data = self.draw.randbytes(self.draw.randrange(1, 70000))
                client.write(self.draw.randrange(client.size - len(data)), data)
            client.zero(self.draw.randrange(client.size - MIB), MIB)
            client.flush()

    def checkpoint(self, server, *options):
        """Its number; self.truth is what the disk was then."""
        self.change(server)
        number = tool("checkpoint", server.image, *options)["checkpoint"]
        self.truth = digest(server.image)
        return number

    def confirmed_at(self, backupd, volume):
        answer = tool("status", f"{backupd.address}/{volume}", expect=None)
        return answer["backup"]["confirmed"] if answer.code == OK else None

    def wait_for(self, backupd, server, number, seconds=60):
        volume = tool("status", server.image)["volume"]
        eventually(lambda: self.confirmed_at(backupd, volume) == number,
                   f"checkpoint {number} is at {backupd.address}", seconds)

    def expect_passed(self, server, number, backupd=None):
        """The last checkpoint is there, and is equal in every byte."""
        backupd = backupd or self.further
        self.wait_for(backupd, server, number)
        out = self.folder / "out.img"
        volume = tool("status", server.image)["volume"]
        answer = tool("export", f"{backupd.address}/{volume}", str(number), out, "--force")
        self.assertEqual(answer["checkpoint"], number)
        self.assertEqual(digest(out), self.truth)


class Passing(Relayed):
    def test_checkpoints_arrive_whole(self):
        server = self.served()
        number = self.checkpoint(server, "--name", "one", "--message", "said")
        self.expect_passed(server, number)
        volume = tool("status", server.image)["volume"]
        near, far = (tool("show", f"{b.address}/{volume}", "one").last
                     for b in (self.backupd, self.further))
        self.assertEqual(near, far)
        memory = self.folder / "memory"
        memory.write_bytes(self.draw.randbytes(3 * MIB))
        number = self.checkpoint(server, "--attach", f"memory={memory}")
        self.expect_passed(server, number)
        shown = tool("show", f"{self.further.address}/{volume}", "last")
        self.assertEqual([a["name"] for a in shown["attachments"]], ["memory"])
        # After a rollback it goes on in the new timeline.
        self.change(server)
        tool("rollback", server.image, "--yes")
        number = self.checkpoint(server)
        self.expect_passed(server, number)
        self.expect_told(server, {"address": self.further.address, "checkpoint": number, "error": ""})
        self.further.kill9()
        self.checkpoint(server)
        self.expect_told(server, {"address": self.further.address, "checkpoint": number}, "error")

    def expect_told(self, server, wanted, wrong=None):
        """By the volume's own server and by the back-up's."""
        volume = tool("status", server.image)["volume"]
        for name in (server.image, f"{self.backupd.address}/{volume}"):
            def is_told():
                relay, = tool("status", name)["backup"]["relays"]
                return (relay if relay.items() >= wanted.items() and (wrong is None or relay[wrong])
                        else None)
            eventually(is_told, f"{name} says {wanted}")

    def test_what_is_pending_is_not_passed_on(self):
        server = self.served("batch-delay=10")
        number = self.checkpoint(server)
        self.expect_passed(server, number)
        self.change(server, 50)
        volume = tool("status", server.image)["volume"]
        eventually(lambda: tool("status", f"{self.backupd.address}/{volume}")["backup"]["pending_bytes"] > 0,
                   "something is pending")
        time.sleep(1)
        self.expect_passed(server, number)
        self.assertEqual(tool("status", f"{self.further.address}/{volume}")["backup"]["pending_bytes"], 0)

    def test_a_further_one_behind_by_a_hundred_catches_up(self):
        server = self.served()
        self.expect_passed(server, self.checkpoint(server))
        self.further.kill9()
        for _ in range(100):
            self.change(server, 1)
            tool("checkpoint", server.image)
        number = self.checkpoint(server)
        self.assertTrue(self.status(server)["protected"])
        self.further.start()
        self.expect_passed(server, number)

    def test_a_chain_of_three_whose_middle_dies(self):
        last = self.backupd_at("last")
        self.further.kill9()
        self.further = self.backupd_at("middle", to=last)
        self.backupd.stop()
        self.backupd = self.backupd_at("near", to=self.further)
        server = self.served()
        number = self.checkpoint(server)
        self.expect_passed(server, number, last)
        self.further.kill9()
        before, before_truth = number, self.truth
        number = self.checkpoint(server)
        self.assertEqual(self.confirmed_at(last, tool("status", server.image)["volume"]), before)
        self.further.start()
        self.expect_passed(server, number, last)
        self.assertNotEqual(self.truth, before_truth)

    def test_killed_at_random_moments_under_load(self):
        server, hammer = self.loaded(f"backup={self.backupd.address}")
        for i in range(12):
            victim = self.draw.choice((self.backupd, self.further))
            time.sleep(self.draw.random() * 0.7)
            hammer.checkpoint(server, f"c{i}", expect=None)
            victim.kill9()
            victim.start()
        hammer.must("stop")
        eventually(lambda: tool("checkpoint", server.image, expect=None).code == OK, "a checkpoint", 90)
        self.truth = digest(server.image)
        number = self.status(server)["last_checkpoint"]["checkpoint"]
        self.expect_passed(server, number)
        hammer.must("disconnect")

    def test_the_primary_does_not_wait_for_one_that_hangs(self):
        server = self.served()
        self.expect_passed(server, self.checkpoint(server))
        os.kill(self.further.process.pid, 19)  # SIGSTOP
        for _ in range(5):
            number = self.checkpoint(server, "--timeout", "10")
        os.kill(self.further.process.pid, 18)
        self.expect_passed(server, number)


class Awaited(Relayed):
    """confirm=relayed: who asks for a checkpoint is told when the further one has it."""

    def test_it_is_there_when_it_is_answered(self):
        server = self.served("confirm=relayed")
        volume = tool("status", server.image)["volume"]
        for _ in range(5):
            number = self.checkpoint(server)
            self.assertEqual(self.confirmed_at(self.further, volume), number)
        self.expect_passed(server, number)

    def test_it_is_answered_when_the_further_one_is_back(self):
        server = self.served("confirm=relayed")
        volume = tool("status", server.image)["volume"]
        self.checkpoint(server)
        self.further.kill9()
        self.change(server)
        began = time.monotonic()
        late = tool("checkpoint", server.image, "--timeout", "2", expect=TIMEOUT)
        self.assertLess(time.monotonic() - began, 10)
        self.assertIn("exists at the back-up", late.message)
        number = self.status(server)["last_checkpoint"]["checkpoint"]
        self.assertEqual(self.confirmed_at(self.backupd, volume), number)
        threading.Timer(1, self.further.start).start()
        again = self.checkpoint(server)
        self.assertEqual(self.confirmed_at(self.further, volume), again)
        self.assertGreater(again, number)

    def test_nothing_is_passed_on(self):
        """It exists, and that is no answer to who wants it at a third machine."""
        self.backupd.stop()
        self.backupd = self.backupd_at("alone")
        server = self.served("confirm=relayed")
        answer = tool("checkpoint", server.image, expect=HALFWAY)
        self.assertIn("[[relay]]", answer.message)
        self.change(server)
        tool("rollback", server.image, "--yes")

    def test_it_is_refused_without_a_backupd(self):
        for backup in ("backup=none", "backup=embedded"):
            server = self.serve(self.image(f"{backup[7:]}.img"), backup, "confirm=relayed", start=False)
            self.assertIn("confirm=relayed", server.refusal())


class TakingOver(Relayed):
    def test_it_takes_the_place_of_a_dead_store(self):
        server = self.served()
        number = self.checkpoint(server)
        self.expect_passed(server, number)
        self.change(server)
        server.stop()
        self.backupd.kill9()
        shutil.rmtree(self.backupd.store)
        again = self.serve(server.image, f"backup={self.further.address}")
        self.connected(again)
        self.assertEqual(self.status(again)["last_checkpoint"]["checkpoint"], number)
        tool("rollback", again.image, "--yes")
        self.assertEqual(digest(again.image), self.truth)
        self.backupd = self.further
        self.checkpoint(again)
        self.assertEqual(tool("verify", again.image)["mismatched_bytes"], 0)
        self.expect_same_backup(again)

    def test_one_that_is_behind_takes_its_place_too(self):
        server = self.served()
        self.expect_passed(server, self.checkpoint(server))
        self.further.kill9()
        self.checkpoint(server)
        server.stop()
        self.backupd.kill9()
        self.further.start()
        again = self.serve(server.image, f"backup={self.further.address}")
        self.connected(again)
        self.backupd = self.further
        self.checkpoint(again)
        self.assertEqual(tool("verify", again.image)["mismatched_bytes"], 0)
        self.expect_same_backup(again)

    def test_it_is_promoted(self):
        server = self.served()
        number = self.checkpoint(server)
        self.expect_passed(server, number)
        self.change(server)
        server.kill9()
        self.backupd.kill9()
        self.further.stop()
        volume = tool("status", server.image)["volume"]
        folder = self.further.store / volume
        answer = tool("promote", folder, "--yes")
        self.assertEqual(answer["checkpoint"], number)
        self.assertEqual(digest(answer["image"]), self.truth)
        promoted = self.serve(Path(answer["image"]), "backup=embedded")
        self.checkpoint(promoted)
        promoted.stop()
        # Who comes back does not overwrite it.
        self.further.start()
        self.backupd.start()
        eventually(lambda: "not on the line" in self.backupd.said(), "the relay is refused")
        self.assertEqual(digest(answer["image"]), self.truth)


class Refused(Relayed):
    def test_what_is_not_on_the_line_is_left_alone(self):
        server = self.served()
        self.expect_passed(server, self.checkpoint(server))
        server.stop()
        self.backupd.stop()
        copy = self.folder / "older"
        shutil.copytree(self.backupd.store, copy, ignore=shutil.ignore_patterns("backupd.sock"))
        again = self.serve(server.image, f"backup={self.further.address}")
        self.connected(again)
        number = self.checkpoint(again)
        again.stop()
        # The nearer store does not know of that one.
        self.backupd.start()
        eventually(lambda: "not on the line" in self.backupd.said(), "it is said")
        self.assertIn(f"checkpoint {number}", self.backupd.said())
        self.expect_passed(again, number)

    def test_bad_configurations_are_refused(self):
        port = free_port()
        for text, said in ((f'[[relay]]\nvolume = "*"\n', "needs to"),
                           ('[[relay]]\nto = "nowhere"\n', "nowhere"),
                           ('relay = 5\n', "[[relay]]"),
                           (f'[[relay]]\nto = "127.0.0.1:{port}"\nvolume = "web"\n', "UUID"),
                           (f'[[relay]]\nto = "127.0.0.1:{port}"\nspeed = 3\n', 'no "speed"'),
                           (f'[[relay]]\nto = "127.0.0.1:{port}"\ntls-psk = "/nowhere"\ntls-certificates = "/nowhere"\n', "tls")):
            config = self.folder / "bad.toml"
            config.write_text(text)
            bad = Backupd(self.folder / "bad", "--config", config, folder=self.folder)
            self.addCleanup(bad.cleanup)
            self.assertIn(said, bad.refusal(), text)

    def test_only_the_volumes_that_are_named(self):
        named, other = self.served(), self.serve(self.image("other.img", SIZE), f"backup={self.backupd.address}")
        volumes = [tool("status", one.image)["volume"] for one in (named, other)]
        self.backupd.stop()
        self.backupd = self.backupd_at("near", text=f'[[relay]]\nto = "{self.further.address}"\nvolume = "{volumes[0]}"\n',
                                       listen=self.backupd.address)
        number = self.checkpoint(other)
        self.expect_passed(named, self.checkpoint(named))
        self.assertNotEqual(self.confirmed_at(self.further, volumes[1]), number)


if __name__ == "__main__":
    unittest.main()
