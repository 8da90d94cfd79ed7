#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Exports: a copy that is exactly one checkpoint, whatever clients and checkpoints do meanwhile."""

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest

from harness import (BUSY, FAILED, MIB, OK, UNKNOWN, USAGE, Case, LoopDevice, Tmpfs, build,
                     eventually, run, tool)
from nbd_client import NbdClient


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


class ExportCase(Case):
    def write(self, server, seed, count=60):
        """Writes at random places, and zeroes some."""
        draw = random.Random(seed)
        with NbdClient(str(server.socket)) as client:
            for _ in range(count):
                length = draw.choice((700, 4096, 70000))
                offset = draw.randrange(client.size - length)
                if draw.random() < 0.2:
                    client.zero(offset, length)
                else:
                    client.write(offset, draw.randbytes(length))
            client.flush()

    def checkpointed(self, name="kept"):
        """A served volume with a checkpoint, and a copy of what it is."""
        server = self.serve(self.image(size=32 * MIB))
        self.write(server, 1)
        tool("checkpoint", server.image, "--name", name)
        truth = self.folder / "truth.raw"
        shutil.copy(server.image, truth)
        return server, truth

    def nbd_server(self, size, *words, parameters=()):
        """Another NBD server: its process, socket and URI."""
        path = self.folder / f"dest{time.monotonic_ns()}.sock"
        process = subprocess.Popen(["nbdkit", "-f", "-U", path, *words, "memory", str(size),
                                    *parameters])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        eventually(path.exists, "the socket of the destination")
        return process, path, f"nbd+unix:///?socket={path}"


class ToFile(ExportCase):
    def test_a_served_volume(self):
        server, truth = self.checkpointed()
        self.write(server, 2)
        copy = self.folder / "copy.raw"
        answer = tool("export", server.image, "kept", copy)
        self.assertEqual(digest(copy), digest(truth))
        self.assertEqual(answer["bytes"], 32 * MIB)
        self.assertLessEqual(answer["data_bytes"], 32 * MIB)
        self.assertEqual(answer["destination"], str(copy))
        self.assertEqual(os.stat(copy).st_mode & 0o777, 0o600)

    def test_holes_stay_holes(self):
        server = self.serve(self.image(size=32 * MIB))
        with NbdClient(str(server.socket)) as client:
            client.write(8 * MIB, b"x" * 65536)
        tool("checkpoint", server.image)
        copy = self.folder / "copy.raw"
        self.assertEqual(tool("export", server.image, "last", copy)["data_bytes"], 65536)
        self.assertLess(os.stat(copy).st_blocks * 512, MIB)
        self.assertEqual(os.stat(copy).st_size, 32 * MIB)

    def test_a_stopped_volume_its_store_and_one_without_primary(self):
        server, truth = self.checkpointed()
        self.write(server, 2)
        server.stop()
        store = server.state / "store"
        for number, volume in enumerate((server.image, server.state, store)):
            copy = self.folder / f"copy{number}.raw"
            tool("export", volume, "last", copy)
            self.assertEqual(digest(copy), digest(truth), volume)
        server.image.unlink()
        for number, volume in enumerate((server.image, server.state, store)):
            copy = self.folder / f"orphan{number}.raw"
            tool("export", volume, "kept", copy)
            self.assertEqual(digest(copy), digest(truth), volume)
        alone = self.folder / "alone"
        shutil.copytree(store, alone)
        shutil.rmtree(server.state)
        tool("export", alone, "1", self.folder / "no.raw", expect=UNKNOWN)
        tool("export", alone, "kept", self.folder / "alone.raw")
        self.assertEqual(digest(self.folder / "alone.raw"), digest(truth))
        self.assertEqual(tool("status", alone)["role"], "backup")
        self.assertEqual(tool("list", alone)["checkpoints"][0]["name"], "kept")
        self.assertIn("primary", tool("rollback", alone, "--yes", expect=USAGE).message)
        for command in ("metrics", "report", "doctor"):
            self.assertIn(f"{alone} is a back-up by itself: give the primary image",
                          tool(command, alone, expect=USAGE).message)

    def test_after_a_kill(self):
        server, truth = self.checkpointed()
        self.write(server, 2)
        server.kill9()
        copy = self.folder / "copy.raw"
        tool("export", server.image, "last", copy)
        self.assertEqual(digest(copy), digest(truth))
        server.start()
        tool("rollback", server.image, "--yes")
        self.assertEqual(digest(server.image), digest(truth))

    def test_while_checkpoints_are_made(self):
        """Each copy is the disk at one instant: a counter in every block is of one round."""
        server = self.serve(self.image(size=16 * MIB), "checkpoint-interval=1")
        stop = threading.Event()

        def count():
            blocks = 16 * MIB // 4096
            with NbdClient(str(server.socket)) as client:
                number = 0
                while not stop.is_set():
                    number += 1
                    client.write(0, number.to_bytes(8, "little") * (blocks * 512))
        self.counter = threading.Thread(target=count)
        self.counter.start()
        self.addCleanup(self.counter.join)
        self.addCleanup(stop.set)
        eventually(lambda: tool("list", server.image)["checkpoints"], "a checkpoint")
        checkpoints = set()
        for number in range(30):
            copy = self.folder / f"copy{number}.raw"
            answer = tool("export", server.image, "last", copy, expect=None)
            if answer.code == BUSY:  # a checkpoint would have had to wait for it
                self.assertFalse(copy.exists())
                continue
            self.assertEqual(answer.code, OK, answer)
            checkpoints.add(answer["checkpoint"])
            content = copy.read_bytes()
            rounds = {int.from_bytes(content[at:at + 8], "little")
                      for at in range(0, len(content), 4096)}
            # One write is under way at the cut: two rounds may meet, once.
            self.assertLessEqual(max(rounds) - min(rounds), 1, rounds)
            copy.unlink()
            if len(checkpoints) > 1:
                break
            time.sleep(0.3)
        self.assertGreater(len(checkpoints), 1)

    def test_a_file_that_is_there(self):
        server, truth = self.checkpointed()
        copy = self.folder / "copy.raw"
        copy.write_text("precious")
        self.assertIn("--force", tool("export", server.image, "last", copy, expect=FAILED).message)
        self.assertEqual(copy.read_text(), "precious")
        tool("export", server.image, "last", copy, "--force")
        self.assertEqual(digest(copy), digest(truth))

    def test_onto_itself(self):
        server, truth = self.checkpointed()
        link = self.folder / "link"
        link.symlink_to(server.image)
        for own in (server.image, link, server.state / "store/backup.img"):
            message = tool("export", server.image, "last", own, "--force", expect=USAGE).message
            self.assertIn("own", message)
        self.assertEqual(digest(server.image), digest(truth))
        server.stop()
        tool("export", server.state / "store", "last", server.state / "store/backup.img",
             "--force", expect=USAGE)

    def test_onto_its_own_export(self):
        server, truth = self.checkpointed()
        other = self.serve(self.image("other.img", size=32 * MIB))
        uri = "nbd+unix:///?socket={}".format
        server.stop()
        shutil.copytree(server.state / "store", self.folder / "store")
        server.start()
        self.write(server, 2)
        now = digest(server.image)
        for volume in (server.image, self.folder / "store"):
            message = tool("export", volume, "last", uri(server.socket), "--force",
                           expect=USAGE).message
            self.assertIn("own export", message)
            self.assertEqual(digest(server.image), now)
        tool("export", server.image, "last", uri(other.socket), "--force")
        self.assertEqual(digest(other.image), digest(truth))

    def test_bad_input(self):
        server, _ = self.checkpointed()
        copy = self.folder / "copy.raw"
        tool("export", server.image, "absent", copy, expect=UNKNOWN)
        tool("export", server.image, "999", copy, expect=UNKNOWN)
        tool("export", self.folder / "absent.img", "last", copy, expect=UNKNOWN)
        tool("export", server.image, "last", expect=USAGE)
        tool("export", server.image, "last", self.folder, expect=USAGE)
        tool("export", server.image, "last", self.folder / "no/such/folder/copy.raw",
             expect=UNKNOWN)
        fresh = self.serve(self.image("fresh.img", size=MIB), "backup=none")
        tool("export", fresh.image, "last", copy, expect=10)
        self.assertFalse(copy.exists())
        store = server.state / "store"
        self.assertIn("primary image", tool("export", store, "last", copy, expect=BUSY).message)

    def test_a_full_disk(self):
        server, _ = self.checkpointed()
        small = Tmpfs(self, "1m", self.folder)
        message = tool("export", server.image, "last", small.path / "copy.raw",
                       expect=FAILED).message
        self.assertIn("copy.raw", message)
        self.assertIn("space", message)
        self.assertEqual(list(small.path.iterdir()), [])
        tool("checkpoint", server.image)

    def interrupt(self, server, destination, seconds):
        """The exit status of an export that gets SIGINT after so long."""
        process = subprocess.Popen([build() / "tools/ckpt-tool", "export", server.image, "last",
                                    destination, "--force"])
        self.addCleanup(process.kill)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        return process.wait(60)

    def check_new_export(self, server):
        """Nothing of the one before is left at the server, once it has noticed its end."""
        copy = self.folder / "new.raw"
        eventually(lambda: tool("export", server.image, "last", copy, expect=None).code == OK,
                   "a new export works")
        self.assertEqual(digest(copy), digest(server.image))
        copy.unlink()

    def test_interrupted(self):
        server = self.serve(self.image(size=256 * MIB))
        with NbdClient(str(server.socket)) as client:
            for at in range(0, 256 * MIB, MIB):
                client.write(at, os.urandom(MIB))
        tool("checkpoint", server.image)
        target = self.folder / "target"
        target.mkdir()
        # 16 pieces of 1 MiB at a time, 300 ms each: about 5 s.
        _, _, uri = self.nbd_server(256 * MIB, "--filter=delay",
                                    parameters=("wdelay=300ms", "delay-zero=300ms"))
        self.assertNotEqual(self.interrupt(server, uri, 1), 0)
        self.check_new_export(server)
        if self.interrupt(server, target / "copy.raw", 0.05) != 0:
            self.assertEqual(list(target.iterdir()), [])
        self.check_new_export(server)
        tool("checkpoint", server.image)


class ToOthers(ExportCase):
    def test_a_loop_device(self):
        server, truth = self.checkpointed()
        device = LoopDevice(self, "target", 32 * MIB, self.folder)
        run("dd", "if=/dev/urandom", f"of={device.device}", "bs=1M", "count=32", "status=none")
        tool("export", server.image, "last", device.device, expect=FAILED)
        tool("export", server.image, "last", device.device, "--force")
        self.assertEqual(digest(device.device), digest(truth))
        small = LoopDevice(self, "small", 8 * MIB, self.folder)
        tool("export", server.image, "last", small.device, "--force", expect=FAILED)

    def test_an_nbd_server(self):
        server, truth = self.checkpointed()
        for words in ((), ("--filter=nozero",)):
            _, path, uri = self.nbd_server(40 * MIB, *words)
            with NbdClient(str(path)) as client:
                client.write(0, b"y" * MIB)
            self.assertIn("--force", tool("export", server.image, "last", uri,
                                          expect=FAILED).message)
            with NbdClient(str(path)) as client:
                self.assertEqual(client.read(0, 1), b"y")
            tool("export", server.image, "last", uri, "--force")
            copy = self.folder / "back.raw"
            run("nbdcopy", uri, copy)
            os.truncate(copy, 32 * MIB)
            self.assertEqual(digest(copy), digest(truth))
            copy.unlink()

    def test_nbd_servers_that_do_not_fit(self):
        server, _ = self.checkpointed()
        _, _, small = self.nbd_server(MIB)
        self.assertIn("bytes", tool("export", server.image, "last", small, "--force",
                                    expect=FAILED).message)
        _, _, fixed = self.nbd_server(32 * MIB, "-r")
        self.assertIn("read-only",
                      tool("export", server.image, "last", fixed, "--force",
                           expect=USAGE).message)
        absent = f"nbd+unix:///?socket={self.folder}/absent.sock"
        self.assertIn("absent.sock",
                      tool("export", server.image, "last", absent, "--force",
                           expect=FAILED).message)
        self.assertIn("NBD URI", tool("export", server.image, "last", "http://localhost/disk",
                                      "--force", expect=USAGE).message)

    def test_an_nbd_server_that_dies(self):
        server, _ = self.checkpointed()
        process, _, uri = self.nbd_server(32 * MIB, "--filter=delay",
                                          parameters=("wdelay=300ms", "delay-zero=300ms"))
        threading.Timer(0.5, process.kill).start()
        message = tool("export", server.image, "last", uri, "--force", expect=FAILED).message
        self.assertIn(uri, message)
        tool("checkpoint", server.image)

    def test_an_nbd_server_that_fails(self):
        server, _ = self.checkpointed()
        _, _, uri = self.nbd_server(32 * MIB, "--filter=error", parameters=(
            "error-pwrite=ENOSPC", "error-pwrite-rate=100%"))
        self.assertIn(uri, tool("export", server.image, "last", uri, "--force",
                                expect=FAILED).message)


class HostileServer(ExportCase):
    """What answers on the control socket is no server of ours."""

    def answers(self, *lines, size=8192):
        """What the tool says when these are its answers; None: the beginning of an export of this
        size."""
        server, _ = self.checkpointed()
        server.stop()
        path = server.state / "control.sock"
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.settimeout(30)
        listening.bind(str(path))
        listening.listen()
        begin = (b'{"schema":1,"type":"export","checkpoint":2,"name":"","time":'
                 b'"2026-01-31T12:00:00.123Z","parent":0,"changed_bytes":0,"shipped_bytes":0,'
                 b'"message":"","digest":"00000000000000000000000000000000","timeline":'
                 b'"11111111-2222-4333-8444-555555555555","parent_timeline":'
                 b'"11111111-2222-4333-8444-555555555555","size_bytes":%d}\n' % size)

        def serve():
            for _ in range(3):
                connection, _ = listening.accept()
                connection.settimeout(30)
                request = connection.makefile("rb").readline()
                if b'"export"' in request:
                    try:
                        connection.sendall(b"".join(line or begin for line in lines))
                    except (BrokenPipeError, ConnectionResetError):
                        pass  # it has seen enough
                connection.close()
                if b'"export"' in request:
                    return
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        copy = self.folder / "copy.raw"
        answer = tool("export", server.image, "last", copy, expect=FAILED)
        thread.join(60)
        self.assertFalse(thread.is_alive())
        self.assertFalse(copy.exists())
        return answer.message

    def test_data_beyond_the_end(self):
        self.answers(None, b'{"schema":1,"type":"data","offset":8192,"length":4096}\n',
                     b"x" * 4096)

    def test_more_data_than_a_piece(self):
        """Only the limit of a piece is against it: all else of the export is whole."""
        length, size = MIB + 4096, 64 * MIB
        self.answers(None, b'{"schema":1,"type":"data","offset":0,"length":%d}\n' % length,
                     bytes(length), b'{"schema":1,"type":"hole","offset":%d,"length":%d}\n' %
                     (length, size - length), b'{"schema":1,"type":"result"}\n', size=size)

    def test_data_that_breaks_off(self):
        self.answers(None, b'{"schema":1,"type":"data","offset":0,"length":4096}\n', b"x" * 100)

    def test_data_before_the_beginning(self):
        self.answers(b'{"schema":1,"type":"hole","offset":0,"length":4096}\n')

    def test_a_result_too_soon(self):
        self.answers(None, b'{"schema":1,"type":"hole","offset":0,"length":4096}\n',
                     b'{"schema":1,"type":"result"}\n')

    def test_a_result_without_an_export(self):
        self.answers(b'{"schema":1,"type":"result"}\n')


if __name__ == "__main__":
    unittest.main()
