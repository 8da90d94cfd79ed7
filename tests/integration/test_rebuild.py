#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An image made anew from its back-up (rollback --rebuild), and the end of protection (forget)."""

import hashlib
import os
import random
import shutil
import unittest
from pathlib import Path

from harness import (BUSY, DEGRADED, MIB, UNKNOWN, USAGE, Case, LoopDevice, ServerFailed, run, tool)
from nbd_client import NbdClient


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


class RebuildCase(Case):
    def stopped(self, *parameters, image=None):
        """A stopped volume that has changed since its checkpoint; a copy of what it was then."""
        server = self.serve(image or self.image(size=32 * MIB), *parameters)
        draw = random.Random(1)
        truth = self.folder / "truth.raw"
        with NbdClient(str(server.socket)) as client:
            for _ in range(50):
                client.write(draw.randrange(client.size - 70000), draw.randbytes(70000))
            client.flush()
            tool("checkpoint", *self.naming(server), "--name", "kept")
            shutil.copyfile(server.image, truth)
            client.write(MIB, b"later" * 1000)
            client.flush()
        server.stop()
        return server, truth

    @staticmethod
    def naming(server):
        return (server.image, "--state", server.state)

    def assert_works(self, server, truth):
        """It is the checkpoint, and goes on from there."""
        self.assertEqual(digest(server.image), digest(truth))
        server.start()
        self.assertEqual(tool("verify", *self.naming(server))["mismatched_bytes"], 0)
        tool("checkpoint", *self.naming(server))
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"x" * MIB)
        tool("rollback", *self.naming(server), "--yes")
        self.assertEqual(digest(server.image), digest(truth))


class Rebuild(RebuildCase):
    def test_an_image_that_is_gone(self):
        server, truth = self.stopped()
        server.image.unlink()
        preview = tool("rollback", server.image, "--rebuild", "--dry-run")
        self.assertEqual(preview["restored_bytes"], 32 * MIB)
        self.assertFalse(server.image.exists())
        answer = tool("rollback", server.image, "kept", "--rebuild", "--yes")
        self.assertEqual(answer["checkpoint"], preview["checkpoint"])
        self.assertFalse(answer["fenced"])
        self.assert_works(server, truth)

    def test_an_image_that_was_damaged_behind_its_back(self):
        """As a failing disk does: no stamp tells."""
        server, truth = self.stopped()
        status = os.stat(server.image)
        with open(server.image, "r+b") as file:
            file.seek(5 * MIB)
            file.write(b"rot" * 4096)
        os.utime(server.image, ns=(status.st_atime_ns, status.st_mtime_ns))
        tool("rollback", server.image, "--rebuild", "--yes")
        self.assert_works(server, truth)

    def test_an_image_of_another_size(self):
        server, truth = self.stopped()
        os.truncate(server.image, MIB)
        tool("rollback", server.image, "--rebuild", "--yes")
        self.assert_works(server, truth)

    def test_holes_stay_holes(self):
        server = self.serve(self.image(size=32 * MIB))
        with NbdClient(str(server.socket)) as client:
            client.write(8 * MIB, b"x" * 65536)
        tool("checkpoint", server.image)
        server.stop()
        server.image.unlink()
        tool("rollback", server.image, "--rebuild", "--yes")
        self.assertLess(os.stat(server.image).st_blocks * 512, MIB)

    def test_a_device(self):
        device = LoopDevice(self, "disk", 32 * MIB, self.folder)
        server, truth = self.stopped(f"state={self.folder / 'state'}", image=device.link)
        run("dd", "if=/dev/urandom", f"of={device.device}", "bs=1M", "count=32", "status=none")
        tool("rollback", *self.naming(server), "--rebuild", "--yes")
        self.assertEqual(digest(device.device), digest(truth))

    def test_after_a_kill_clients_must_be_accepted(self):
        server, truth = self.stopped()
        server.start()
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"y" * MIB)
            server.kill9()
        server.image.unlink()
        self.assertTrue(tool("rollback", server.image, "--rebuild", "--yes")["fenced"])
        self.assertEqual(digest(server.image), digest(truth))
        server.start()
        self.assertEqual(tool("status", server.image)["state"], "fenced")
        tool("accept", server.image)

    def test_interrupted_before_the_image_is_written(self):
        """Where it stops half-way, what comes next goes on with it: an empty image is no disk."""
        server, truth = self.stopped()
        server.image.unlink()
        server.image.symlink_to(self.folder / "no" / "such" / "folder")
        self.assertIn("--rebuild", tool("rollback", server.image, "--rebuild", "--yes",
                                        expect=9).message)
        server.image.unlink()
        self.assertEqual(tool("status", server.image)["state"], "rolling-back")
        with open(server.image, "wb") as file:
            file.truncate(32 * MIB)
        server.start()
        self.assertEqual(digest(server.image), digest(truth))

    def test_while_a_server_runs(self):
        server, _ = self.stopped()
        server.start()
        message = tool("rollback", server.image, "--rebuild", "--yes", expect=BUSY).message
        self.assertIn("stop it", message)

    def test_what_cannot_be_rebuilt(self):
        server, _ = self.stopped()
        server.image.unlink()
        tool("rollback", server.image, "absent", "--rebuild", "--yes", expect=UNKNOWN)
        tool("rollback", server.image, "--rebuild", expect=USAGE)
        self.assertFalse(server.image.exists())
        fresh = self.serve(self.image("fresh.img", size=MIB))
        fresh.kill9()
        shutil.rmtree(fresh.state / "store")
        fresh.image.unlink()
        self.assertNotEqual(tool("rollback", fresh.image, "--rebuild", "--yes",
                                 expect=UNKNOWN).message, "")
        self.assertFalse(fresh.image.exists())

    def test_a_back_up_of_another_volume(self):
        server, _ = self.stopped()
        other = self.serve(self.image("other.img", size=32 * MIB))
        tool("checkpoint", other.image)
        other.stop()
        shutil.rmtree(server.state / "store")
        shutil.copytree(other.state / "store", server.state / "store")
        server.image.unlink()
        tool("rollback", server.image, "--rebuild", "--yes", expect=11)
        self.assertFalse(server.image.exists())


class Gone(RebuildCase):
    def test_a_start_does_not_make_an_empty_image(self):
        """Its next checkpoint would be the end of the last good one."""
        server, truth = self.stopped()
        server.image.unlink()
        with self.assertRaisesRegex(ServerFailed, "rebuild"):
            self.serve(server.image, "size=32M")
        self.assertFalse(server.image.exists())
        tool("rollback", server.image, "--rebuild", "--yes")
        self.assert_works(server, truth)


class Forget(RebuildCase):
    def test_nothing_but_the_image_is_left(self):
        server, _ = self.stopped()
        before = digest(server.image)
        answer = tool("forget", server.image, "--yes")
        self.assertEqual(answer["left"], [])
        self.assertFalse(server.state.exists())
        self.assertEqual(digest(server.image), before)
        tool("status", server.image, expect=UNKNOWN)
        server.start()
        tool("checkpoint", server.image)

    def test_after_a_kill_the_written_maps_go_too(self):
        server, _ = self.stopped()
        server.start()
        maps = self.maps_of(server.process.pid)
        self.assertEqual(len(maps), 1)
        server.kill9()
        self.assertTrue(maps[0].exists())
        tool("forget", server.image, "--yes")
        self.assertFalse(maps[0].exists())

    def maps_of(self, process):
        """The files that it has mapped in the folder of written maps; other servers have theirs."""
        folder = self.maps_folder()
        with open(f"/proc/{process}/maps", encoding="utf-8") as lines:
            paths = {line.split(maxsplit=5)[5].strip() for line in lines if folder + "/" in line}
        return [Path(path) for path in sorted(paths)]

    @staticmethod
    def maps_folder():
        for folder in (os.environ.get("XDG_RUNTIME_DIR", "") + "/ckpt", "/run/ckpt",
                       f"/dev/shm/ckpt-{os.getuid()}"):
            if os.path.isdir(folder) and run("stat", "-f", "-c", "%T", folder).strip() == "tmpfs":
                return folder
        raise AssertionError("no folder of written maps")

    def test_a_back_up_elsewhere(self):
        elsewhere = self.folder / "elsewhere"
        server, _ = self.stopped(f"backup=embedded:{elsewhere}")
        tool("forget", server.image, "--yes")
        self.assertFalse(elsewhere.exists())
        self.assertFalse(server.state.exists())

    def test_what_is_not_ours_stays(self):
        server, _ = self.stopped()
        note = server.state / "note.txt"
        note.write_text("mine")
        answer = tool("forget", server.image, "--yes", expect=DEGRADED)
        self.assertEqual(answer["left"], [str(server.state)])
        self.assertEqual(os.listdir(server.state), ["note.txt"])

    def test_again_after_it_was_interrupted(self):
        server, _ = self.stopped()
        (server.state / "store/backup.img").unlink()
        shutil.rmtree(server.state / "store/journal")
        (server.state / "regions").unlink()
        tool("forget", server.image, "--yes")
        self.assertFalse(server.state.exists())

    def test_a_damaged_volume(self):
        server, _ = self.stopped()
        with open(server.state / "volume", "r+b") as file:
            file.write(b"\xff" * os.path.getsize(server.state / "volume"))
        tool("forget", server.image, "--yes")
        self.assertFalse(server.state.exists())

    def test_an_image_that_is_gone(self):
        server, _ = self.stopped()
        server.image.unlink()
        tool("forget", server.image, "--yes")
        self.assertFalse(server.state.exists())

    def test_refused(self):
        server, _ = self.stopped()
        self.assertIn("--yes", tool("forget", server.image, expect=USAGE).message)
        tool("forget", server.state / "store", "--yes", expect=USAGE)
        tool("forget", self.folder / "absent.img", "--yes", expect=UNKNOWN)
        server.start()
        self.assertIn("stop it", tool("forget", server.image, "--yes", expect=BUSY).message)
        server.stop()
        other = self.serve(self.image("other.img", size=MIB))
        tool("checkpoint", other.image)
        other.stop()
        shutil.rmtree(server.state / "store")
        shutil.copytree(other.state / "store", server.state / "store")
        refused = tool("forget", server.image, "--yes", expect=USAGE)
        self.assertIn("another volume", refused.message)
        self.assertNotIn("for good", str(refused))
        self.assertTrue((server.state / "store/backup.img").exists())


if __name__ == "__main__":
    unittest.main()
