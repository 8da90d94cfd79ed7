#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Attachments: what is stored with a checkpoint is part of it, comes back byte for byte, and is gone
when the checkpoint is void. With the store in the server, and behind backupd."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
import unittest
from pathlib import Path

from harness import FAILED, MIB, OK, UNKNOWN, USAGE, Case, build, eventually, run, tool
from nbd_client import NbdClient


class Embedded(Case):
    def setUp(self):
        super().setUp()
        self.prepare()
        self.server = self.serve(self.image(size=8 * MIB))
        self.state = self.folder / "state.bin"
        self.state.write_bytes(random.Random(1).randbytes(5 * MIB + 77))
        self.log = self.folder / "log.txt"
        self.log.write_bytes(b"the same line again\n" * 200000)

    def prepare(self):
        """Before the server starts."""

    def write(self, data):
        with NbdClient(str(self.server.socket)) as client:
            client.write(4096, data)

    def both(self):
        return "--attach", f"state={self.state}", "--attach", f"a log={self.log}"

    def expect_whole(self, *volume):
        """Both come back as they were."""
        for name, path in (("state", self.state), ("a log", self.log)):
            out = self.folder / f"out-{name}"
            answer = tool("export", *volume, "last", out, "--attachment", name, "--force")
            self.assertEqual(answer["bytes"], path.stat().st_size)
            self.assertEqual(out.read_bytes(), path.read_bytes())

    def test_they_come_back_as_they_were(self):
        self.write(b"x" * 4096)
        made = tool("checkpoint", self.server.image, "--name", "one", *self.both())
        shown = tool("show", self.server.image, "one")["attachments"]
        self.assertEqual([(a["name"], a["size_bytes"]) for a in shown],
                         [("state", 5 * MIB + 77), ("a log", 4000000)])
        self.assertLess(shown[1]["stored_bytes"], 100000)  # it is compressed
        self.assertEqual(tool("list", self.server.image)["checkpoints"][-1]["attachments"],
                         [{"name": "state", "size_bytes": 5 * MIB + 77},
                          {"name": "a log", "size_bytes": 4000000}])
        self.expect_whole(self.server.image)
        self.write(b"y" * 4096)
        tool("rollback", self.server.image, "one", "--yes")
        self.expect_whole(self.server.image)
        self.server.kill9()
        self.expect_whole(self.server.image)
        self.server.start()
        self.expect_whole(self.server.image)
        self.assertEqual(tool("list", self.server.image)["checkpoints"][-1]["checkpoint"],
                         made["checkpoint"])

    def test_the_next_checkpoint_has_none_of_them(self):
        tool("checkpoint", self.server.image, *self.both())
        tool("checkpoint", self.server.image)
        self.assertEqual(tool("list", self.server.image)["checkpoints"][-1]["attachments"], [])
        answer = tool("export", self.server.image, "last", self.folder / "x", "--attachment",
                      "state", expect=UNKNOWN)
        self.assertIn("no attachment state", answer.message)
        self.assertEqual(list(self.attachments_folder().iterdir()), [])

    def attachments_folder(self):
        return self.server.state / "store" / "attachments"

    def test_from_a_pipe_and_to_the_standard_output(self):
        """Without a byte of it on a disk."""
        program = build() / "tools" / "ckpt-tool"
        content = random.Random(2).randbytes(3 * MIB)
        done = subprocess.run([program, "checkpoint", self.server.image, "--attach",
                               "stream=/dev/stdin"], input=content, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, OK, done.stderr)
        done = subprocess.run([program, "export", self.server.image, "last", "-", "--attachment",
                               "stream"], capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (OK, content))
        tool("export", self.server.image, "last", "-", "--attachment", "stream", expect=USAGE)

    def test_what_is_not_there_or_not_whole_makes_no_checkpoint(self):
        tool("checkpoint", self.server.image)
        before = tool("list", self.server.image)["checkpoints"]
        for words, code in ((("x=/nowhere",), UNKNOWN), (("x",), USAGE), (("=/etc/hosts",), USAGE),
                            (("a/b=/etc/hosts",), USAGE), (("a=/etc/hosts", "a=/etc/hosts"), USAGE),
                            ((f"folder={self.folder}",), FAILED),
                            ((f"state={self.state}", f"folder={self.folder}"), FAILED)):
            options = [word for given in words for word in ("--attach", given)]
            answer = tool("checkpoint", self.server.image, *options, expect=code)
            self.assertNotEqual(answer.message, "")
        self.assertEqual(tool("list", self.server.image)["checkpoints"], before)
        tool("checkpoint", self.server.image, *self.both())
        self.expect_whole(self.server.image)

    def test_a_stream_that_does_not_end_is_given_up(self):
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        keep = os.open(fifo, os.O_RDWR)  # a writer that says nothing
        self.addCleanup(os.close, keep)
        began = time.monotonic()
        answer = tool("checkpoint", self.server.image, "--attach", f"x={fifo}", "--timeout", 2,
                      expect=FAILED)
        self.assertLess(time.monotonic() - began, 20)
        self.assertIn("there is no checkpoint", answer.message)
        tool("checkpoint", self.server.image)

    def test_a_tool_that_is_killed_makes_none(self):
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        keep = os.open(fifo, os.O_RDWR)
        self.addCleanup(os.close, keep)
        before = tool("list", self.server.image)["checkpoints"]
        process = subprocess.Popen([build() / "tools" / "ckpt-tool", "checkpoint",
                                    self.server.image, "--attach", f"state={self.state}",
                                    "--attach", f"x={fifo}"], stderr=subprocess.DEVNULL)
        eventually(lambda: self.tool_status()["backup"]["pending_bytes"] > 5 * MIB, "state is there")
        process.kill()
        process.wait()
        eventually(lambda: tool("checkpoint", self.server.image, expect=None).code == OK,
                   "the next one")
        self.assertEqual(tool("list", self.server.image)["checkpoints"][-1]["attachments"], [])
        self.assertNotEqual(tool("list", self.server.image)["checkpoints"], before)

    def tool_status(self):
        return tool("status", self.server.image)

    def test_memory_does_not_grow_with_them(self):
        large = self.folder / "large"
        with open(large, "wb") as file:
            draw = random.Random(3)
            for _ in range(192):
                file.write(draw.randbytes(MIB))
        tool("checkpoint", self.server.image)
        before = self.peak_of(self.server.process.pid)
        tool("checkpoint", self.server.image, "--attach", f"large={large}")
        self.assertLess(self.peak_of(self.server.process.pid) - before, 64)
        out = self.folder / "out"
        tool("export", self.server.image, "last", out, "--attachment", "large")
        self.assertLess(self.peak_of(self.server.process.pid) - before, 64)
        self.assertTrue(open(out, "rb").read() == open(large, "rb").read())

    @staticmethod
    def peak_of(pid):
        with open(f"/proc/{pid}/status") as status:
            return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) // 1024

    @staticmethod
    def flip(path, offset):
        """The same again puts it back."""
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 1]))

    def test_a_damaged_one_is_named_and_the_disk_is_not_worse(self):
        self.write(b"x" * 4096)
        tool("checkpoint", self.server.image, *self.both())
        damaged = next(self.attachments_folder().glob("*.0"))
        self.flip(damaged, 2 * MIB)
        answer = tool("export", self.server.image, "last", self.folder / "x", "--attachment",
                      "state", expect=FAILED)
        self.assertIn(damaged.name, answer.message)
        self.assertFalse((self.folder / "x").exists())
        self.assertEqual([p.name for p in self.folder.iterdir() if p.name.startswith("x")], [])
        self.assertEqual(tool("verify", self.server.image)["mismatched_bytes"], 0)

    def saved_process(self):
        """A process that a checkpoint says it has, with what are no images of it."""
        process = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        record = {"schema": 1, "device": "/dev/nbd77", "block_bytes": 512, "mounts": [],
                  "options": [], "trees": [{"attachment": "criu-0", "processes": [
                      {"pid": process.pid, "name": "sleep", "command": "sleep 1000 "}]}]}
        (self.folder / "record").write_text(json.dumps(record))
        run("tar", "-cf", self.folder / "images.tar", "-C", self.folder, self.state.name)
        tool("checkpoint", self.server.image, "--attach", f"processes={self.folder}/record",
             "--attach", f"criu-0={self.folder}/images.tar")
        return process

    def test_processes_whose_state_is_damaged_are_not_restored_and_nothing_is_done(self):
        self.write(b"x" * 4096)
        process = self.saved_process()
        self.write(b"y" * 4096)
        before = self.tool_status()
        for index, offset in ((0, 64 + 48 + 5), (1, 2 * MIB)):
            damaged = next(self.attachments_folder().glob(f"*.{index}"))
            self.flip(damaged, offset)
            answer = tool("restore", self.server.image, "--yes", expect=FAILED)
            self.assertIn(damaged.name, answer.message)
            self.assertIn("nothing was done", answer.message)
            self.flip(damaged, offset)
        whole = tool("restore", self.server.image, "--yes", expect=None)
        self.assertNotIn("attachment", whole.message)  # it is the disk that is not there
        self.assertIsNone(process.poll())
        self.assertEqual(self.server.image.read_bytes()[4096:8192], b"y" * 4096)
        self.assertEqual(self.tool_status()["timeline"], before["timeline"])
        self.assertEqual([p.name for p in self.server.state.glob("restore*")], ["restore.lock"])

    def test_a_pipe_without_a_writer_is_given_up(self):
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        tool("checkpoint", self.server.image, "--attach", f"x={fifo}", "--timeout", 2,
             expect=FAILED, timeout=30)

    def test_the_volume_s_own_files_are_not_replaced(self):
        tool("checkpoint", self.server.image, *self.both())
        before = self.server.image.stat().st_ino
        for own in (self.server.image, "/dev/null", self.folder):
            tool("export", self.server.image, "last", own, "--attachment", "state", "--force",
                 expect=USAGE)
        tool("export", self.server.image, "last", self.folder / "x", "--attachment", "",
             expect=USAGE)
        self.assertEqual(self.server.image.stat().st_ino, before)
        self.assertTrue(Path("/dev/null").is_char_device())

    def test_a_file_that_is_there_is_not_replaced(self):
        tool("checkpoint", self.server.image, *self.both())
        out = self.folder / "mine"
        out.write_text("precious")
        answer = tool("export", self.server.image, "last", out, "--attachment", "state",
                      expect=FAILED)
        self.assertIn("--force", answer.message)
        self.assertEqual(out.read_text(), "precious")
        tool("export", self.server.image, "last", out, "--attachment", "state", "--force")
        self.assertEqual(out.read_bytes(), self.state.read_bytes())

    def export_until_halfway(self, out):
        """A copy of `large` to `out`, stopped before it has its name, or None where it was too fast."""
        process = subprocess.Popen([build() / "tools" / "ckpt-tool", "export", self.server.image,
                                    "last", out, "--attachment", "large"],
                                   stdout=subprocess.DEVNULL)
        eventually(lambda: process.poll() is not None or self.unnamed_files(process), "it copies")
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: process.poll() is not None or self.is_stopped(process), "it stops")
        if process.poll() is None and not out.exists():
            return process
        process.kill()
        process.wait()
        out.unlink(missing_ok=True)
        return None

    @staticmethod
    def is_stopped(process):
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def unnamed_files(self, process):
        """Those that the process has open in the folder of this test."""
        found = []
        for fd in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                target = os.readlink(fd)
            except FileNotFoundError:
                continue
            if target.startswith(f"{self.folder}/#") and target.endswith(" (deleted)"):
                found.append(target)
        return found

    def test_a_copy_that_is_interrupted_leaves_nothing(self):
        # Large enough to be seen while it is copied.
        large = self.folder / "large"
        large.write_bytes(os.urandom(64 * MIB))
        tool("checkpoint", self.server.image, "--attach", f"large={large}")
        before = sorted(self.folder.iterdir())
        out = self.folder / "x"
        attempts = (self.export_until_halfway(out) for _ in range(50))
        process = next((one for one in attempts if one is not None), None)
        self.assertIsNotNone(process, "it was never seen with a file without a name")
        process.kill()
        self.assertNotEqual(process.wait(), 0)
        self.assertEqual(sorted(self.folder.iterdir()), before)


class BehindBackupd(Embedded):
    def prepare(self):
        self.backupd = self.keep("--silence=2")

    def attachments_folder(self):
        return self.backupd.folder_of(self.server) / "attachments"

    def test_the_store_alone_gives_them(self):
        tool("checkpoint", self.server.image, *self.both())
        volume = self.tool_status()["volume"]
        self.server.stop()
        self.expect_whole(self.server.image)
        shutil.rmtree(self.server.state)
        self.expect_whole(f"{self.backupd.address}/{volume}")
        self.backupd.stop()
        self.expect_whole(self.backupd.store / volume)

    def test_a_store_that_is_lost_meanwhile(self):
        """Void, or confirmed; never half."""
        draw = random.Random(4)
        for _ in range(8):
            answers = []
            asked = threading.Thread(target=lambda: answers.append(
                tool("checkpoint", self.server.image, *self.both(), expect=None)))
            asked.start()
            time.sleep(draw.uniform(0, 0.3))
            self.backupd.kill9()
            self.backupd.start()
            asked.join()
            if answers[0].code == OK:
                self.expect_whole(self.server.image)
        eventually(lambda: tool("checkpoint", self.server.image, *self.both(),
                                expect=None).code == OK, "a checkpoint")
        self.expect_whole(self.server.image)
        self.assertEqual(len(list(self.attachments_folder().iterdir())), 2)


if __name__ == "__main__":
    unittest.main()
