#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What happens to a machine, to its memory's file and to ckpt-tool in the middle of a checkpoint or a
rollback: at a command of QEMU's monitor that the test chooses."""

import unittest

from counting_machine import VmCase, written
from fake_agent import FakeAgent
from harness import BUSY, FAILED, OK, eventually, tool
from qmp_proxy import QmpProxy


class FaultCase(VmCase):
    def setUp(self):
        super().setUp()
        self.prepare()

    def prepare(self, *parameters, **options):
        self.server = self.disk("disk.img", *parameters)
        self.machine = self.counting(self.server, **options)
        self.proxy = QmpProxy(self, self.machine)

    def words(self, verb, *more):
        return [verb, self.server.image, "--state", self.server.state, "--qmp", self.proxy.path, *more]

    def make(self, *words, **options):
        return tool("vm", *self.words("checkpoint", *words), **options)

    def go_back(self, *words, **options):
        return tool("vm", *self.words("rollback", "--yes", *words), **options)

    def number(self):
        """Of the checkpoint that can be gone back to."""
        answer = tool("list", self.server.image, "--state", self.server.state)
        return answer["checkpoints"][-1]["checkpoint"]

    def assert_no_checkpoint(self, answer, number):
        """And the machine runs on."""
        self.assertNotEqual(answer.code, OK)
        self.assertEqual(self.number(), number)
        self.assertEqual(self.machine.state, "running")
        self.assert_counts(self.server)

    def assert_goes_back(self):
        self.go_back("--paused")
        self.assert_one_instant(self.machine.counter(), self.server)
        self.machine.ask("cont")
        self.assert_counts(self.server)


class SomebodyElse(FaultCase):
    """Tells the machine to go on, and perhaps to stop again, while it is to stand still."""

    def go(self):
        self.machine.ask("cont")

    def blink(self):
        before = written(self.server)
        self.machine.ask("cont")
        eventually(lambda: written(self.server) > before, "it counts")
        self.machine.ask("stop")

    def test_between_the_cut_and_the_memory(self):
        number = self.make()["checkpoint"]
        for mode, command in ("snapshot", "snapshot-save"), ("background", "migrate"):
            for act in self.blink, self.go:
                with self.subTest(mode, act=act.__name__):
                    happened = self.proxy.at(command, act)
                    answer = self.make("--mode", mode, expect=None)
                    self.assertTrue(happened.wait(10), answer)
                    self.assertIn("somebody else", answer.message)
                    self.assert_no_checkpoint(answer, number)
        number = self.make()["checkpoint"]
        self.assert_goes_back()

    def test_between_the_cut_and_what_is_looked_at_then(self):
        number = self.make("--mode", "snapshot")["checkpoint"]
        for mode in "snapshot", "background":
            self.make("--mode", mode)
            commands = self.proxy.commands
            number = self.number()
            looks = commands[:commands.index("stop")].count("query-status")
            happened = self.proxy.at("query-status", self.blink, looks + 1)
            answer = self.make("--mode", mode, expect=BUSY)
            self.assertTrue(happened.wait(10))
            self.assert_no_checkpoint(answer, number)


class Agent(FaultCase):
    """Of the guest, that makes its file systems stand still."""

    def setUp(self):
        super().setUp()
        self.before = self.number()
        self.agent = FakeAgent(self, lambda: (self.machine.state, self.number()))

    def make_disk(self, **options):
        return self.make("--mode", "disk", "--agent", self.agent.path, **options)

    def test_until_the_disk_is_cut(self):
        """And no longer: they go on before the checkpoint exists."""
        self.assertEqual(self.make_disk()["frozen_file_systems"], 3)
        self.assertEqual(self.agent.asked, [("guest-fsfreeze-freeze", ("running", self.before)),
                                            ("guest-fsfreeze-thaw", ("running", self.before))])
        self.assertGreater(self.number(), self.before)

    def test_also_where_nothing_comes_of_it(self):
        self.agent.at("guest-fsfreeze-freeze", lambda: self.machine.ask("stop"))
        self.make_disk(expect=BUSY)
        self.assertEqual([name for name, _ in self.agent.asked],
                         ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"])
        self.assertEqual(self.number(), self.before)
        self.assertEqual(self.machine.state, "paused")

    def test_where_it_can_not_freeze(self):
        self.agent.answers["guest-fsfreeze-freeze"] = {"error": {"desc": "no such mount"}}
        answer = self.make_disk(expect=FAILED)
        self.assertIn("no such mount", answer.message)
        self.assertEqual(self.agent.asked[-1][0], "guest-fsfreeze-thaw")
        self.assertEqual(self.number(), self.before)
        self.assert_counts(self.server)

    def test_where_it_can_not_let_them_go(self):
        self.agent.answers["guest-fsfreeze-thaw"] = {"error": {"desc": "busy"}}
        answer = self.make_disk(expect=FAILED)
        self.assertIn("guest-fsfreeze-thaw", answer.message)
        self.assertEqual(self.number(), self.before)
        self.assertEqual(self.machine.state, "running")

    def test_not_of_a_machine_that_stands_still(self):
        self.machine.ask("stop")
        self.assertEqual(self.make_disk()["frozen_file_systems"], 0)
        self.assertEqual(self.agent.asked, [])
        self.assertEqual(self.machine.state, "paused")


if __name__ == "__main__":
    unittest.main()
