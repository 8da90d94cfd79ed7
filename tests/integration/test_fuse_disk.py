#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A volume's disk as what nbdfuse serves, below a loop device: where the kernel has no NBD client.
`rollback --fs` takes it down and brings it up again, and `run` makes it. What CRIU does there is
for a guest."""

import contextlib
import os
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

from harness import BUSY, FAILED, MIB, TIMEOUT, USAGE, Case, build, eventually, run, tool

UNREACHABLE = 10
SIZE = 64 * MIB
OURS = Path("/run/ckpt-tool")


def loops_upon(file):
    """The loop devices that this file is below."""
    found = []
    for name in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if name.read_text().strip() == str(file):
                found.append(f"/dev/{name.parts[3]}")
    return found


def servers_of(file):
    """The nbdfuse processes that serve this file; those that have ended have no words."""
    found = []
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            text = words.read_bytes().split(b"\0")
            if text[0].endswith(b"nbdfuse") and str(file).encode() in text:
                found.append(int(words.parts[2]))
    return found


def undo(file):
    """Whatever is left of a disk."""
    for loop in loops_upon(file):
        subprocess.run(["losetup", "-d", loop], check=False)
    eventually(lambda: not loops_upon(file), "the loop devices go")
    subprocess.run(["fusermount3", "-u", "-z", file], check=False, capture_output=True)


class FuseCase(Case):
    def setUp(self):
        super().setUp()
        if Path("/sys/module/nbd").exists():
            self.fail("this kernel has an NBD client, and nbdfuse would not be used")
        self.server = self.serve_file_system("disk.img")
        self.mount = self.folder / "mnt"
        self.mount.mkdir()
        self.volume = self.status(self.server)["volume"]
        self.addCleanup((OURS / self.volume).unlink, missing_ok=True)
        self.addCleanup(undo, OURS / self.volume)
        self.addCleanup(subprocess.run, ["umount", "-q", self.mount], check=False)

    def serve_file_system(self, name, copy_of=None):
        image = self.image(name, SIZE)
        if copy_of:
            shutil.copyfile(copy_of, image)
        else:
            run("mkfs.ext4", "-q", "-F", image)
        server = self.serve(image)
        eventually(lambda: self.status(server)["protected"], "the first copy")
        return server

    @property
    def text(self):
        return self.mount / "text"


class ByHand(FuseCase):
    """As docs/kernel-mount.md says."""

    def setUp(self):
        super().setUp()
        self.file = self.folder / "disk"

    def attach(self, server=None, mode="unix", image=None, options="noatime"):
        """Serves and mounts it."""
        server = server or self.server
        modes = {"unix": ["--unix", server.socket], "uri": [server.uri]}
        if not image:
            self.file.write_text("what it covers")
            process = subprocess.Popen(["nbdfuse", self.file, *modes[mode]])
            self.addCleanup(process.wait)
        self.addCleanup(undo, image or self.file)
        self.addCleanup(subprocess.run, ["umount", "-q", self.mount], check=False)
        eventually(lambda: (image or self.file).stat().st_size == SIZE, "nbdfuse serves")
        loop = run("losetup", "--find", "--show", "--partscan", image or self.file).strip()
        run("mount", "-o", options, loop, self.mount)
        return loop

    def checkpoint_then_change(self):
        self.text.write_text("before")
        os.sync()
        tool("checkpoint", self.server.image)
        self.text.write_text("after")
        (self.mount / "later").touch()

    def rollback(self, **options):
        return tool("rollback", self.server.image, "--yes", "--fs", self.mount, **options)

    def refused(self, expect, *texts):
        """It says these, and the disk is as it was."""
        before = servers_of(self.file), loops_upon(self.file)
        answer = self.rollback(expect=expect)
        for text in texts:
            self.assertIn(text, answer.message)
        self.assertEqual((servers_of(self.file), loops_upon(self.file)), before)
        self.assertEqual(self.text.read_text(), "after")

    def test_rollback_below_a_mount(self):
        for mode in "unix", "uri":
            with self.subTest(mode):
                loop = self.attach(mode=mode)
                self.checkpoint_then_change()
                served = servers_of(self.file)
                self.rollback()
                self.assertEqual(self.text.read_text(), "before")
                self.assertFalse((self.mount / "later").exists())
                self.assertEqual(loops_upon(self.file), [loop])
                self.assertEqual(len(servers_of(self.file)), 1)
                self.assertNotEqual(servers_of(self.file), served, "its cache is gone")
                self.assertIn("noatime", run("findmnt", "-no", "OPTIONS", self.mount))
                self.text.write_text("it can be written")
                run("umount", self.mount)
                undo(self.file)
                eventually(lambda: not servers_of(self.file), "nbdfuse ends")
                self.assertEqual(self.file.read_text(), "what it covers")

    # Found out only when the file system is unmounted: it is mounted again. The partitions are made
    # by hand, since not every kernel reads tables of them.
    def test_another_partition_is_in_use(self):
        loop = self.attach()
        run("umount", self.mount)
        half = SIZE // 2 // 512
        run("addpart", loop, 1, 0, half)
        run("addpart", loop, 2, half, half)
        run("mkfs.ext4", "-q", "-F", f"{loop}p1")
        run("mount", f"{loop}p1", self.mount)
        self.checkpoint_then_change()
        with open(os.open(f"{loop}p2", os.O_RDONLY | os.O_EXCL), "rb"):
            self.refused(BUSY, f"{loop} is still in use")

    def test_space_that_is_free_goes_back_to_the_image(self):
        self.attach()
        with open(self.mount / "large", "wb") as file:
            file.write(os.urandom(16 * MIB))
        os.sync()
        full = self.server.image.stat().st_blocks
        (self.mount / "large").unlink()
        os.sync()
        run("fstrim", self.mount)
        self.assertLess(self.server.image.stat().st_blocks, full - 8 * MIB // 512)

    def test_who_uses_the_mount_is_named(self):
        self.attach()
        self.checkpoint_then_change()
        with open(self.text, "rb"):
            self.refused(BUSY, f"process {os.getpid()}", str(self.text), "nothing was done")

    @contextlib.contextmanager
    def in_another_mount_namespace(self, script):
        """The number of a process there, which has run this script with sh first."""
        told = self.folder / "told"
        process = subprocess.Popen(["unshare", "--mount", "sh", "-c",
                                    f"{script} && echo >{told} && exec sleep 1000"])
        try:
            eventually(told.exists, "the process in another mount namespace")
            yield process.pid
        finally:
            process.kill()
            process.wait()
            told.unlink()

    # Its copy of the mount keeps the file system in use. What it has open shows in /proc here.
    def test_who_holds_the_mount_in_another_mount_namespace_is_named(self):
        self.attach()
        self.checkpoint_then_change()
        with self.in_another_mount_namespace("true") as pid:
            self.refused(BUSY, f"the mount at {self.mount} in the mount namespace of process {pid} "
                               "(sleep)")
        with self.in_another_mount_namespace(f"exec 3<{self.text}") as pid:
            self.refused(BUSY, f"process {pid} (sleep) has {self.text}", "nothing was done")
        self.rollback()
        self.assertEqual(self.text.read_text(), "before")

    # Where its file system is mounted at another place, which this namespace does not have.
    def test_a_mount_that_only_another_namespace_has_is_named(self):
        loop = self.attach()
        self.checkpoint_then_change()
        other = self.folder / "other"
        other.mkdir()
        with self.in_another_mount_namespace(f"mount {loop} {other} && umount {self.mount}") as pid:
            self.refused(BUSY, f"the mount at {other} in the mount namespace of process {pid} "
                               "(sleep)")
        self.rollback()
        self.assertEqual(self.text.read_text(), "before")

    def test_who_uses_the_file_is_named(self):
        self.attach()
        self.checkpoint_then_change()
        with open(self.file, "rb"):
            self.refused(BUSY, f"process {os.getpid()}", str(self.file), "nothing was done")

    def test_another_loop_device_is_named(self):
        self.attach()
        self.checkpoint_then_change()
        other = run("losetup", "--find", "--show", self.file).strip()
        self.refused(BUSY, f"losetup --detach {other}", "nothing was done")

    def test_the_device_is_open_elsewhere(self):
        loop = self.attach()
        self.checkpoint_then_change()
        with open(loop, "rb"):
            self.refused(TIMEOUT, f"{loop} is still there after 10 s: something has it open")

    def test_it_is_also_mounted_elsewhere(self):
        loop = self.attach()
        self.checkpoint_then_change()
        other = self.folder / "other"
        other.mkdir()
        run("mount", loop, other)
        self.addCleanup(run, "umount", other)
        self.refused(USAGE, str(other))

    def test_a_file_that_nobody_serves_is_refused(self):
        copy = self.folder / "copy.img"
        shutil.copyfile(self.server.image, copy)
        self.attach(image=copy)
        self.checkpoint_then_change()
        self.refused(USAGE, "no loop device of what nbdfuse serves")

    def test_a_file_in_a_folder_of_nbdfuse_is_refused(self):
        served = self.folder / "served"
        served.mkdir()
        process = subprocess.Popen(["nbdfuse", served, "--unix", self.server.socket])
        self.addCleanup(process.wait)
        self.addCleanup(run, "fusermount3", "-u", "-z", served)
        eventually((served / "nbd").exists, "nbdfuse serves")
        self.attach(image=served / "nbd")
        self.checkpoint_then_change()
        self.refused(USAGE, "nbdfuse FILE URI")

    # Its content is the same, down to the file system's identity.
    def test_the_disk_of_another_volume_is_refused(self):
        twin = self.serve_file_system("twin.img", copy_of=self.server.image)
        self.attach(twin, options="ro")
        refused = self.rollback(expect=USAGE)
        self.assertIn(self.status(twin)["volume"], refused.message)
        self.assertTrue(os.path.ismount(self.mount))
        process = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        refused = tool("checkpoint", self.server.image, "--criu", process.pid, "--fs", self.mount,
                       expect=None)
        self.assertIn(self.status(twin)["volume"], refused.message)

    def test_a_server_that_is_gone(self):
        self.attach()
        self.checkpoint_then_change()
        self.server.kill9()
        self.rollback(expect=UNREACHABLE)
        for pid in servers_of(self.file):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not servers_of(self.file), "nbdfuse ends")
        self.assertIn(f"fusermount3 -u {self.file}", self.rollback(expect=UNREACHABLE).message)
        run("umount", self.mount)


class Run(FuseCase):
    def words(self, *words):
        return ["run", self.server.image, "--fs", self.mount, *words]

    def run_shell(self, script, *words, **options):
        return tool(*self.words(*words), "--", "sh", "-c", script, **options)

    def check_is_down(self):
        self.assertFalse(os.path.ismount(self.mount))
        self.assertEqual(loops_upon(OURS / self.volume), [])
        self.assertEqual(servers_of(OURS / self.volume), [])
        self.assertFalse((OURS / self.volume).exists())
        eventually(lambda: self.status(self.server)["connections"] == 0, "its connection ends")

    def test_a_command_that_fails_finds_the_disk_of_its_start(self):
        found = self.folder / "found"
        self.run_shell(f"ls {self.mount} >>{found}; echo x >{self.text}; exit 3", "--retries", "1",
                       expect=FAILED)
        self.assertEqual(found.read_text(), "lost+found\n" * 2)
        self.check_is_down()

    def test_what_a_command_has_written_stays(self):
        self.run_shell(f"echo kept >{self.text}")
        self.check_is_down()
        found = self.folder / "found"
        self.run_shell(f"cat {self.text} >{found}")
        self.assertEqual(found.read_text(), "kept\n")

    @contextlib.contextmanager
    def running(self, *words):
        """One whose command runs, and has written."""
        command = [build() / "tools/ckpt-tool", *self.words(*words), "--", "sh", "-c",
                   f"echo x >{self.text}; exec sleep 1000"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as runner:
            try:
                root = Path(f"{self.server.image}.ckpt/run/root")
                eventually(lambda: root.exists() and self.text.exists(), "its start")
                yield runner
            finally:
                runner.kill()

    # As systemd does with all processes of a service.
    def test_who_ends_all_processes_does_not_end_the_disk(self):
        with self.running() as runner:
            for pid in servers_of(OURS / self.volume):
                os.kill(pid, signal.SIGTERM)
            runner.send_signal(signal.SIGTERM)
            self.assertEqual(runner.wait(60), 0)
        self.check_is_down()
        self.run_shell(f"test $(cat {self.text}) = x")

    def test_run_was_killed(self):
        with self.running() as runner:
            runner.kill()
        self.assertEqual(len(servers_of(OURS / self.volume)), 1, "it outlives the tool")
        self.run_shell(f"! test -e {self.text}", "--resume")
        self.assertTrue(os.path.ismount(self.mount), "it was mounted before")

    # As after a loss of power, but that the kernel still has what there was.
    def test_what_is_left_of_a_dead_server(self):
        with self.running() as runner:
            runner.kill()
        self.end_command()
        self.server.kill9()
        self.server.start()
        run("umount", self.mount)
        self.run_shell(f"! test -e {self.text}", "--resume")
        self.check_is_down()

    def end_command(self):
        root = int(Path(f"{self.server.image}.ckpt/run/root").read_text().split()[0])
        os.kill(root, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{root}/exe").exists(), "it has ended")

    def test_a_dead_nbdfuse(self):
        with self.running() as runner:
            runner.send_signal(signal.SIGTERM)
            runner.wait(60)
        OURS.mkdir(exist_ok=True)
        (OURS / self.volume).touch()
        process = subprocess.Popen(["nbdfuse", OURS / self.volume, self.server.uri])
        eventually(lambda: (OURS / self.volume).stat().st_size, "nbdfuse serves")
        process.kill()
        process.wait()
        self.run_shell("true")
        self.check_is_down()


if __name__ == "__main__":
    unittest.main()
