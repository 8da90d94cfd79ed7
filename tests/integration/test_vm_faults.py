#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What happens to a machine, to its memory's file and to ckpt-tool in the middle of a checkpoint or a
rollback: at a command of QEMU's monitor that the test chooses."""

import os
import resource
import signal
import time
import unittest
from pathlib import Path

from counting_machine import HALFWAY, VmCase, written
from fake_agent import FakeAgent
from harness import BUSY, FAILED, MIB, OK, Tmpfs, eventually, tool
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

    def test_between_the_disk_and_the_memory_of_a_rollback(self):
        """What it has written meanwhile is of neither instant: it stands still, and may not be kept."""
        self.make()
        self.go_back()
        commands = self.proxy.commands
        looks = commands[:commands.index("stop")].count("query-status")
        for command, count in ("query-status", looks + 1), ("blockdev-add", 1), ("snapshot-load", 1):
            for act in self.blink, self.go:
                with self.subTest(command, act=act.__name__):
                    happened = self.proxy.at(command, act, count)
                    answer = self.go_back(expect=HALFWAY)
                    self.assertTrue(happened.wait(10), answer)
                    self.assertIn("somebody else", answer.message)
                    self.assertNotEqual(self.machine.state, "running")
                    self.assertIn("--fresh", self.make(expect=HALFWAY).message)
                    self.assert_goes_back()


class EachStep(FaultCase):
    """QEMU is killed just before it gets a command."""

    def steps(self, begin):
        """Of what the proxy has seen last, from the last such command on: each once."""
        commands = self.proxy.commands
        first = len(commands) - 1 - commands[::-1].index(begin)
        chosen = dict.fromkeys(commands[first:])
        return [(name, commands[:first].count(name) + 1) for name in chosen]

    def kill(self):
        self.machine.end()

    def assert_fresh(self, number):
        """A new machine takes its place, in the instant of that checkpoint."""
        eventually(lambda: self.status(self.server)["connections"] == 0, "it has ended")
        answer = tool("vm", "rollback", self.server.image, "--fresh", "--paused", "--yes", "--",
                      *self.machine.words)
        self.assertEqual(answer["checkpoint"], number)
        self.machine.follow(answer["pid"])
        self.assert_one_instant(self.machine.counter(), self.server)
        self.machine.ask("cont")
        self.assert_counts(self.server)

    def test_of_a_checkpoint(self):
        for mode, begin in ("background", "getfd"), ("snapshot", "stop"):
            last = self.make("--mode", mode)["checkpoint"]
            steps = self.steps(begin)
            self.assertIn("stop", dict(steps))
            for command, count in steps:
                with self.subTest(mode, command=command):
                    happened = self.proxy.at(command, self.kill, count)
                    answer = self.make("--mode", mode, expect=None)
                    self.assertTrue(happened.wait(10), answer)
                    number = self.number()
                    self.assertEqual(number > last, answer.code == OK, answer)
                    self.assertTrue(answer.code == OK or "is gone" in answer.message, answer)
                    self.assert_fresh(number)
                    last = number

    def test_of_a_rollback(self):
        number = self.make()["checkpoint"]
        self.go_back()
        steps = self.steps("object-add")
        self.assertLess({"stop", "snapshot-load", "object-del", "cont"}, set(dict(steps)))
        for command, count in steps:
            with self.subTest(command):
                before = written(self.server)
                happened = self.proxy.at(command, self.kill, count)
                answer = self.go_back(expect=None)
                self.assertTrue(happened.wait(10), answer)
                self.assertNotEqual(answer.code, OK)
                self.assertTrue(answer.code == HALFWAY or written(self.server) >= before, answer)
                self.assertIn("--fresh" if answer.code == HALFWAY else "is gone", answer.message)
                self.assertEqual(self.number(), number)
                self.assert_fresh(number)


class Fresh(FaultCase):
    """A new QEMU that has not taken over yet."""

    def children(self, process):
        """Of the tool: QEMUs."""
        try:
            pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            return [int(pid) for pid in pids if "qemu" in Path(f"/proc/{pid}/comm").read_text()]
        except OSError:
            return []

    def start(self):
        return self.in_background("rollback", self.server.image, "--fresh", "--paused", "--yes", "--",
                                  *self.machine.words)

    def assert_goes_back_into_a_new_one(self):
        eventually(lambda: self.status(self.server)["connections"] == 0, "nobody has the disk", 60)
        answer = tool("vm", "rollback", self.server.image, "--fresh", "--paused", "--yes", "--",
                      *self.machine.words)
        self.machine.follow(answer["pid"])
        self.assert_one_instant(self.machine.counter(), self.server)
        self.machine.end()
        eventually(lambda: self.status(self.server)["connections"] == 0, "it has ended")

    def test_a_tool_that_is_killed_leaves_none(self):
        """However far it has come: the next one finds the disk free."""
        self.make()
        self.machine.end()
        for delay in 0, 0.03, 0.1, 0.2, 0.4, 0.7:
            with self.subTest(delay):
                process = self.start()
                pids = eventually(lambda: self.children(process), "QEMU starts")
                time.sleep(delay)
                process.kill()
                if process.wait() == OK:
                    self.machine.follow(pids[0])
                    break  # it had been handed over
                eventually(lambda: not any(self.lives(pid) for pid in pids), "QEMU ends", 60)
                self.assert_goes_back_into_a_new_one()

    @staticmethod
    def lives(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError:
            return False

    def test_one_that_was_handed_over_stays(self):
        self.make()
        self.machine.end()
        answer = tool("vm", "rollback", self.server.image, "--fresh", "--yes", "--", *self.machine.words)
        self.machine.follow(answer["pid"])
        time.sleep(1)
        self.assert_counts(self.server)

    def test_a_qemu_that_is_killed(self):
        self.make()
        self.machine.end()
        for delay in 0, 0.05, 0.15, 0.3:
            with self.subTest(delay):
                process = self.start()
                pids = eventually(lambda: self.children(process), "QEMU starts")
                time.sleep(delay)
                killed = self.children(process)
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
                handed_over = process.wait(60) == OK  # perhaps just before it was killed
                self.assertFalse(handed_over and delay == 0)
                if handed_over and not killed:
                    self.machine.follow(pids[0])
                    break
                self.assert_goes_back_into_a_new_one()


class FullDisk(FaultCase):
    """It fills up when there was room just before."""

    def prepare(self, *parameters, **options):
        random = self.folder / "random"
        random.write_bytes(os.urandom(8 * MIB))
        self.small = Tmpfs(self, "120M", self.folder, "small").path
        self.options = {"more": ["-device", f"loader,file={random},addr=0x400000,force-raw=on"]}

    def begin(self, *parameters):
        super().prepare(*parameters, **self.options)
        self.first = self.make()["checkpoint"]

    def fill(self):
        space = os.statvfs(self.small)
        with open(self.small / "filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - MIB)

    def attachments(self):
        """What is there of memories, and how much of all there is."""
        space = os.statvfs(self.small)
        names = sorted(str(path) for path in self.small.rglob("*") if "attachments" in str(path))
        return names, (space.f_blocks - space.f_bfree) * space.f_frsize

    def assert_full(self, mode, command, *texts):
        """Before that command. It is said what is full, nothing is left, and the next one is made."""
        number, (names, used) = self.number(), self.attachments()
        happened = self.proxy.at(command, self.fill)
        answer = self.make("--mode", mode, expect=None)
        (self.small / "filler").unlink()
        self.assertTrue(happened.wait(10))
        self.assertEqual(answer.code, FAILED, answer)
        for text in texts:
            self.assertIn(text, answer.message)
        self.assert_no_checkpoint(answer, number)
        self.assert_nothing_left(names, used)
        self.make("--mode", mode)
        self.assert_goes_back()

    def assert_nothing_left(self, names, used):
        """There, and in QEMU."""
        status = lambda: tool("status", self.server.image, "--state", self.server.state)
        eventually(lambda: status()["backup"]["state"] == "connected", "the back-up is tried again")
        now_names, now_used = self.attachments()
        self.assertEqual(now_names, names)
        self.assertLess(now_used, used + 2 * MIB)  # the memory has 8
        self.assertEqual(self.machine.ask("query-fdsets"), [])
        nodes = self.machine.ask("query-named-block-nodes", flat=True)
        self.assertEqual([node["node-name"] for node in nodes], ["disk0"])

    def test_where_the_memory_is_put(self):
        """While the machine runs, the room was reserved."""
        self.begin(f"state={self.small}/state", f"backup=embedded:{self.folder}/store")
        self.assert_full("snapshot", "snapshot-save", f"{self.small}/state", "room")
        happened = self.proxy.at("migrate", self.fill)
        self.make("--mode", "background")
        self.assertTrue(happened.wait(10))
        (self.small / "filler").unlink()
        self.assert_goes_back()

    def test_where_the_back_up_is(self):
        self.begin(f"backup=embedded:{self.small}/store")
        self.assert_full("snapshot", "snapshot-save", "/store/attachments", "No space left")
        self.assert_full("background", "migrate", "/store/attachments", "No space left")

    def test_where_all_of_it_is(self):
        self.begin(f"state={self.small}/state")
        self.assert_full("snapshot", "snapshot-save", f"{self.small}/state", "room")
        happened = self.proxy.at("migrate", self.fill)
        self.make("--mode", "background")  # what was reserved is free again, and enough
        self.assertTrue(happened.wait(10))

    def test_where_the_copy_is(self):
        """On which nothing depends."""
        self.begin(f"attachments={self.small}")
        happened = self.proxy.at("stop", self.fill)
        made = self.make()
        self.assertTrue(happened.wait(10))
        self.assertIn("no copy of the memory", made.stderr)
        self.assertIn(str(self.small), made.stderr)
        (self.small / "filler").unlink()
        self.assertEqual(list(self.small.glob("ckpt-copy*")), [])
        self.assert_goes_back()

    def test_where_a_rollback_puts_the_memory(self):
        self.begin(f"state={self.small}/state", f"backup=embedded:{self.folder}/store")
        self.fill()
        before = written(self.server)
        answer = self.go_back(expect=FAILED)
        self.assertIn("are free", answer.message)
        self.assertIn(f"{self.small}/state", answer.message)
        self.assertEqual(self.machine.state, "running")
        self.assertGreaterEqual(written(self.server), before)
        (self.small / "filler").unlink()
        self.assert_goes_back()


class Broken(FaultCase):
    """The memory's file takes no more, although there was room: as with a disk that has an error."""

    def prepare(self, *parameters, **options):
        random = self.folder / "random"
        random.write_bytes(os.urandom(8 * MIB))
        super().prepare(more=["-device", f"loader,file={random},addr=0x400000,force-raw=on"])

    def limit(self):
        resource.prlimit(self.machine.process.pid, resource.RLIMIT_FSIZE, (MIB, MIB))

    def test_it_is_said_that_qemu_may_hang(self):
        number = self.make()["checkpoint"]
        happened = self.proxy.at("migrate", self.limit)
        answer = self.make("--mode", "background", expect=FAILED)
        self.assertTrue(happened.wait(10))
        self.assertEqual(self.number(), number)
        self.assertEqual(self.machine.state, "running")
        qemu = self.machine.ask("query-version")["qemu"]
        if (qemu["major"], qemu["minor"]) < (8, 1):
            self.assertIn("--fresh", answer.message)
        else:
            self.assert_counts(self.server)
        self.machine.end()
        eventually(lambda: self.status(self.server)["connections"] == 0, "it has ended")
        answer = tool("vm", "rollback", self.server.image, "--fresh", "--paused", "--yes", "--",
                      *self.machine.words)
        self.assertEqual(answer["checkpoint"], number)
        self.machine.follow(answer["pid"])
        self.assert_one_instant(self.machine.counter(), self.server)

    def test_while_the_machine_stands_still(self):
        number = self.make()["checkpoint"]
        happened = self.proxy.at("snapshot-save", self.limit)
        answer = self.make("--mode", "snapshot", expect=FAILED)
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
