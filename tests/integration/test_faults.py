#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input and faults: a start is refused with a message that names the object, or it serves and
every later rollback is exact. CKPT_FLIPS is how many single bits of `volume` are flipped (24)."""

import errno
import hashlib
import os
import random
import shutil
import subprocess
import time
import unittest
from pathlib import Path

from harness import BLOCK, MIB, UNKNOWN, Case, ServerFailed, Tmpfs, build, eventually, run, tool
from nbd_client import NbdClient


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def scribble(server, seed, count=40):
    """Overwrites random places of the disk."""
    draw = random.Random(seed)
    with NbdClient(str(server.socket)) as client:
        for _ in range(count):
            length = draw.choice((1, 700, 4096, 70000))
            client.write(draw.randrange(client.size - length), draw.randbytes(length))
        client.flush()


def fill(folder):
    """A file that takes what space is left; its path."""
    path = folder / "ballast"
    with open(path, "wb", buffering=0) as ballast:
        for size in (65536, BLOCK):
            try:
                while ballast.write(bytes(size)) == size:
                    pass
            except OSError as problem:
                if problem.errno != errno.ENOSPC:
                    raise
    return path


class BadInput(Case):
    """Starts that must be refused."""

    def refusal(self, image, *parameters, names=""):
        message = self.serve(image, *parameters, start=False).refusal()
        self.assertIn(str(names or Path(image).name), message)
        return message

    def test_a_missing_image(self):
        missing = self.folder / "missing.img"
        self.assertIn("size=", self.refusal(missing))
        self.assertFalse(missing.exists())
        self.assertFalse(Path(f"{missing}.ckpt").exists())

    def test_an_image_of_no_bytes(self):
        """Somebody may be about to fill it."""
        empty = self.folder / "empty.img"
        empty.touch()
        self.assertIn("0 bytes", self.refusal(empty))
        self.assertIn("0 bytes", self.refusal(empty, f"size={MIB}"))
        self.assertEqual(empty.stat().st_size, 0)

    def test_a_folder(self):
        folder = self.folder / "folder"
        folder.mkdir()
        self.refusal(folder)

    def test_an_image_in_use(self):
        first = self.serve(self.image(size=8 * MIB))
        scribble(first, 1)
        self.assertIn("use", self.refusal(first.image))
        scribble(first, 2)
        tool("checkpoint", first.image)

    def test_an_image_in_use_under_another_state_folder(self):
        first = self.serve(self.image(size=8 * MIB))
        self.refusal(first.image, f"state={self.folder / 'other'}")

    def test_images_of_other_formats(self):
        for kind, needed in (("qcow2", "format=raw"), ("vmdk", "format=raw"),
                             ("vhdx", "format=raw")):
            image = self.folder / f"disk.{kind}"
            run("qemu-img", "create", "-q", "-f", kind, image, "16M")
            self.assertIn(needed, self.refusal(image))
            server = self.serve(image, "format=raw")
            server.stop()

    def test_a_read_only_state_folder(self):
        small = Tmpfs(self, "8m", self.folder)
        run("mount", "-o", "remount,ro", small.path)
        self.refusal(self.image(size=8 * MIB), f"state={small.path / 'state'}",
                     names=small.path.name)

    def test_a_full_file_system_for_the_state_folder(self):
        small = Tmpfs(self, "1m", self.folder)
        fill(small.path)
        message = self.refusal(self.image(size=8 * MIB), f"state={small.path / 'state'}",
                               names=small.path.name)
        self.assertRegex(message.lower(), "space")

    def test_unknown_parameters_and_bad_values(self):
        image = self.image(size=8 * MIB)
        for wrong in (
            "colour=red", "batch-bytes=x", "batch-bytes=-1", "batch-delay=soon", "batch-delay=-5",
            "checkpoint-interval=x", "io=fast", "direct=perhaps", "multi-conn=2x", "takeover=both",
            "compress=zip", "compress=zstd:x", "compress=zstd:999", "format=qcow2",
            "backup=nowhere", "backup=host:99999", "backup=unix:", "tls=maybe"):
            with self.subTest(wrong):
                self.refusal(image, wrong, names=wrong.split("=", maxsplit=1)[0])
        for wrong in ("size=big", "size=-1", "size=0"):
            with self.subTest(wrong):
                self.refusal(self.folder / "new.img", wrong, names="size")
                self.assertFalse((self.folder / "new.img").exists())

    def test_no_image_at_all(self):
        server = self.serve(self.folder / "x", start=False)
        command = [word for word in server.command if word != str(server.image)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30,
                              stdin=subprocess.DEVNULL)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotEqual(done.stderr.strip(), "")


class BehindOurBack(Case):
    """The image or the state is changed while no server runs. The live maps are on a tmpfs of
    ours."""

    def setUp(self):
        super().setUp()
        runtime = Tmpfs(self, "64m", self.folder, "run")
        self.runtime = runtime.path
        previous = os.environ.get("XDG_RUNTIME_DIR")
        self.addCleanup(self.set_runtime, previous)
        self.set_runtime(str(self.runtime))

    @staticmethod
    def set_runtime(path):
        if path is None:
            os.environ.pop("XDG_RUNTIME_DIR", None)
        else:
            os.environ["XDG_RUNTIME_DIR"] = path

    def prepared(self, name="disk.img", size=24 * MIB, seed=1):
        """A server with a checkpoint and changes since; `good` is the checkpoint's digest."""
        server = self.serve(self.image(name, size))
        scribble(server, seed)
        server.number = tool("checkpoint", server.image)["checkpoint"]
        server.good = digest(server.image)
        scribble(server, seed + 1)
        return server

    def end(self, server, how):
        server.stop() if how == "stop" else server.kill9()

    def start_or_message(self, server):
        """True when it serves; otherwise its refusal says something about the volume."""
        try:
            server.start()
        except ServerFailed as failed:
            self.assertGreaterEqual(failed.code, 0, f"a crash: {failed}")
            self.assertRegex(failed.message, "disk|volume|regions|map|state|store")
            return False
        return True

    def expect_exact_rollback(self, server):
        """Online; afterwards the disk is the checkpoint, and protection goes on."""
        if self.status(server)["state"] == "fenced":
            tool("accept", server.image)
        self.assertEqual(self.status(server)["last_checkpoint"]["checkpoint"], server.number)
        tool("rollback", server.image, "--yes")
        self.assertEqual(digest(server.image), server.good)
        self.expect_complete_checkpoint(server)

    def expect_complete_checkpoint(self, server):
        if self.status(server)["state"] == "fenced":
            tool("accept", server.image)
        scribble(server, 77)
        tool("checkpoint", server.image)
        verified = tool("verify", server.image)
        self.assertEqual((verified["mismatched_bytes"], verified["skipped_bytes"]), (0, 0))

    def each(self, change, after=("rollback", "checkpoint")):
        """After a clean stop and after a kill: the change, then a rollback, or a checkpoint."""
        for how in ("stop", "kill"):
            for then in after:
                with self.subTest(how=how, then=then):
                    server = self.prepared(f"disk-{how}-{then}.img")
                    self.end(server, how)
                    # A change in the same tick of the kernel's clock as the last write has its time.
                    time.sleep(0.02)
                    change(server)
                    self.assertTrue(self.start_or_message(server), server.said())
                    getattr(self, {"rollback": "expect_exact_rollback",
                                   "checkpoint": "expect_complete_checkpoint"}[then])(server)
                    server.stop()

    def test_nothing_was_changed(self):
        self.each(lambda server: None)

    def test_the_image_was_copied_over(self):
        def change(server):
            other = self.folder / "other"
            other.write_bytes(random.Random(9).randbytes(24 * MIB))
            run("cp", other, server.image)
        self.each(change)

    def test_the_image_was_replaced_by_another_file(self):
        def change(server):
            other = self.folder / "other"
            other.write_bytes(random.Random(9).randbytes(24 * MIB))
            os.replace(other, server.image)
        self.each(change)

    def test_the_image_was_restored_from_an_older_copy_with_its_times(self):
        def change(server):
            old = self.folder / "old"
            run("cp", "-a", server.image, old)
            with open(server.image, "r+b") as file:
                file.write(b"something newer" * 1000)
            run("cp", "-a", old, server.image)
        self.each(change)

    def test_single_bytes_were_written_and_the_time_set_back(self):
        def change(server):
            before = os.stat(server.image)
            with open(server.image, "r+b") as file:
                file.seek(20 * MIB)
                file.write(b"!")
            os.utime(server.image, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.each(change)

    def test_the_image_was_mounted_and_changed(self):
        def change(server):
            point = self.folder / "mnt"
            point.mkdir(exist_ok=True)
            run("mount", "-o", "loop", server.image, point)
            try:
                (point / "file").write_bytes(os.urandom(3 * MIB))
            finally:
                run("umount", point)

        for how in ("stop", "kill"):
            with self.subTest(how=how):
                image = self.image(f"disk-{how}.img", 24 * MIB)
                run("mkfs.ext4", "-q", "-F", image)
                server = self.serve(image)
                server.number = tool("checkpoint", image)["checkpoint"]
                server.good = digest(image)
                self.end(server, how)
                change(server)
                self.assertNotEqual(digest(image), server.good)
                self.assertTrue(self.start_or_message(server))
                self.expect_exact_rollback(server)
                server.stop()

    def resized(self, size):
        for how in ("stop", "kill"):
            with self.subTest(how=how):
                server = self.prepared(f"disk-{how}.img")
                self.end(server, how)
                os.truncate(server.image, size)
                message = server.refusal()
                for named in (f"disk-{how}.img", str(size), str(24 * MIB)):
                    self.assertIn(named, message)
                os.truncate(server.image, 24 * MIB)
                self.assertTrue(self.start_or_message(server))
                self.expect_exact_rollback(server)
                server.stop()

    def test_the_image_has_grown(self):
        self.resized(25 * MIB)

    def test_the_image_has_shrunk(self):
        self.resized(20 * MIB)

    def damage_each_file(self, how, damage):
        """Damages one file of the state at a time: saved maps and regions after a clean stop, the
        live maps on the tmpfs after a kill."""
        server = self.prepared()
        other = self.prepared("other.img", seed=5)
        self.end(other, how)
        self.end(server, how)
        names = self.files_of(server)
        self.assertTrue(names, "no map and no regions file in the state folder")
        for index in range(len(names)):
            files = self.files_of(server)
            if index >= len(files):
                break
            with self.subTest(how=how, file=files[index].name):
                damage(files[index], other)
                if not self.start_or_message(server):
                    self.fail(f"a damaged map only costs time: {server.said()}")
                self.expect_exact_rollback(server)
                tool("checkpoint", server.image)
                server.number = tool("list", server.image)["checkpoints"][-1]["checkpoint"]
                server.good = digest(server.image)
                scribble(server, 100 + index)
                self.end(server, how)

    def files_of(self, server):
        """Maps and regions, in a fixed order. A file of the runtime folder belongs to the server if
        `volume` of it names it; with two volumes that cannot be told, so all are taken."""
        state = [p for p in server.state.iterdir() if p.is_file() and p.name not in ("volume",
                                                                                     "lock")]
        live = [p for p in self.runtime.rglob("*") if p.is_file()]
        return sorted(state) + sorted(live)

    @staticmethod
    def cut_short(path, _):
        os.truncate(path, path.stat().st_size // 2)

    @staticmethod
    def emptied(path, _):
        os.truncate(path, 0)

    @staticmethod
    def removed(path, _):
        path.unlink()

    @staticmethod
    def foreign(path, other):
        twin = other.state / path.name
        if twin.exists() and twin != path:
            shutil.copyfile(twin, path)
        else:
            path.write_bytes(os.urandom(path.stat().st_size))

    def test_maps_cut_short(self):
        for how in ("stop", "kill"):
            self.damage_each_file(how, self.cut_short)

    def test_maps_emptied(self):
        for how in ("stop", "kill"):
            self.damage_each_file(how, self.emptied)

    def test_maps_gone(self):
        for how in ("stop", "kill"):
            self.damage_each_file(how, self.removed)

    def test_maps_of_another_volume(self):
        for how in ("stop", "kill"):
            self.damage_each_file(how, self.foreign)

    def test_all_live_maps_gone(self):
        """What a reboot leaves."""
        server = self.prepared()
        self.end(server, "kill")
        for path in [p for p in self.runtime.rglob("*") if p.is_file()]:
            path.unlink()
        self.assertTrue(self.start_or_message(server))
        self.expect_exact_rollback(server)

    def test_flipped_bits_of_volume(self):
        server = self.prepared()
        volume = server.state / "volume"
        draw = random.Random(4)
        served = 0
        flips = int(os.environ.get("CKPT_FLIPS", "24"))
        for index in range(flips):
            self.end(server, ("stop", "kill")[index % 2])
            content = volume.read_bytes()
            inhabited = [at for at, byte in enumerate(content) if byte]
            at = draw.choice(inhabited) if index % 4 else draw.randrange(len(content))
            bit = 1 << draw.randrange(8)
            with self.subTest(offset=at, bit=bit):
                self.overwrite(volume, at, content[at] ^ bit)
                if self.start_or_message(server):
                    served += 1
                else:
                    self.overwrite(volume, at, content[at])
                    self.assertTrue(self.start_or_message(server), "refuses even after the repair")
                self.expect_exact_rollback(server)
            server.number = tool("checkpoint", server.image)["checkpoint"]
            server.good = digest(server.image)
            scribble(server, 200 + index, 10)
        self.assertGreater(served, flips // 2,
                           "one flipped bit must not stop a volume with two copies")

    @staticmethod
    def overwrite(path, at, byte):
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes([byte]))

    def test_every_copy_of_volume_is_damaged(self):
        server = self.prepared()
        server.stop()
        volume = server.state / "volume"
        volume.write_bytes(os.urandom(volume.stat().st_size))
        self.assertFalse(self.start_or_message(server), "served with no valid record of its state")

    def test_volume_is_gone_but_the_store_is_not(self):
        """Whatever it does, it must not pass off the old store as the back-up of a new volume."""
        server = self.prepared()
        server.stop()
        (server.state / "volume").unlink()
        if self.start_or_message(server):
            self.expect_complete_checkpoint(server)


class LostBackups(Case):
    """The back-up is not what it was: another disk, or one that was restored. It gets all there is."""

    def volume(self):
        """A stopped one with checkpoint 2, and the store that had checkpoint 1."""
        server = self.serve(self.image(size=16 * MIB))
        older = self.folder / "older"
        scribble(server, 1)
        tool("checkpoint", server.image, "--name", "older")
        server.stop()
        shutil.copytree(server.state / "store", older)
        server.start()
        scribble(server, 2)
        tool("checkpoint", server.image, "--name", "newer")
        server.stop()
        shutil.rmtree(server.state / "store")
        return server, older

    def goes_on(self, server):
        """It is protected again: names are free, and a rollback restores every byte."""
        tool("checkpoint", server.image, "--name", "newer")
        before = digest(server.image)
        status = self.status(server)
        self.assertTrue(status["protected"], status)
        self.assertEqual(tool("verify", server.image)["mismatched_bytes"], 0)
        scribble(server, 3)
        tool("rollback", server.image, "--yes")
        self.assertEqual(digest(server.image), before)
        tool("checkpoint", server.image)

    def test_it_is_gone(self):
        server, _ = self.volume()
        server.start()
        eventually(lambda: self.status(server)["protected"], "a first copy by itself")
        self.goes_on(server)

    def test_it_is_gone_and_no_server_runs(self):
        server, _ = self.volume()
        tool("checkpoint", server.image)
        self.assertEqual(len(tool("list", server.image)["checkpoints"]), 1)
        server.start()
        self.goes_on(server)

    def test_it_was_restored_from_before_a_rollback(self):
        server, older = self.volume()
        server.start()
        eventually(lambda: self.status(server)["protected"], "a first copy by itself")
        tool("rollback", server.image, "--yes")
        tool("checkpoint", server.image, "--name", "on-a-new-timeline")
        server.stop()
        shutil.rmtree(server.state / "store")
        shutil.copytree(older, server.state / "store")
        server.start()
        self.assertFalse(self.status(server)["protected"])
        self.goes_on(server)

    def test_it_was_restored(self):
        server, older = self.volume()
        shutil.copytree(older, server.state / "store")
        server.start()
        status = self.status(server)
        self.assertFalse(status["protected"])
        self.assertRegex(status["problem"], "has lost checkpoint 3 .*: the next checkpoint copies")
        self.assertEqual(status["last_checkpoint"]["name"], "older")
        answer = tool("rollback", server.image, "--yes", expect=UNKNOWN)
        self.assertIn("take a checkpoint first", answer.message)
        server.kill9()
        server.start()
        self.assertFalse(self.status(server)["protected"])
        self.goes_on(server)


class FirstCopies(Case):
    def test_a_status_says_how_far_it_is(self):
        image = self.image(size=256 * MIB)
        with open(image, "r+b") as file:
            for _ in range(16):
                file.write(random.randbytes(16 * MIB))
        server = self.serve(image)
        seen, left = server.control("status"), []
        while seen["backup"]["confirmed"] is None:
            self.assertIsNone(seen["last_checkpoint"])
            self.assertEqual(seen["backup"]["state"], "syncing")
            self.assertFalse(seen["protected"])
            self.assertEqual(seen["changed_bytes"], 256 * MIB)
            left.append(seen["backup"]["unshipped_bytes"])
            if len(left) == 2:
                self.assertRegex(self.for_people(server), r"unshipped +[0-9.]+ MiB of 256 MiB\n")
            seen = server.control("status")
        self.assertEqual((seen["backup"]["confirmed"], seen["backup"]["unshipped_bytes"]), (1, 0))
        # The server records it when it has heard of it.
        last = eventually(lambda: server.control("status")["last_checkpoint"], "the first checkpoint")
        self.assertEqual(last["checkpoint"], 1)
        self.assertEqual(left, sorted(left, reverse=True))
        self.assertGreater(len(set(left)), 5)
        eventually(lambda: self.status(server)["backup"]["state"] == "connected", "it is over")
        self.assertRegex(self.for_people(server), r"unshipped +0 bytes\n")

    @staticmethod
    def for_people(server):
        return run(build() / "tools" / "ckpt-tool", "status", server.image)

    def test_a_first_copy_that_became_void_is_tried_again(self):
        image = self.image(size=256 * MIB)
        with open(image, "r+b") as file:
            for _ in range(16):
                file.write(random.randbytes(16 * MIB))
        server = self.serve(image, "preserve-limit=4096")
        with NbdClient(str(server.socket)) as client:
            for offset in range(client.size - 16 * MIB, client.size, MIB):
                client.write(offset, bytes(MIB))  # the last to be shipped: too much to preserve
        deadline = time.monotonic() + 60
        while not (last := self.status(server).last["last_checkpoint"]):
            self.assertLess(time.monotonic(), deadline, "there is no first checkpoint")
            time.sleep(0.2)
        self.assertGreater(last["checkpoint"], 1, "the first one was not void")
        before = digest(image)
        scribble(server, 3)
        tool("rollback", image, "--yes")
        self.assertEqual(digest(image), before)


if __name__ == "__main__":
    unittest.main()
