#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Virtual machines that go back with their disks: real QEMU, and for a guest a boot sector that does
nothing but count, in its memory and on its disks. tests/guest/vm_rounds.py has a guest with Linux."""

import os
import re
import signal
import subprocess
import time
import unittest

from counting_machine import HALFWAY, NOT_FOUND, Machine, Qmp, VmCase, written
from harness import BUSY, FAILED, MIB, MISMATCH, OK, USAGE, Tmpfs, build, eventually, run, tool


class InPlace(VmCase):
    def test_disk_and_memory_are_of_one_instant(self):
        server = self.disk()
        machine = self.counting(server)
        for mode in "background", "snapshot", None, "background":
            with self.subTest(mode):
                low = machine.counter()
                made = self.checkpoint(server, machine, *(["--mode", mode] if mode else []))
                high = machine.counter()
                self.assertEqual(made["mode"], mode or "background")
                self.assertGreater(made["memory_bytes"], 0)
                self.assertLess(made["cut_us"], made["paused_us"])
                self.assertEqual(machine.state, "running")
                self.assert_counts(server)
                back = self.rollback(server, machine, "--paused")
                self.assertEqual(back["checkpoint"], made["checkpoint"])
                self.assertEqual(machine.state, "paused")
                counter = machine.counter()
                self.assertLessEqual(low, counter)
                self.assertLessEqual(counter, high)
                self.assert_one_instant(counter, server)
                self.assertEqual(machine.ask("query-named-block-nodes", flat=True)[0]["node-name"],
                                 "disk0")
                machine.ask("cont")
                self.assert_counts(server)

    def test_again_and_again_to_the_same(self):
        server = self.disk()
        machine = self.counting(server)
        self.checkpoint(server, machine, "--name", "good")
        seen = set()
        for _ in range(5):
            self.rollback(server, machine, "good", "--paused")
            counter = machine.counter()
            self.assert_one_instant(counter, server)
            seen.add(counter)
            machine.ask("cont")
            self.assert_counts(server)
        self.assertEqual(len(seen), 1)

    def test_one_that_stands_still_stays_so(self):
        server = self.disk()
        machine = self.counting(server)
        machine.ask("stop")
        counter = machine.counter()
        for mode in "background", "snapshot", "disk":
            self.assertEqual(self.checkpoint(server, machine, "--mode", mode)["mode"],
                             "disk" if mode == "disk" else "snapshot")
            self.assertEqual(machine.state, "paused")
            self.assertEqual(machine.counter(), counter)
        self.checkpoint(server, machine)
        machine.ask("cont")
        self.assert_counts(server)
        self.rollback(server, machine, "--paused")
        self.assertEqual(machine.counter(), counter)

    def test_several_disks_go_back_together(self):
        one, two = self.disk("one.img"), self.disk("two.img")
        machine = self.counting(one, two)
        self.refused(USAGE, "--with", servers=(one, two), machine=machine,
                     act=lambda **options: self.checkpoint(one, machine, **options))
        made = self.checkpoint(one, machine, "--with", two.image)
        self.assertEqual(made["checkpoints"],
                         [self.status(server)["last_checkpoint"]["checkpoint"] for server in (one, two)])
        self.assert_counts(one, two)
        for first, second in (one, two), (two, one):
            self.refused(USAGE, "--with", servers=(one, two), machine=machine,
                         act=lambda **options: self.rollback(first, machine, **options))
            self.rollback(first, machine, "--with", second.image, "--paused")
            self.assert_one_instant(machine.counter(), one, two)
            machine.ask("cont")
            self.assert_counts(one, two)
        tool("checkpoint", two.image)
        self.refused(NOT_FOUND, str(two.image), servers=(one, two), machine=machine,
                     act=lambda **options: self.rollback(one, machine, "--with", two.image, **options))

    def test_a_checkpoint_without_memory_is_refused(self):
        server = self.disk()
        machine = self.counting(server)
        for make in (lambda: tool("checkpoint", server.image),
                     lambda: self.checkpoint(server, machine, "--mode", "disk")):
            make()
            self.refused(NOT_FOUND, "--disk-only", servers=[server], machine=machine,
                         act=lambda **options: self.rollback(server, machine, **options))
        machine.end()
        before = written(server)
        tool("vm", "rollback", server.image, "--disk-only", "--yes")
        self.assertLess(written(server), before)
        server.stop()
        tool("vm", "rollback", server.image, "--disk-only", "--yes")

    def test_a_damaged_memory_is_refused(self):
        server = self.disk()
        machine = self.counting(server)
        self.checkpoint(server, machine)
        kept = [path for path in (server.state / "store/attachments").rglob("*")
                if path.is_file() and path.stat().st_size > 10000]
        self.assertEqual(len(kept), 1)
        with open(kept[0], "r+b") as file:
            file.seek(kept[0].stat().st_size // 2)
            file.write(b"damaged")
        answer = self.refused(None, "", servers=[server], machine=machine,
                              act=lambda **options: self.rollback(server, machine, **options))
        self.assertIn(answer.code, (FAILED, MISMATCH))
        self.assertIn("digest", answer.message)


class Disks(VmCase):
    def test_of_another_volume(self):
        server, other = self.disk(), self.disk("other.img")
        machine = self.counting(server)
        self.refused(USAGE, "--with", servers=[server], machine=machine,
                     act=lambda **options: self.checkpoint(other, machine, **options))
        self.checkpoint(server, machine)
        with self.subTest("rollback"):
            self.refused(NOT_FOUND, "no memory", servers=[server], machine=machine,
                         act=lambda **options: self.rollback(other, machine, **options))

    def test_that_are_no_volumes_are_named(self):
        server = self.disk()
        plain = self.image("plain.img", MIB)
        machine = self.counting(server, more=[
            "-blockdev", f"driver=file,node-name=plain,filename={plain}",
            "-device", "virtio-blk-pci,drive=plain,id=second"])
        made = self.checkpoint(server, machine)
        self.assertEqual(len(made["not_saved"]), 1)
        self.assertIn("second", made["not_saved"][0])
        back = self.rollback(server, machine)
        self.assertEqual(back["not_rolled_back"], made["not_saved"])
        self.assertIn("second", back.stderr)

    def test_that_are_not_raw_are_refused(self):
        server = self.disk()
        run("qemu-img", "create", "-q", "-f", "qcow2", server.uri, "1M")
        machine = Machine(self, more=[
            "-blockdev", f"driver=nbd,node-name=nbd,server.type=unix,server.path={server.socket}",
            "-blockdev", "driver=qcow2,node-name=disk,file=nbd",
            "-device", "virtio-blk-pci,drive=disk"])
        answer = self.checkpoint(server, machine, expect=USAGE)
        self.assertIn("qcow2", answer.message)
        self.assertEqual(machine.state, "running")


class Fresh(VmCase):
    def test_a_new_qemu_goes_on_from_there(self):
        server = self.disk()
        machine = self.counting(server)
        for mode in "background", "snapshot":
            self.checkpoint(server, machine, "--mode", mode)
            at = machine.counter()
        self.refused(BUSY, "--qmp", servers=[server], machine=machine,
                     act=lambda **options: tool("vm", "rollback", server.image, "--fresh", "--yes",
                                                **options))
        self.assert_counts(server)
        machine.end()
        for _ in range(2):
            answer = tool("vm", "rollback", server.image, "--fresh", "--paused", "--yes")
            with self.new_qemu(answer):
                machine.ask = eventually(lambda: Qmp(machine.own), "QEMU answers")
                self.assertEqual(machine.state, "paused")
                counter = machine.counter()
                self.assertLessEqual(counter, at)
                self.assert_one_instant(counter, server)
                machine.ask("cont")
                self.assert_counts(server)
                # What it was started with is what the next one is started with.
                self.checkpoint(server, machine)
                at = machine.counter()

    def test_the_printed_commands_do_the_same(self):
        server = self.disk()
        machine = self.counting(server)
        self.checkpoint(server, machine)
        machine.end()
        commands = tool("vm", "rollback", server.image, "--fresh", "--print")["commands"]
        path = f"{build() / 'tools'}:{os.environ['PATH']}"
        subprocess.run(commands[0], shell=True, check=True, env={**os.environ, "PATH": path},
                       capture_output=True)
        counter = written(server)
        with open(machine.log, "ab") as log:
            process = subprocess.Popen(commands[1] + " -S", shell=True, stdout=log, stderr=log,
                                       env={**os.environ, "PATH": path}, start_new_session=True)
        self.addCleanup(process.wait)
        self.addCleanup(os.killpg, process.pid, signal.SIGKILL)
        machine.process = process
        machine.ask = eventually(machine._connect, "QEMU answers")
        eventually(lambda: machine.state != "inmigrate", "the memory is loaded")
        self.assertIn(machine.counter() - counter, (0, 1))

    def test_the_printed_commands_of_several_disks(self):
        one, two = self.disk("one.img"), self.disk("two.img")
        machine = self.counting(one, two)
        made = self.checkpoint(one, machine, "--with", two.image)
        for first, second in (one, two), (two, one):
            commands = tool("vm", "rollback", first.image, "--with", second.image, "--fresh",
                            "--print")["commands"]
            self.assertEqual(len(commands), 3)
            for command, server, number in zip(commands, (one, two), made["checkpoints"]):
                self.assertIn(f"{server.image} {number} --disk-only", command)
            self.assertIn(f"export {one.image} {made['checkpoints'][0]} - --attachment vm-memory",
                          commands[2])

    def test_another_disk_is_refused(self):
        server, other = self.disk(), self.disk("other.img")
        machine = self.counting(server)
        self.checkpoint(server, machine)
        self.assert_counts(server)
        machine.end()
        before = written(server)
        words = [word.replace(str(server.socket), str(other.socket)) for word in machine.words]
        answer = tool("vm", "rollback", server.image, "--fresh", "--yes", "--", *words, expect=USAGE)
        self.assertIn("no disk of this machine" if "no disk" in answer.message else "--with",
                      answer.message)
        self.assertEqual(written(server), before)

    def test_disks_that_are_exchanged_are_refused(self):
        one, two = self.disk("one.img"), self.disk("two.img")
        machine = self.counting(one, two)
        self.checkpoint(one, machine, "--with", two.image)
        machine.end()
        words = [word.replace(str(one.socket), "@").replace(str(two.socket), str(one.socket))
                 .replace("@", str(two.socket)) for word in machine.words]
        answer = tool("vm", "rollback", one.image, "--with", two.image, "--fresh", "--yes", "--", *words,
                      expect=MISMATCH)
        self.assertIn("another machine", answer.message)

    def test_another_machine_is_refused(self):
        server = self.disk()
        machine = self.counting(server)
        self.checkpoint(server, machine)
        self.assert_counts(server)
        machine.end()
        before = written(server)
        for words, text in ((["-m", "32"], "memory"), (["-machine", "q35"], "q35"),
                            (["-smp", "2"], "processors"), (["-device", "virtio-rng-pci"], "devices")):
            answer = tool("vm", "rollback", server.image, "--fresh", "--yes", "--", *machine.words, *words,
                          expect=MISMATCH)
            self.assertIn(text, answer.message)
            self.assertEqual(written(server), before, "nothing has gone back")
        eventually(lambda: self.status(server)["connections"] == 0, "no QEMU is left")

    def test_a_qemu_that_does_not_start_says_why(self):
        server = self.disk()
        machine = self.counting(server)
        self.checkpoint(server, machine)
        machine.end()
        before = written(server)
        answer = tool("vm", "rollback", server.image, "--fresh", "--yes", "--",
                      "qemu-system-x86_64", "-no-such-word", expect=FAILED)
        self.assertIn("no-such-word", answer.message)
        answer = tool("vm", "rollback", server.image, "--fresh", "--yes", "--", "/no/such/qemu",
                      expect=None)
        self.assertNotEqual(answer.code, OK)
        self.assertIn("/no/such/qemu", answer.message)
        self.assertEqual(written(server), before)


class Run(VmCase):
    def start(self, server, *words, log=None):
        """A machine by `vm run`, which takes its place."""
        command = [build() / "tools/ckpt-tool", "vm", "run", server.image, *words, "--", "-accel", "tcg",
                   "-m", "16", "-display", "none", "-nodefaults"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assert_counts(server)
        return process

    def test_its_monitor_is_found(self):
        server = self.disk()
        process = self.start(server)
        made = tool("vm", "checkpoint", server.image)
        before = written(server)
        self.assert_counts(server)
        back = tool("vm", "rollback", server.image, "--yes", "--paused")
        self.assertEqual(back["checkpoint"], made["checkpoint"])
        self.assertLessEqual(written(server), before)
        answer = tool("vm", "run", server.image, "--print")["command"]
        self.assertEqual(answer[0], "qemu-system-x86_64")
        self.assertIn("-m", answer)
        refused = tool("vm", "run", server.image, expect=BUSY)
        self.assertIn("connected", refused.message)
        process.kill()
        process.wait()
        self.assertIn("--fresh", tool("vm", "rollback", server.image, "--yes",
                                      expect=NOT_FOUND).message)
        answer = tool("vm", "rollback", server.image, "--fresh", "--yes")
        with self.new_qemu(answer):
            self.assert_counts(server)
            tool("vm", "checkpoint", server.image)

    def test_what_cannot_be_started_is_said(self):
        server = self.disk()
        answer = tool("vm", "run", server.image, "--qmp", "/tmp/" + "x" * 110, expect=USAGE)
        self.assertIn("too long", answer.message)
        answer = tool("vm", "run", server.image, "--", "/no/such/qemu", expect=NOT_FOUND)
        self.assertIn("/no/such/qemu", answer.message)
        server.stop()
        self.assertIn("no server runs", tool("vm", "run", server.image, expect=NOT_FOUND).message)


class Failures(VmCase):
    def test_a_memory_that_cannot_be_saved(self):
        server = self.disk()
        plain = self.image("plain.img", MIB)
        machine = self.counting(server, more=[
            "-blockdev", f"driver=file,node-name=plain,filename={plain}",
            "-device", "nvme,drive=plain,serial=1"])  # QEMU 7.2 cannot save one
        for mode in "background", "snapshot":
            self.refused(FAILED, "nvme", servers=[server], machine=machine,
                         act=lambda **options: self.checkpoint(server, machine, "--mode", mode, **options))

    def test_an_agent_that_is_not_there(self):
        """Its channel is found; nobody in the guest answers. One that was named must."""
        server = self.disk()
        channel = self.folder / "channel"
        machine = self.counting(server, more=[
            "-chardev", f"socket,id=channel,path={channel},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device",
            "virtserialport,chardev=channel,name=org.qemu.guest_agent.0"])
        made = self.checkpoint(server, machine, "--mode", "disk")
        self.assertEqual(made["frozen_file_systems"], 0)
        self.assertIn(f"{channel}: no agent in the guest answers", made.stderr)
        self.refused(NOT_FOUND, "no agent in the guest answers", servers=[server], machine=machine,
                     act=lambda **options: self.checkpoint(server, machine, "--mode", "disk",
                                                           "--agent", channel, **options))
        self.refused(USAGE, "--mode disk", servers=[server], machine=machine,
                     act=lambda **options: self.checkpoint(server, machine, "--agent", channel,
                                                           **options))

    def test_a_folder_without_room(self):
        """Whose file system the primary image may be on."""
        small = Tmpfs(self, "60M", self.folder)
        server = self.disk("disk.img", f"state={small.path}/state")
        machine = self.counting(server)
        answer = self.checkpoint(server, machine, "--state", server.state, expect=FAILED)
        self.assertIn("are free", answer.message)
        self.assertEqual(machine.state, "running")
        self.assert_counts(server)
        self.checkpoint(server, machine, "--state", server.state, "--mode", "disk")

    def test_a_back_up_that_is_gone(self):
        backupd = self.keep()
        self.backupd = backupd
        server = self.disk()
        machine = self.counting(server)
        self.checkpoint(server, machine)
        backupd.kill9()
        eventually(lambda: self.status(server)["backup"]["state"] == "detached", "it is noticed")
        self.assertNotEqual(self.checkpoint(server, machine, expect=None).code, OK)
        self.assertEqual(machine.state, "running")
        self.assert_counts(server)
        backupd.start()
        eventually(lambda: self.status(server)["backup"]["state"] == "connected", "it is back")
        self.checkpoint(server, machine)
        self.rollback(server, machine, "--paused")
        self.assert_one_instant(machine.counter(), server)

    def test_a_monitor_that_another_client_has(self):
        server = self.disk()
        machine = self.counting(server)
        other = Qmp(machine.qmp)
        self.addCleanup(other.close)
        answer = self.checkpoint(server, machine, expect=BUSY)
        self.assertIn("another client", answer.message)

    def test_a_qemu_that_is_killed(self):
        server = self.disk()
        machine = self.counting(server)
        last = self.checkpoint(server, machine)["checkpoint"]
        words = [build() / "tools/ckpt-tool", "vm", "checkpoint", server.image, "--qmp", machine.qmp]
        for delay in 0.0, 0.01, 0.02, 0.04, 0.08:
            with self.subTest(delay), open(machine.log, "ab") as log:
                process = subprocess.Popen(words, stdout=log, stderr=log)
                time.sleep(delay)
                machine.end()
                code = process.wait(60)
                kept = tool("list", server.image)["checkpoints"][-1]["checkpoint"]
                self.assertEqual(kept > last, code == OK, f"exit {code}")
                last = kept
                answer = tool("vm", "rollback", server.image, "--fresh", "--paused", "--yes")
                self.assertEqual(answer["checkpoint"], kept)
                machine.ask = eventually(lambda: Qmp(machine.own), "QEMU answers")
                self.assert_one_instant(machine.counter(), server)
                os.kill(answer["pid"], signal.SIGKILL)
                eventually(lambda: self.status(server)["connections"] == 0, "it has ended")
                machine = self.counting(server)

    def test_a_tool_that_is_told_to_end_lets_it_go_on_first(self):
        server = self.disk()
        machine = self.counting(server, memory=128)
        for mode in "background", "snapshot", "snapshot":
            with self.subTest(mode):
                words = ["checkpoint", server.image, "--qmp", machine.qmp, "--mode", mode]
                seen = self.when(lambda: machine.state != "running", signal.SIGTERM, words)
                self.assertTrue(seen or mode == "background")
                eventually(lambda: machine.state == "running", "it goes on")
                self.assert_counts(server)
        eventually(lambda: machine.ask("query-migrate").get("status") != "active", "it was saved")
        self.checkpoint(server, machine)
        self.rollback(server, machine, "--paused")
        self.assert_one_instant(machine.counter(), server)

    def test_a_rollback_that_is_killed_goes_on(self):
        server = self.disk()
        machine = self.counting(server, memory=128)
        self.checkpoint(server, machine)
        words = ["rollback", server.image, "--qmp", machine.qmp, "--yes"]
        steps = {"it stands still": lambda: machine.state != "running",
                 "it loads": lambda: len(machine.ask("query-named-block-nodes", flat=True)) > 1}
        for name, condition in steps.items():
            with self.subTest(name):
                for _ in range(5):
                    self.assert_counts(server)
                    seen = self.when(condition, signal.SIGKILL, words)
                    self.rollback(server, machine, "--paused")
                    self.assert_one_instant(machine.counter(), server)
                    machine.ask("cont")
                    if seen:
                        break
                self.assertTrue(seen)

    def test_what_is_half_way_gets_no_checkpoint(self):
        server = self.disk()
        machine = self.counting(server, memory=128)
        self.checkpoint(server, machine)
        words = ["rollback", server.image, "--qmp", machine.qmp, "--yes"]
        marked = lambda: any(one["name"] == "ckpt-half-way"
                             for one in machine.ask("qom-list", path="/objects"))
        self.assertTrue(self.when(marked, signal.SIGKILL, words))
        before = tool("list", server.image)["checkpoints"]
        self.assertIn("--fresh", self.checkpoint(server, machine, expect=HALFWAY).message)
        self.assertEqual(tool("list", server.image)["checkpoints"], before)
        self.rollback(server, machine)
        self.assertFalse(marked())
        self.checkpoint(server, machine)

    def test_words_that_make_no_sense(self):
        server = self.disk()
        for words, text in (([], "--qmp"), (["--fresh", "--disk-only"], "one of"),
                            (["--disk-only", "--print"], "--fresh"),
                            (["--disk-only", "--with", "x"], "one volume")):
            self.assertIn(text, tool("vm", "rollback", server.image, *words, expect=USAGE).message)
        self.assertIn("--qmp", tool("vm", "checkpoint", server.image, expect=USAGE).message)
        answer = tool("vm", "checkpoint", server.image, "--qmp", self.folder / "none",
                      expect=NOT_FOUND)
        self.assertTrue(re.search("none", answer.message))


if __name__ == "__main__":
    unittest.main()
