#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every command of the tool with a volume that is missing, none, stopped, corrupt or another's: a
clear answer, and nothing is lost. Odd names of checkpoints, and paths longer than a socket's."""

import hashlib
import json
import os
import shutil
import subprocess
import unittest
from pathlib import Path

from harness import (BLOCK, DEGRADED, FAILED, MIB, OK, UNKNOWN, USAGE, Case, build, eventually,
                     tool)
from nbd_client import NbdClient

# What each needs after VOLUME. Those of the second row change something when all is well.
LOOKING = {"status": [], "list": [], "show": ["last"], "verify": [], "metrics": [], "report": [],
           "export": ["last", "copy.raw"]}
CHANGING = {"checkpoint": [], "rollback": ["--yes"], "accept": [], "forget": ["--yes"]}
COMMANDS = {**LOOKING, **CHANGING}


class BadVolumes(Case):
    def call(self, command, volume, *words):
        """One command, as a script would."""
        done = subprocess.run([build() / "tools/ckpt-tool", "--json", command, volume, *words,
                               *COMMANDS[command]], cwd=self.folder, capture_output=True, text=True,
                              timeout=120, stdin=subprocess.DEVNULL)
        self.assertGreaterEqual(done.returncode, 0, f"{command}: a signal: {done.stderr}")
        return done

    def error(self, command, volume, *words):
        done = self.call(command, volume, *words)
        self.assertNotEqual(done.returncode, OK, f"{command}: {done.stdout}")
        answer = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual((answer["type"], answer["exit_code"]), ("error", done.returncode), command)
        self.assertTrue(answer["message"], command)
        return answer

    def refusal(self, image, *parameters):
        """What a server says that must not start."""
        return self.serve(image, *parameters, start=False).refusal()

    def stopped(self, name="disk.img", text=b"kept"):
        """A volume with a checkpoint, applied, whose server has stopped."""
        server = self.serve(self.image(name, size=4 * MIB))
        with NbdClient(str(server.socket)) as client:
            client.write(0, text * 1024)
        tool("checkpoint", server.image)
        eventually(lambda: self.is_applied(server), "the checkpoint is applied")
        server.stop()
        return server

    @staticmethod
    def is_applied(server):
        backup = server.control("status")["backup"]
        return backup["applied"] == backup["confirmed"]

    def content(self, pattern="*.img"):
        """Of images and back-up images. What ckpt notes beside them, a command may bring up to date
        before it finds that it cannot go on."""
        return {path: hashlib.sha1(path.read_bytes()).hexdigest()
                for path in sorted(self.folder.rglob(pattern)) if path.is_file()}

    def test_missing(self):
        for command in COMMANDS:
            answer = self.error(command, self.folder / "nowhere.img")
            self.assertEqual(answer["exit_code"], UNKNOWN, command)
            self.assertIn("nowhere.img", answer["message"])
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_an_image_that_never_was_served(self):
        image = self.image(size=MIB)
        for command in COMMANDS:
            answer = self.error(command, image)
            self.assertEqual(answer["exit_code"], UNKNOWN, command)
            self.assertIn("nbdkit ckpt", answer["message"], command)
        self.assertEqual(list(self.folder.iterdir()), [image])

    def test_folders_and_files_that_are_no_volume(self):
        (self.folder / "folder").mkdir()
        (self.folder / "folder/file").write_text("something else")
        (self.folder / "text.img.ckpt").write_text("not a state directory")
        (self.folder / "text.img").write_text("an image of 14 bytes")
        before = self.content("*")
        for command in COMMANDS:
            self.assertIn("folder", self.error(command, self.folder / "folder")["message"])
            self.assertIn("text.img", self.error(command, self.folder / "text.img")["message"])
        self.assertEqual(self.content("*"), before)

    def test_stopped(self):
        server = self.stopped()
        for command in COMMANDS:
            if command != "forget":
                self.assertEqual(self.call(command, server.image).returncode, OK, command)
        self.assertEqual((self.folder / "copy.raw").read_bytes(), server.image.read_bytes())
        self.assertEqual(self.call("forget", server.image).returncode, OK)
        self.assertFalse(server.state.exists())
        self.assertEqual(server.image.read_bytes()[:4], b"kept")

    def test_corrupt(self):
        server = self.stopped()
        telling = ("status", "metrics", "report")
        failing = [command for command in COMMANDS if command not in (*telling, "forget")]
        for damaged, damage, wrong in (
                ("volume", lambda path: path.write_bytes(b"x" * 65536), "has 65536 bytes"),
                ("volume", lambda path: os.truncate(path, 100), "has 100 bytes"),
                ("store/volume", lambda path: path.write_bytes(b"y" * 65536), "has 65536 bytes"),
                ("store/volume", lambda path: path.unlink(), "No such file|is missing")):
            with self.subTest(damaged=damaged, wrong=wrong):
                path = server.state / damaged
                whole = path.read_bytes()
                damage(path)
                before = self.content()
                for command in failing:
                    self.expect_named(self.error(command, server.image)["message"], path, wrong)
                for command in telling:
                    if damaged == "volume":
                        self.expect_named(self.error(command, server.image)["message"], path, wrong)
                    else:
                        self.expect_told(command, server, path, wrong)
                self.expect_doctor_finds(server, path, wrong)
                after = self.content()
                path.write_bytes(whole)
                self.assertEqual(after, before)
        self.assertEqual(tool("list", server.image)["checkpoints"][0]["checkpoint"], 2)

    def expect_named(self, message, path, wrong):
        self.assertIn(str(path.parent), message)
        self.assertRegex(message, wrong)

    def expect_told(self, command, server, path, wrong):
        """What is known of the primary, and that its back-up cannot be used."""
        told = tool(command, server.image)
        if command == "metrics":
            self.expect_metrics(told, server.image, up=0, protected=0, size_bytes=4 * MIB)
            return
        status = told["status"] if command == "report" else told.last
        self.assertEqual((status["state"], status["protected"], status["backup"]["state"]),
                         ("stopped", False, "failed"), command)
        self.assertEqual(status["last_checkpoint"]["checkpoint"], 2)
        self.expect_named(status["backup"]["error"], path, wrong)

    def expect_metrics(self, told, image, **values):
        for name, value in values.items():
            self.assertIn(f'ckpt_{name}{{image="{image}"}} {value}\n', told["text"])

    def expect_doctor_finds(self, server, path, wrong):
        # Whether nbdkit finds a plugin that was installed is another matter.
        bad = [check for check in tool("doctor", server.image, expect=DEGRADED)["checks"]
               if not check["ok"] and check["name"] != "plugin"]
        self.assertEqual([check["name"] for check in bad], ["server"])
        self.expect_named(bad[0]["detail"], path, wrong)
        self.assertNotEqual(bad[0]["advice"], "")

    def test_a_state_directory_without_its_record(self):
        server = self.stopped()
        record = server.state / "volume"
        record.rename(self.folder / "kept")
        before = self.content("disk.img*")
        advice = f"ckpt-tool export {server.state}/store last NEW.img"
        for parameters in ((), ("size=4M",), ("backup=none",)):
            self.assertIn(advice, self.refusal(server.image, *parameters))
        for command in COMMANDS:
            self.assertIn(advice, self.error(command, server.image)["message"], command)
            self.assertIn(advice, self.error(command, server.state)["message"], command)
        self.assertIn(advice, str(tool("doctor", server.image, expect=DEGRADED)["checks"]))
        self.assertEqual(self.content("disk.img*"), before)
        server.image.unlink()
        self.assertIn(advice, self.refusal(server.image, "size=4M"))
        self.assertFalse(server.image.exists())
        tool("export", server.state / "store", "last", self.folder / "new.raw")
        self.assertEqual((self.folder / "new.raw").read_bytes()[:4], b"kept")

    def test_a_damaged_record(self):
        server = self.stopped()
        for damage in (lambda path: os.truncate(path, 100),
                       lambda path: path.write_bytes(b"x" * path.stat().st_size)):
            whole = (server.state / "volume").read_bytes()
            damage(server.state / "volume")
            message = server.refusal()
            self.assertIn(f"export {server.state}/store last NEW.img", message)
            self.assertIn(f"{server.state}/volume", message)
            (server.state / "volume").write_bytes(whole)
        server.start()

    def test_an_image_that_is_gone_or_of_another_size(self):
        server = self.stopped()
        os.truncate(server.image, MIB)
        self.assertIn("1048576 bytes, and the disk 4194304",
                      tool("status", server.image)["problem"])
        server.image.unlink()
        self.assertIn("--rebuild", tool("status", server.image)["problem"])
        self.assertIn("--rebuild", tool("doctor", server.image, expect=UNKNOWN).message)
        tool("rollback", server.image, "--rebuild", "--yes")
        self.assertEqual(tool("status", server.image)["problem"], "")

    def test_two_images(self):
        one, other = self.image("one.img", size=MIB), self.image("other.img", size=MIB)
        message = self.refusal(one, str(other))
        self.assertIn("one.img", message)
        self.assertIn("other.img", message)
        self.assertFalse((self.folder / "other.img.ckpt").exists())

    def test_the_state_of_another(self):
        one, other = self.stopped("one.img", b"one."), self.stopped("other.img", b"else")
        shutil.rmtree(one.state)
        shutil.copytree(other.state, one.state)
        before = self.content()
        self.look_at_another(one)
        for name in ("one", "other"):  # which of the two the state is for makes no difference
            self.forget_copy(name)
        self.assertEqual(self.content(), before)
        one.start()  # notices, and compares every block: what is served is the image's own
        tool("checkpoint", one.image)
        self.assertEqual(tool("verify", one.image)["mismatched_bytes"], 0)
        tool("rollback", one.image, "--yes")
        with NbdClient(str(one.socket)) as client:
            self.assertEqual(client.read(0, 4096), b"one." * 1024)

    def look_at_another(self, one):
        """All that the state says is true of the disk that it is of."""
        for told in (tool("status", one.image).last, tool("report", one.image)["status"]):
            self.assertEqual((told["state"], told["protected"], told["image"]),
                             ("stopped", False, str(one.image)))
            self.assertEqual(told["last_checkpoint"]["checkpoint"], 2)
        self.assertEqual([kept["checkpoint"] for kept in tool("list", one.image)["checkpoints"]],
                         [2])
        self.assertEqual(tool("show", one.image, "last")["checkpoint"], 2)
        self.expect_metrics(tool("metrics", one.image), one.image, up=0, protected=0)
        verified = tool("verify", one.image)  # what is not the state's image has changed
        self.assertEqual((verified["mismatched_bytes"], verified["skipped_bytes"]), (0, BLOCK))
        tool("export", one.image, "last", self.folder / "copy.raw")
        self.assertEqual((self.folder / "copy.raw").read_bytes()[:BLOCK], b"else" * 1024)
        checks = {check["name"]: check for check in tool("doctor", one.image, expect=None)["checks"]}
        self.assertEqual({name for name, check in checks.items() if not check["ok"]} - {"plugin"}, set())
        self.assertIn(f"{one.state} on", checks["state-directory"]["detail"])

    def forget_copy(self, name):
        """Of image and state, both under another name."""
        copy = self.folder / "copy"
        shutil.copyfile(self.folder / f"{name}.img", copy)
        shutil.copytree(self.folder / f"{name}.img.ckpt", f"{copy}.ckpt")
        self.assertEqual(tool("forget", copy, "--yes")["left"], [])
        self.assertFalse(Path(f"{copy}.ckpt").exists())
        self.assertEqual(copy.read_bytes(), (self.folder / f"{name}.img").read_bytes())
        copy.unlink()

    def test_names(self):
        server = self.serve(self.image(size=MIB))
        for name in ("a b", "a/b", "../../etc/passwd", "-", "--name", "$(x)", "ä" * 127, "n" * 255,
                     "'\"\\"):
            tool("checkpoint", server.image, f"--name={name}")
            self.assertEqual(tool("show", server.image, "--", name)["name"], name)
        for name in ("a\nb", "\x1b[31m", "n" * 256, "n" * 1000, "12", "last", "0"):
            answer = self.error("checkpoint", server.image, f"--name={name}")
            self.assertIn("name", answer["message"])
            self.assertIn(answer["exit_code"], (FAILED, USAGE))
        self.assertEqual(len(list(self.folder.iterdir())), 3)  # image, state, log

    def test_a_path_longer_than_a_sockets(self):
        folder = self.folder / "/".join(["d" * 100] * 3)
        folder.mkdir(parents=True)
        server = self.serve(self.image(size=MIB), f"state={folder / 'state'}")
        tool("checkpoint", server.image, "--state", str(folder / "state"), "--name", "far")
        self.assertEqual(tool("status", folder / "state")["last_checkpoint"]["name"], "far")
        server.stop()
        there = tool("status", server.image, "--state", str(folder / "state"))
        self.assertEqual((there["state"], there["last_checkpoint"]["name"]), ("stopped", "far"))


if __name__ == "__main__":
    unittest.main()
