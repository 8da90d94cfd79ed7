#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Machines whose disks are several volumes: they go back together or not at all, whatever happens to
one of them."""

import contextlib
import fcntl
import json
import signal
import time
import unittest

from counting_machine import NOT_FOUND, VmCase
from harness import FAILED, MISMATCH, OK, TIMEOUT, USAGE, eventually, tool
from qmp_proxy import QmpProxy


class GroupCase(VmCase):
    def setUp(self):
        super().setUp()
        self.one, self.two = self.disk("one.img"), self.disk("two.img")
        self.both = self.one, self.two
        self.machine = self.counting(*self.both)

    def make(self, *words, **options):
        return self.checkpoint(self.one, self.machine, "--with", self.two.image, *words, **options)

    def go_back(self, *words, **options):
        return self.rollback(self.one, self.machine, "--with", self.two.image, *words, **options)

    def assert_goes_back(self):
        """And on."""
        self.go_back("--paused")
        self.assert_one_instant(self.machine.counter(), *self.both)
        self.machine.ask("cont")
        self.assert_counts(*self.both)


class Identity(GroupCase):
    def attach(self, server, record, *more):
        """A checkpoint that says that it is of this machine; its number."""
        path = self.folder / "record"
        path.write_text(json.dumps(record))
        return tool("checkpoint", server.image, "--attach", f"vm={path}", *more)["checkpoint"]

    def test_the_same_numbers_of_another_instant(self):
        """As with a copy of a volume, which was put in its place: its numbers are the same."""
        self.make()
        record, memory = self.folder / "vm", self.folder / "memory"
        tool("export", self.one.image, "last", record, "--attachment", "vm")
        tool("export", self.one.image, "last", memory, "--attachment", "vm-memory")
        ours = json.loads(record.read_text())
        theirs = {**ours, "group": "11111111-2222-4333-8444-555555555555"}
        of_one, of_two = ours["volumes"]
        for other, code in (theirs, MISMATCH), (ours, OK):
            of_two["checkpoint"] = self.attach(self.two, other)
            of_one["checkpoint"] = self.last(self.one) + 1
            made = self.attach(self.one, ours, "--attach", f"vm-memory={memory}")
            self.assertEqual(made, of_one["checkpoint"])
            if code == OK:  # it was that which was refused
                self.go_back("--paused")
                break
            self.refused(code, str(self.two.image), "not of the same instant", servers=self.both,
                         machine=self.machine, act=self.go_back)


class Locks(GroupCase):
    @contextlib.contextmanager
    def locked(self, server):
        with open(server.state / "restore.lock", "a", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def is_free(self, server):
        with open(server.state / "restore.lock", "a", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                return False

    def test_whoever_has_one_of_the_volumes_is_waited_for(self):
        self.make()
        lasts = [self.last(server) for server in self.both]
        for words in (["checkpoint"], ["rollback", "--yes"]):
            for server in self.both:
                with self.subTest(words[0], has=server.image.name):
                    with self.locked(server):
                        process = self.in_background(*words, self.one.image, "--with",
                                                     self.two.image, "--qmp", self.machine.qmp)
                        time.sleep(1.5)
                        self.assertIsNone(process.poll())
                        self.assertEqual(self.machine.state, "running")
                        self.assertEqual([self.last(server) for server in self.both], lasts)
                    self.assertEqual(process.wait(60), OK)
                    lasts = [self.last(server) for server in self.both]
                    self.assert_counts(*self.both)

    def test_they_are_taken_in_one_order(self):
        """Else two commands that name them otherwise would wait for each other."""
        for first, second in self.both, self.both[::-1]:
            with self.locked(self.one):
                process = self.in_background("checkpoint", first.image, "--with", second.image,
                                             "--qmp", self.machine.qmp)
                time.sleep(1.5)
                self.assertIsNone(process.poll())
                self.assertTrue(self.is_free(self.two))
            self.assertEqual(process.wait(60), OK)

    def test_one_that_is_given_twice(self):
        answer = self.checkpoint(self.one, self.machine, "--with", self.one.image, expect=USAGE)
        self.assertIn("twice", answer.message)


class Confirmations(GroupCase):
    def setUp(self):
        super().setUp()
        self.make()
        self.proxy = QmpProxy(self, self.machine)
        self.before = [self.last(server) for server in self.both]
        self.words = ["checkpoint", self.one.image, "--with", self.two.image, "--qmp",
                      self.proxy.path, "--mode", "snapshot"]

    def restart(self, server):
        server.kill9()
        server.start()

    def test_a_server_that_ends_before(self):
        """After the cut: there is no checkpoint of either, and the one before can be gone back to."""
        for server in self.both:
            with self.subTest(server.image.name):
                happened = self.proxy.at("snapshot-save", lambda: self.restart(server))
                answer = tool("vm", *self.words, expect=None)
                self.assertTrue(happened.wait(10))
                self.assertNotEqual(answer.code, OK)
                self.assertNotEqual(answer.message, "")
                self.assertEqual(self.machine.state, "running")
                self.assert_counts(*self.both)
                self.assertEqual([self.last(server) for server in self.both], self.before)
                self.assert_goes_back()

    def until_the_memory_is_there(self):
        """All of it, in the back-up of the first volume; the checkpoint of the second is not cut short
        by that, since its server stands still."""
        folder = self.one.state / "store/attachments"
        sizes = lambda: sorted(path.stat().st_size for path in folder.rglob("*") if path.is_file())

        def same():
            before = sizes()
            time.sleep(0.5)
            return len(before) > self.kept and sizes() == before

        eventually(same, "the memory is in the back-up")

    def between(self, act):
        """The tool, between the confirmation of the second volume and that of the first."""
        folder = self.one.state / "store/attachments"
        self.kept = len([path for path in folder.rglob("*") if path.is_file()])
        happened = self.proxy.at("cont", lambda: self.two.process.send_signal(signal.SIGSTOP))
        process = self.in_background(*self.words, "--timeout", "5")
        self.assertTrue(happened.wait(60))
        self.until_the_memory_is_there()
        act()
        self.two.process.send_signal(signal.SIGCONT)
        return process

    def assert_refused_both_ways(self):
        for first, second in self.both, self.both[::-1]:
            answer = self.refused(
                NOT_FOUND, str(second.image), "go back together", servers=self.both, machine=self.machine,
                act=lambda **options: self.rollback(first, self.machine, "--with", second.image,
                                                    **options))
            self.assertNotIn("\n", answer.message)

    def test_a_server_that_ends_between(self):
        process = self.between(self.one.kill9)
        self.assertNotEqual(process.wait(60), OK)
        self.one.start()
        self.assert_counts(*self.both)
        self.assertEqual(self.machine.state, "running")
        self.assertEqual(self.last(self.one), self.before[0])
        self.assertGreater(self.last(self.two), self.before[1])
        shown = tool("show", self.two.image, "last")["attachments"]
        self.assertEqual([attachment["name"] for attachment in shown], ["vm"])
        self.assert_refused_both_ways()
        self.make()
        self.assert_goes_back()

    def test_a_server_that_stands_still_between(self):
        """Whether its checkpoint comes to exist nobody knows, and is told so; if it does, it is of the
        same instant."""
        process = self.between(lambda: self.one.process.send_signal(signal.SIGSTOP))
        eventually(lambda: self.last(self.two) > self.before[1], "the second is confirmed")
        time.sleep(6)
        self.one.process.send_signal(signal.SIGCONT)
        code = process.wait(60)
        self.assert_counts(*self.both)
        if self.last(self.one) > self.before[0]:
            self.assertIn(code, (OK, TIMEOUT))
            self.assert_goes_back()
        else:
            self.assertIn(code, (FAILED, TIMEOUT))
            self.assert_refused_both_ways()
        self.make()
        self.assert_goes_back()


if __name__ == "__main__":
    unittest.main()
