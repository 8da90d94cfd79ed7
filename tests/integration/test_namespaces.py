#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A back-up on another machine, as far as the network goes: server and backupd in two network
namespaces, and a link between them that goes down and comes up again."""

import random
import threading
import time
import unittest

from harness import BLOCK, FAILED, MIB, OK, TIMEOUT, Case, eventually, tool
from namespaces import linked_pair
from nbd_client import NbdClient

HALFWAY, UNREACHABLE = 9, 10
PORT = 7000
SILENCE = 3  # seconds until a link that says nothing is given up
SIZE = 16 * MIB
SLOW = "64mbit"  # the disk takes about 2 s


class Disk:
    """What clients have written to a server, kept apart from it."""

    def __init__(self, server, content):
        self.server = server
        self.content = bytearray(content)

    def write(self, client, offset, data):
        client.write(offset, data)
        self.content[offset:offset + len(data)] = data

    def fill(self, seed, begin, end):
        """All of that range, with data that does not shrink."""
        draw = random.Random(seed)
        with NbdClient(str(self.server.socket)) as client:
            for offset in range(begin, end, MIB):
                self.write(client, offset, draw.randbytes(MIB))

    def scatter(self, seed, count):
        """Blocks here and there, and the disk's last one."""
        draw = random.Random(seed)
        with NbdClient(str(self.server.socket)) as client:
            last = SIZE // BLOCK - 1
            for block in [last, *draw.sample(range(last), count)]:
                self.write(client, block * BLOCK, draw.randbytes(BLOCK))

    def read(self):
        with NbdClient(str(self.server.socket)) as client:
            return b"".join(client.read(offset, MIB) for offset in range(0, client.size, MIB))


class Writing:
    """A client that writes all the time until the block ends; an error ends the test there."""

    def __init__(self, disk):
        self.disk = disk
        self.count = 0
        self.longest = 0.0
        self._error = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        draw = random.Random(0)
        try:
            with NbdClient(str(self.disk.server.socket)) as client:
                while not self._stop.wait(0.002):
                    data, block = draw.randbytes(BLOCK), draw.randrange(SIZE // BLOCK)
                    began = time.monotonic()
                    self.disk.write(client, block * BLOCK, data)
                    self.longest = max(self.longest, time.monotonic() - began)
                    self.count += 1
        except (OSError, AssertionError) as error:
            self._error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        if self._error:
            raise AssertionError(f"a client's write failed: {self._error}") from self._error


class Asked:
    """A call of ckpt-tool that goes on beside the test."""

    def __init__(self, *arguments, under=()):
        self._thread = threading.Thread(target=self._run, args=(arguments, under))
        self._answer = None
        self._thread.start()

    def _run(self, arguments, under):
        self._answer = tool(*arguments, expect=None, timeout=90, under=under)

    @property
    def is_under_way(self):
        return self._thread.is_alive()

    def answer(self):
        self._thread.join()
        return self._answer


class Linked(Case):
    """A server in one namespace and its backupd in the other."""

    def setUp(self):
        super().setUp()
        self.here, self.there = linked_pair(self)

    def keep_there(self, *options, version=4, start=True):
        self.backupd = self.keep(f"--silence={SILENCE}", *options, start=start,
                                 listen=self.there.address_of(PORT, version),
                                 under=self.there.under)
        return self.backupd

    def serve_here(self, *parameters, start=True):
        image = self.image(size=SIZE)
        image.write_bytes(random.Random(0).randbytes(SIZE))
        server = self.serve(image, "compress=none", *parameters, start=start, under=self.here.under)
        return server, Disk(server, image.read_bytes())

    def protected(self):
        """A disk with a first checkpoint, all of it content, over a link that is not encrypted."""
        self.keep_there("--tls=off")
        server, disk = self.serve_here("tls=off")
        tool("checkpoint", server.image)
        return server, disk

    def expect_equal(self, server, disk, seconds=60):
        """The image, what a client reads, and the back-up are the disk, in every byte."""
        self.assertTrue(server.image.read_bytes() == disk.content, "the image")
        self.assertTrue(disk.read() == disk.content, "what a client reads")
        eventually(lambda: self.is_applied(server), "the store has applied it", seconds)
        kept = self.backupd.folder_of(server) / "backup.img"
        self.assertTrue(kept.read_bytes() == disk.content, "the back-up")

    @staticmethod
    def is_applied(server):
        backup = server.control("status")["backup"]
        return backup["confirmed"] == backup["applied"] and backup["confirmed_bytes"] == 0

    def expect_checkpoint(self, server, disk):
        """The next one exists, and is the disk."""
        made = tool("checkpoint", server.image)
        self.assertEqual(made["state"], "confirmed")
        self.expect_equal(server, disk)
        return made["checkpoint"]

    def expect_rollback(self, server, disk, seed):
        """Back to the last checkpoint, at which the disk was as it is now."""
        good = bytes(disk.content)
        disk.scatter(seed, 300)
        self.assertFalse(server.image.read_bytes() == good)
        done = tool("rollback", server.image, "--yes")
        self.assertGreaterEqual(done["restored_bytes"], 301 * BLOCK)
        disk.content[:] = good
        self.expect_equal(server, disk)


class OverTheLink(Linked):
    def exercise(self, version):
        self.keep_there("--tls", "off", version=version)
        server, disk = self.serve_here("tls=off")
        self.expect_checkpoint(server, disk)
        disk.scatter(1, 500)
        self.expect_checkpoint(server, disk)
        self.expect_rollback(server, disk, 2)
        self.assertEqual(tool("verify", server.image)["mismatched_bytes"], 0)

    def test_a_volume_over_ipv4(self):
        self.exercise(4)

    def test_a_volume_over_ipv6(self):
        self.exercise(6)


class LinkGoesDown(Linked):
    """Clients do not notice; a checkpoint says which back-up it waits for; all is made good."""

    def last_of_store(self, server):
        """What backupd itself has, whether the link is up or not."""
        name = f"{self.backupd.address}/{server.control('status')['volume']}"
        kept = tool("list", name, "--tls=off", under=self.there.under)["checkpoints"]
        return kept[-1]["checkpoint"]

    def expect_void(self, server, answer):
        """An error that names the back-up, and no checkpoint."""
        self.assertEqual(answer.code, FAILED, answer)
        self.assertIn(self.backupd.address, answer.message)
        self.assertEqual(self.last_of_store(server), self.last)

    def detached(self, server):
        status = server.control("status")
        return status if status["backup"]["state"] == "detached" else None

    def expect_told(self, server):
        """The status, and whoever asks, is told which back-up cannot be reached."""
        status = eventually(lambda: self.detached(server), "it is noticed")
        self.assertFalse(status["protected"])
        self.assertIn(self.backupd.address, status["problem"])
        answer = tool("list", server.image, expect=UNREACHABLE)
        self.assertIn(self.backupd.address, answer.message)

    def expect_writes(self, writing):
        """They go on, and none has waited for the back-up."""
        before = writing.count
        time.sleep(0.5)
        self.assertGreater(writing.count, before + 10)
        self.assertLess(writing.longest, SILENCE / 2)

    def exercise(self, end):
        """Down at one end, between two checkpoints. The first that is asked for goes into the link,
        and nobody knows what becomes of it; when the next one is asked for, it is known that
        nobody is there."""
        server, disk = self.protected()
        self.last = self.last_of_store(server)
        with Writing(disk) as writing:
            end.down()
            tool("checkpoint", server.image, "--timeout", 2, expect=TIMEOUT)
            self.expect_told(server)
            # So short that the link is not tried often: each time makes the next one later.
            answer = tool("checkpoint", server.image, "--timeout", 0.1, expect=None)
            self.expect_void(server, answer)
            self.expect_writes(writing)
            end.up()
            eventually(lambda: server.control("status")["protected"], "it is protected again", 45)
            self.expect_writes(writing)
        self.assertEqual(self.last_of_store(server), self.last)
        self.assertGreater(self.expect_checkpoint(server, disk), self.last)

    def test_at_the_stores_end(self):
        self.exercise(self.there)

    def test_at_the_servers_end(self):
        self.exercise(self.here)

    def test_a_checkpoint_that_may_exist_names_the_back_up(self):
        """Before it is known that nobody is there, and after."""
        server, disk = self.protected()
        answers = []
        for seconds in (1, SILENCE + 1):
            self.there.down()
            disk.scatter(5, 10)
            answers.append(tool("checkpoint", server.image, "--timeout", seconds, expect=TIMEOUT))
            self.there.up()
            self.expect_checkpoint(server, disk)
        for answer in answers:
            self.assertIn(self.backupd.address, answer.message)

    def test_while_a_checkpoint_is_shipped(self):
        server, disk = self.protected()
        self.last = self.last_of_store(server)
        self.here.limit(SLOW)
        disk.fill(6, 0, SIZE)
        before = server.control("status")["epoch"]
        asked = Asked("checkpoint", server.image)

        def is_half_shipped():
            status = server.control("status")
            unshipped = status["backup"]["unshipped_bytes"]
            return status["epoch"] > before and SIZE / 8 < unshipped < SIZE * 7 / 8
        eventually(is_half_shipped, "half of it is shipped")
        self.here.down()
        with Writing(disk) as writing:
            self.expect_void(server, asked.answer())
            self.expect_writes(writing)
        self.here.limit(None)
        self.here.up()
        self.assertGreater(self.expect_checkpoint(server, disk), self.last + 1)
        self.expect_rollback(server, disk, 4)


class LinkGoesDownInRollback(Linked):
    """Half of a disk is not served; all of it is, as soon as the link is back."""

    def begun(self, end):
        """A fencing rollback half-way, the link down at that end; and what the disk has to be."""
        server, disk = self.protected()
        good = bytes(disk.content)
        disk.fill(7, 0, SIZE)
        self.there.limit(SLOW)
        asked = Asked("rollback", server.image, "--yes", "--clients=fence")
        self.goes_down_half_way(end, server, good)
        disk.content[:] = good
        return server, disk, asked

    def is_restored(self, image, good, offset):
        with open(image, "rb") as file:
            file.seek(offset)
            return file.read(BLOCK) == good[offset:offset + BLOCK]

    def goes_down_half_way(self, end, server, good):
        eventually(lambda: self.is_restored(server.image, good, SIZE // 4), "it is half-way")
        end.down()
        self.assertFalse(self.is_restored(server.image, good, SIZE - BLOCK), "it is done already")

    def waiting(self, server):
        status = server.control("status")
        return status if status["state"] == "rolling-back" and status["problem"] else None

    def comes_up(self, end):
        self.there.limit(None)
        end.up()

    def expect_no_client(self, server):
        with self.assertRaises(OSError), NbdClient(str(server.socket), timeout=2) as client:
            client.read(0, BLOCK)

    def test_it_waits_and_completes(self):
        server, disk, asked = self.begun(self.here)
        status = eventually(lambda: self.waiting(server), "it says what it waits for")
        self.assertIn(self.backupd.address, status["problem"])
        self.expect_no_client(server)
        self.assertTrue(asked.is_under_way)
        self.comes_up(self.here)
        answer = asked.answer()
        self.assertEqual(answer.code, OK, answer)
        self.assertTrue(answer["fenced"])
        self.assertTrue(server.image.read_bytes() == disk.content)
        self.expect_no_client(server)
        tool("accept", server.image)
        self.expect_equal(server, disk)
        disk.scatter(8, 100)
        self.expect_checkpoint(server, disk)

    def test_killed_meanwhile_nothing_serves_half_a_disk(self):
        server, disk, asked = self.begun(self.there)
        server.kill9()
        self.assertNotEqual(asked.answer().code, OK)
        self.assertIn(self.backupd.address, server.refusal())
        self.comes_up(self.there)
        server.start()
        self.assertTrue(server.image.read_bytes() == disk.content)
        self.assertEqual(server.control("status")["state"], "fenced")
        tool("accept", server.image)
        self.expect_checkpoint(server, disk)

    def test_offline_it_ends_half_way_and_is_asked_again(self):
        server, disk = self.protected()
        good = bytes(disk.content)
        disk.fill(9, 0, SIZE)
        server.stop()
        self.there.limit(SLOW)
        asked = Asked("rollback", server.image, "--yes", "--tls=off", under=self.here.under)
        self.goes_down_half_way(self.here, server, good)
        answer = asked.answer()
        self.assertEqual(answer.code, HALFWAY, answer)
        self.assertIn(self.backupd.address, answer.message)
        self.comes_up(self.here)
        tool("rollback", server.image, "--yes", "--tls=off", under=self.here.under)
        self.assertTrue(server.image.read_bytes() == good)
        disk.content[:] = good
        server.start()
        self.expect_checkpoint(server, disk)


class WithoutTls(Linked):
    """Nothing goes over a network in the clear unless both sides are told so."""

    def test_the_daemon_refuses_to_listen(self):
        for version in (4, 6):
            with self.subTest(version=version):
                backupd = self.keep_there(version=version, start=False)
                self.assertIn("tls=off", backupd.refusal())

    def test_the_plugin_refuses_to_start(self):
        self.keep_there("--tls=off")
        server, disk = self.serve_here(start=False)
        self.assertRegex(server.refusal(), f"{self.backupd.address}.*tls=off")
        self.assertNotIn(self.here.v4, self.backupd.said(), "it has connected")
        server.parameters = (*server.parameters, "tls=off")
        server.start()
        self.expect_checkpoint(server, disk)

    def test_the_tool_refuses_to_connect(self):
        server, _ = self.protected()
        name = f"{self.backupd.address}/{server.control('status')['volume']}"
        answer = tool("list", name, expect=None, under=self.here.under)
        self.assertNotEqual(answer.code, OK)
        self.assertIn("tls", answer.message)
        tool("list", name, "--tls=off", under=self.here.under)


if __name__ == "__main__":
    unittest.main()
