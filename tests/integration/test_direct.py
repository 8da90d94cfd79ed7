#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""direct=on, block devices as primaries, and no back-up at all: what holds for an image in a file
holds for these."""

import hashlib
import os
import random
import subprocess
import unittest

import test_basics
import test_kill
import test_rollback
from harness import BLOCK, MIB, UNKNOWN, Case, LoopDevice, ServerFailed, run, tool
from nbd_client import FUA, NbdClient

UNREACHABLE = 10


class OnDevices:
    """A loop device as the primary; the name of the image is a link to it."""

    def image(self, name="disk.img", size=64 * MIB, folder=None):
        return LoopDevice(self, name, size, folder or self.folder).link

    def serve(self, image, *parameters, **options):
        state = () if any(str(p).startswith("state=") for p in parameters) else (
            f"state={image}.ckpt",)
        return super().serve(image, *state, *parameters, **options)


class RollbackDirect(test_rollback.RollbackExact):
    io = "uring"
    extra = ("direct=on",)


class RollbackDirectSync(RollbackDirect):
    io = "sync"


class RollbackDirectXfs(RollbackDirect):
    file_system = "xfs"


class RollbackDevice(OnDevices, test_rollback.RollbackExact):
    pass


class RollbackDeviceDirect(OnDevices, RollbackDirect):
    pass


class BasicsDirect(test_basics.Basics):
    extra = ("direct=on",)


class KillDevice(OnDevices, test_kill.Kill):
    def setUp(self):
        super().setUp()
        self.kills //= 4


class Device(OnDevices, Case):
    def digest(self, path):
        return hashlib.sha1(path.read_bytes()).hexdigest()

    def scribble(self, server, seed):
        draw = random.Random(seed)
        with NbdClient(str(server.socket)) as client:
            for _ in range(20):
                length = draw.choice((1, 700, 4096, 70000))
                client.write(draw.randrange(client.size - length), draw.randbytes(length))
            client.flush()

    def changed(self, server):
        """How much counts as changed right after a start, before it was compared."""
        return self.status(server)["changed_bytes"]

    def settled(self, server):
        """Takes a checkpoint and waits until nothing counts as changed since."""
        answer = tool("checkpoint", server.image)
        tool("verify", server.image)
        return answer

    def test_its_state_must_be_elsewhere(self):
        image = self.image()
        with self.assertRaisesRegex(ServerFailed, "state="):
            Case.serve(self, image)

    def test_size_is_its_own(self):
        with self.assertRaisesRegex(ServerFailed, "size="):
            self.serve(self.image(), "size=8M")

    def test_a_mounted_device_is_refused_and_a_served_one_is_not_mounted(self):
        image = self.image()
        run("mkfs.ext4", "-q", image)
        folder = self.folder / "mnt"
        folder.mkdir()
        run("mount", os.path.realpath(image), folder)
        try:
            with self.assertRaisesRegex(ServerFailed, "in use"):
                self.serve(image)
        finally:
            run("umount", folder)
        self.serve(image)
        mount = subprocess.run(["mount", os.path.realpath(image), folder], check=False,
                               capture_output=True)
        self.assertNotEqual(mount.returncode, 0)

    def test_a_clean_stop_is_believed_within_a_boot(self):
        server = self.serve(self.image(), "batch-delay=1000000")
        self.scribble(server, 1)
        self.settled(server)
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"a" * BLOCK)
        server.stop()
        server.start()
        self.assertEqual(self.status(server)["changed_bytes"], BLOCK)

    def test_a_write_by_others_while_stopped_is_noticed(self):
        server = self.serve(self.image())
        self.scribble(server, 1)
        self.settled(server)
        before = self.digest(server.image)
        server.stop()
        with open(server.image, "r+b", buffering=0) as device:
            device.seek(5 * MIB + 3)
            device.write(b"not ours")
            os.fsync(device.fileno())
        server.start()
        self.assertNotEqual(self.digest(server.image), before)
        tool("rollback", server.image, "--yes")
        self.assertEqual(self.digest(server.image), before)

    def test_a_write_by_others_after_a_kill_is_noticed(self):
        server = self.serve(self.image())
        self.scribble(server, 1)
        self.settled(server)
        before = self.digest(server.image)
        self.scribble(server, 2)
        server.kill9()
        with open(server.image, "r+b", buffering=0) as device:
            device.seek(9 * MIB)
            device.write(b"not ours")
            os.fsync(device.fileno())
        server.start()
        tool("rollback", server.image, "--yes")
        self.assertEqual(self.digest(server.image), before)

    def test_another_device_of_the_same_name_is_noticed(self):
        server = self.serve(self.image())
        self.scribble(server, 1)
        self.settled(server)
        before = self.digest(server.image)
        server.stop()
        server.image.unlink()
        other = LoopDevice(self, "other.img", 64 * MIB, self.folder).link
        server.image.symlink_to(os.path.realpath(other))
        server.start()
        tool("rollback", server.image, "--yes")
        self.assertEqual(self.digest(server.image), before)


class Direct(Case):
    def test_every_alignment(self):
        draw = random.Random(7)
        for size in (8 * MIB, 8 * MIB + 1000):
            server = self.serve(self.image(f"{size}.img", size), "direct=on")
            model = bytearray(size)
            with NbdClient(str(server.socket)) as client:
                for _ in range(300):
                    length = draw.choice((1, 511, 512, 513, 4095, 4096, 4097, 70001, MIB))
                    offset = draw.randrange(size - length + 1)
                    content = draw.randbytes(length)
                    client.write(offset, content, draw.choice((0, FUA)))
                    model[offset:offset + length] = content
                self.assertEqual(client.read(0, size), model)
            server.stop()
            self.assertEqual(server.image.read_bytes(), model)

    def test_status_says_so(self):
        server = self.serve(self.image(), "direct=on")
        self.assertIn("direct", self.status(server)["io"])

    def test_a_file_system_without_it_says_so(self):
        """ext4 has none while it keeps a journal of data."""
        backing = self.image("journalled.fs", 64 * MIB)
        run("mkfs.ext4", "-q", backing)
        run("tune2fs", "-o", "journal_data", backing)
        place = self.folder / "journalled"
        place.mkdir()
        run("mount", "-o", "loop", backing, place)
        self.addCleanup(subprocess.run, ["umount", str(place)], check=False)
        image = self.image(size=8 * MIB, folder=place)
        self.assertIn("direct=off", self.serve(image, "direct=on", start=False).refusal())
        self.serve(image)


class NoBackup(Case):
    def test_serves_and_keeps_account_and_says_that_there_is_no_back_up(self):
        server = self.serve(self.image(), "backup=none")
        with NbdClient(str(server.socket)) as client:
            client.write(MIB, b"x" * BLOCK)
            self.assertEqual(client.read(MIB, BLOCK), b"x" * BLOCK)
        status = self.status(server)
        self.assertIsNone(status["backup"])
        self.assertFalse(status["protected"])
        self.assertEqual(status["changed_bytes"], BLOCK)
        for command in ("checkpoint", "verify", "list"):
            answer = tool(command, server.image, expect=UNREACHABLE)
            self.assertIn("backup=none", answer.message)
        tool("rollback", server.image, "--yes", expect=UNREACHABLE)

    def test_a_while_without_it_changes_nothing_for_later(self):
        server = self.serve(self.image())
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"a" * MIB)
        tool("checkpoint", server.image)
        server.stop()
        before = server.image.read_bytes()
        server.parameters = ("backup=none",)
        server.start()
        with NbdClient(str(server.socket)) as client:
            client.write(3, b"b" * MIB)
        server.kill9()
        server.start()
        server.stop()
        server.parameters = ()
        server.start()
        tool("rollback", server.image, "--yes")
        self.assertEqual(server.image.read_bytes(), before)

    def test_checkpoints_by_themselves_need_one(self):
        with self.assertRaisesRegex(ServerFailed, "checkpoint-interval"):
            self.serve(self.image(), "backup=none", "checkpoint-interval=5")


if __name__ == "__main__":
    unittest.main()
