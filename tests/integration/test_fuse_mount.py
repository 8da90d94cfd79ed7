#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Mounts of a volume's disk on a kernel without an NBD client: nbdfuse and a loop device below them. What
CRIU does is not here: the guests have that."""

import os
import signal
import subprocess
import unittest

from harness import BUSY, FAILED, MIB, USAGE, Case, build, eventually, run, tool


class FuseMount(Case):
    def setUp(self):
        super().setUp()
        if os.path.exists("/sys/block/nbd0"):
            self.fail("this kernel has an NBD client, and nbdfuse would not be used")
        image = self.image(size=64 * MIB)
        run("mkfs.ext4", "-q", "-F", image)
        self.server = self.serve(image)
        eventually(lambda: self.status(self.server)["protected"], "the first copy")
        self.mount = self.folder / "mnt"
        self.mount.mkdir()
        self.disk = f"{image}.ckpt/run/disk"
        self.addCleanup(self.take_down)

    def take_down(self):
        subprocess.run(["umount", self.mount], check=False, capture_output=True)
        for loop in self.loops():
            subprocess.run(["losetup", "-d", loop], check=False, capture_output=True)
        subprocess.run(["umount", self.disk], check=False, capture_output=True)

    def loops(self, file=None):
        return run("losetup", "--list", "--noheadings", "--output", "NAME", "--associated",
                   file or self.disk).split()

    def words(self, *words):
        return ["run", self.server.image, "--fs", self.mount, *words]

    def start_nbdfuse(self, path, server):
        process = subprocess.Popen(["nbdfuse", path, "--unix", server.socket])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(subprocess.run, ["umount", "--lazy", path], check=False, capture_output=True)

    # As somebody does it by hand.
    def attach(self, server=None):
        file = self.folder / "by-hand"
        file.write_text("what it covers")
        self.start_nbdfuse(file, server or self.server)
        eventually(lambda: file.stat().st_size == 64 * MIB, "nbdfuse")
        loop = run("losetup", "--find", "--show", file).strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", loop], check=False, capture_output=True)
        run("mount", loop, self.mount)
        self.addCleanup(subprocess.run, ["umount", self.mount], check=False, capture_output=True)
        return file, loop

    def check_is_down(self):
        self.assertFalse(os.path.ismount(self.mount))
        self.assertEqual(self.loops(), [])
        self.assertFalse(os.path.exists(self.disk))
        self.assertEqual(self.status(self.server)["connections"], 0)

    def test_run_mounts_the_disk_and_goes_back(self):
        found, text = self.folder / "found", self.mount / "text"
        tool(*self.words("--retries", "1"), "--", "sh", "-c",
             f"cat {text} >>{found} 2>&1; echo after >{text}; exit 3", expect=FAILED)
        self.assertEqual(found.read_text().count("No such file"), 2, found.read_text())
        self.check_is_down()

    def test_run_keeps_what_the_command_has_written(self):
        tool(*self.words(), "--", "sh", "-c", f"echo kept >{self.mount}/text")
        self.check_is_down()
        found = self.folder / "found"
        tool(*self.words(), "--", "sh", "-c", f"cat {self.mount}/text >{found}")
        self.assertEqual(found.read_text(), "kept\n")

    def test_resume_after_run_was_killed(self):
        command = [build() / "tools/ckpt-tool", *self.words(), "--", "sleep", "1000"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as runner:
            eventually(lambda: os.path.ismount(self.mount) and self.has_base(), "its start")
            runner.send_signal(signal.SIGKILL)
        (self.mount / "later").write_text("x")
        tool(*self.words("--resume"), "--", "sh", "-c", f"! test -e {self.mount}/later")
        self.assertTrue(os.path.ismount(self.mount), "it was mounted before")

    def has_base(self):
        return os.path.exists(f"{self.server.image}.ckpt/run/root")

    def test_rollback_below_a_mount(self):
        file, loop = self.attach()
        text = self.mount / "text"
        text.write_text("before")
        os.sync()
        tool("checkpoint", self.server.image)
        text.write_text("after")
        tool("rollback", self.server.image, "--yes", "--fs", self.mount)
        self.assertEqual(text.read_text(), "before")
        self.assertEqual(self.loops(file), [loop])
        text.write_text("it can be written")
        run("umount", self.mount)
        run("losetup", "-d", loop)
        run("umount", file)
        self.assertEqual(file.read_text(), "what it covers")

    def test_a_file_in_a_folder_of_nbdfuse_is_refused(self):
        served = self.folder / "served"
        served.mkdir()
        self.start_nbdfuse(served, self.server)
        eventually((served / "nbd").exists, "nbdfuse")
        loop = run("losetup", "--find", "--show", served / "nbd").strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", loop], check=False, capture_output=True)
        run("mount", loop, self.mount)
        self.addCleanup(subprocess.run, ["umount", self.mount], check=False, capture_output=True)
        refused = tool("rollback", self.server.image, "--yes", "--fs", self.mount, expect=USAGE)
        self.assertIn("give it a file instead", refused.message)

    def test_who_uses_it_is_named(self):
        file, loop = self.attach()
        with open(self.mount / "open", "w", encoding="utf-8") as held:
            refused = tool("rollback", self.server.image, "--yes", "--fs", self.mount, expect=BUSY)
            self.assertIn(f"process {os.getpid()}", refused.message)
            held.write("it is still mounted")
        self.assertEqual(self.loops(file), [loop])

    def test_the_loop_device_of_another_file_is_refused(self):
        other = self.image("other.img")
        run("mkfs.ext4", "-q", "-F", other)
        loop = run("losetup", "--find", "--show", other).strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", loop], check=False, capture_output=True)
        run("mount", loop, self.mount)
        refused = tool("rollback", self.server.image, "--yes", "--fs", self.mount, expect=USAGE)
        self.assertIn("no NBD device of this volume's size", refused.message)

    def test_the_disk_of_another_volume_is_refused(self):
        other = self.image("other.img")
        run("mkfs.ext4", "-q", "-F", other)
        self.attach(self.serve(other))
        refused = tool("rollback", self.server.image, "--yes", "--fs", self.mount, expect=USAGE)
        self.assertIn("they have other content", refused.message)
        self.assertTrue(os.path.ismount(self.mount))


if __name__ == "__main__":
    unittest.main()
