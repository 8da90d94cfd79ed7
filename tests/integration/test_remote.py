#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A back-up in another process: what holds for an embedded one holds for it, whatever happens to the
link, to backupd, or to what it keeps."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest
from pathlib import Path

import test_rollback
from harness import (BUSY, FAILED, MIB, OK, UNKNOWN, Case, Tmpfs, build, eventually,
                     free_port, plugin_environment, run, tool)
from nbd_client import NbdClient

UNREACHABLE = 10


class RollbackExact(test_rollback.RollbackExact):
    """Whole-disk comparisons with the model, the store behind a Unix socket."""

    def setUp(self):
        super().setUp()
        self.backupd = self.keep()


class RollbackOverTcp(test_rollback.RollbackExact):
    def setUp(self):
        super().setUp()
        self.backupd = self.keep(listen=f"127.0.0.1:{free_port()}")


class RollbackClients(test_rollback.RollbackClients):
    def setUp(self):
        super().setUp()
        self.backupd = self.keep()


def times_waited(server, thread):
    """How often a thread of the server has gone to sleep."""
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        if (task / "comm").read_text().strip() == thread:
            return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.M)[1])
    raise AssertionError(f"there is no thread {thread}")


class Remote(Case):
    """A disk whose back-up is at self.backupd."""

    def setUp(self):
        super().setUp()
        self.backupd = self.keep("--silence=2")

    def connected(self, server, states=("connected",), seconds=60):
        def state():
            answer = self.status(server)
            return answer if answer["backup"]["state"] in states else None
        return eventually(state, f"the back-up is {states}", seconds)

    def loaded(self, *parameters, size=64 * MIB):
        server = self.serve(self.image(size=size), "multi-conn=on", *parameters)
        hammer = self.hammer(server, 4)
        return server, hammer

    def expect_exact(self, server, hammer, name):
        """A checkpoint now; primary, back-up and model are equal in every byte, and after more
        writes a rollback makes them so again."""
        hammer.must("stop")
        eventually(lambda: hammer.checkpoint(server, name, expect=None).code == OK,
                   "a checkpoint", 90)
        hammer.must("check", "now")
        verified = tool("verify", server.image)
        self.assertEqual((verified["mismatched_bytes"], verified["skipped_bytes"]), (0, 0))
        self.expect_same_backup(server)
        hammer.must("start", 99)
        time.sleep(0.3)
        hammer.must("stop")
        hammer.must("disconnect")
        tool("rollback", server.image, "--yes")
        hammer.must("reconnect", server.uri)
        hammer.must("adopt", name)


class Life(Remote):
    def test_from_the_first_copy_to_forget(self):
        image = self.image(size=24 * MIB)
        content = random.Random(5).randbytes(24 * MIB)
        image.write_bytes(content)
        server = self.serve(image)
        eventually(lambda: self.status(server)["protected"], "the first copy")
        with NbdClient(str(server.socket)) as client:
            client.write(4096, b"x" * 100000)
        made = tool("checkpoint", image, "--name", "one")
        self.assertEqual(made["state"], "confirmed")
        good = image.read_bytes()
        with NbdClient(str(server.socket)) as client:
            client.write(8 * MIB, b"y" * 100000)
        self.assertEqual(tool("show", image, "one")["name"], "one")
        tool("export", image, "last", self.folder / "copy.img")
        self.assertEqual((self.folder / "copy.img").read_bytes(), good)
        server.stop()
        # Nobody serves it: the tool asks backupd itself.
        status = tool("status", image)
        self.assertEqual(status["backup"]["address"], self.backupd.address)
        self.assertEqual(status["backup"]["confirmed"], made["checkpoint"])
        self.assertEqual(tool("list", image)["checkpoints"][0]["name"], "one")
        tool("export", image, "one", self.folder / "again.img")
        self.assertEqual((self.folder / "again.img").read_bytes(), good)
        tool("rollback", image, "--yes")
        self.assertEqual(image.read_bytes(), good)
        image.unlink()
        tool("rollback", image, "--rebuild", "--yes")
        self.assertEqual(image.read_bytes(), good)
        folder = self.backupd.folder_of(server)
        answer = tool("forget", image, "--yes")
        self.assertRegex(answer.stderr, f"back-up at {self.backupd.address} is left")
        self.assertEqual(answer["backup_left"], self.backupd.address)
        self.assertTrue(folder.exists())

    def test_the_tool_asks_backupd_itself(self):
        server = self.serve(self.image(size=4 * MIB))
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"x" * 4096)
        tool("checkpoint", server.image, "--name", "one")
        volume = self.status(server)["volume"]
        name = f"{self.backupd.address}/{volume}"
        status = tool("status", name)
        self.assertEqual((status["role"], status["volume"], status["size_bytes"]),
                         ("backup", volume, 4 * MIB))
        self.assertEqual(tool("list", name)["checkpoints"][0]["name"], "one")
        self.assertEqual(tool("show", name, "one")["name"], "one")
        tool("export", name, "one", self.folder / "out.img")
        self.assertEqual((self.folder / "out.img").read_bytes(), server.image.read_bytes())
        for command in ("checkpoint", "verify"):
            self.assertIn("primary", tool(command, name, expect=2).message)
        self.assertIn("primary", tool("rollback", name, "--yes", expect=2).message)
        other = name[:-1] + ("0" if name[-1] != "0" else "1")
        self.assertIn("no volume", tool("list", other, expect=UNKNOWN).message)
        self.assertEqual(tool("list", f"unix:{self.folder}/nobody/{volume}", expect=None).code,
                         UNREACHABLE)
        checks = {c["name"]: c for c in tool("doctor", server.image, expect=None)["checks"]}
        self.assertIn(self.backupd.address, checks["backup"]["detail"])
        self.assertTrue(checks["backup"]["ok"])
        self.backupd.stop()
        self.connected(server, ("detached",))
        checks = {c["name"]: c for c in tool("doctor", server.image, expect=None)["checks"]}
        self.assertFalse(checks["backup"]["ok"])

    def test_volumes_are_listed_and_found_by_name(self):
        """Also after backupd was started anew, and when their servers are gone."""
        address = self.backupd.address
        self.assertEqual(tool("list", address)["volumes"], [])
        first = self.serve(self.image("first.img", size=4 * MIB))
        second = self.serve(self.image("second.img", size=8 * MIB), "name=accounts")
        for server in (first, second):
            tool("checkpoint", server.image, "--name", "one")
        self.assertEqual(self.status(second)["name"], "accounts")
        wanted = sorted([{"volume": self.status(server)["volume"], "name": name, "size_bytes": size}
                         for server, name, size in ((first, "first.img", 4 * MIB),
                                                    (second, "accounts", 8 * MIB))],
                        key=lambda one: one["volume"])
        self.assertEqual(tool("list", address)["volumes"], wanted)
        for server in (first, second):
            server.stop()
        self.backupd.stop()
        self.backupd.start()
        self.assertIn("(accounts): ", self.backupd.said())
        self.assertEqual(tool("list", address)["volumes"], wanted)
        named = f"{address}/accounts"
        self.assertEqual(tool("list", named)["checkpoints"][0]["name"], "one")
        tool("export", named, "one", self.folder / "out.img")
        self.assertEqual((self.folder / "out.img").read_bytes(), second.image.read_bytes())
        self.assertIn("no volume called count",
                      tool("status", f"{address}/count", expect=UNKNOWN).message)
        self.assertIn(f"ckpt-tool list {address}", tool("status", address, expect=2).message)
        third = self.serve(self.image("third.img", size=4 * MIB), "name=accounts")
        tool("checkpoint", third.image)
        answer = tool("list", named, expect=BUSY)
        self.assertIn("2 volumes called accounts", answer.message)
        self.assertIn(f"{address}/", answer.message)

    def test_the_address_may_change_and_the_kind_may_not(self):
        server = self.serve(self.image(size=8 * MIB))
        tool("checkpoint", server.image)
        server.stop()
        for other in ("embedded", f"embedded:{self.folder}/b"):
            server.parameters = (f"backup={other}",)
            self.assertIn(self.backupd.address, server.refusal())
        server.parameters = ()
        server.start()  # the volume knows it
        self.connected(server)
        server.stop()
        self.backupd.stop()
        self.backupd = self.keep(store=self.backupd.store)
        server.parameters = (f"backup={self.backupd.address}",)
        server.start()
        self.connected(server)
        server.stop()
        self.assertEqual(tool("status", server.image)["backup"]["address"], self.backupd.address)

    def test_a_server_in_the_background_keeps_its_link(self):
        """nbdkit forks, and what it leaves behind must not close what the server needs."""
        server = self.serve(self.image(size=4 * MIB), start=False)
        command = [word for word in server.command if word != "-f"]
        run(*command, env={**os.environ, **server.environment, **plugin_environment()})
        file = server._short / "pid"
        pid = int(eventually(lambda: file.exists() and file.read_text(), "the pid file"))
        self.addCleanup(lambda: os.path.exists(f"/proc/{pid}") and os.kill(pid, signal.SIGKILL))
        tool("checkpoint", server.image)
        self.assertNotIn("has ended", self.backupd.said())
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), "it has ended")

    def test_a_store_that_moved_is_given_to_the_tool(self):
        image = self.image(size=4 * MIB)
        server = self.serve(image)
        tool("checkpoint", image)
        good = image.read_bytes()
        server.stop()
        self.backupd.stop()
        moved = self.keep(store=self.backupd.store)
        self.assertEqual(tool("list", image, expect=None).code, UNREACHABLE)
        self.assertEqual(len(tool("list", image, "--backup", moved.address)["checkpoints"]), 1)
        image.unlink()
        tool("rollback", image, "--rebuild", "--yes", "--backup", moved.address)
        self.assertEqual(image.read_bytes(), good)
        self.assertEqual(tool("status", image)["backup"]["address"], moved.address)

    def test_many_volumes(self):
        servers = [self.serve(self.image(f"{i}.img", size=4 * MIB)) for i in range(8)]
        for i, server in enumerate(servers):
            with NbdClient(str(server.socket)) as client:
                client.write(i * 4096, bytes([i + 1]) * 4096)
            tool("checkpoint", server.image)
        self.assertEqual(len(self.backupd.folders()), 8)
        self.backupd.stop()
        self.backupd.start()
        self.assertEqual(self.backupd.said().count("confirmed 2, applied 2, pending 0"), 8)
        for i, server in enumerate(servers):
            self.connected(server)
            tool("export", server.image, "last", self.folder / f"{i}.out")
            self.assertEqual((self.folder / f"{i}.out").read_bytes(), server.image.read_bytes())


class NoStore(Remote):
    def test_writes_wake_nobody_while_there_is_none(self):
        """Gone, or never asked for: who could ship nothing is not woken for each write, which would cost the
        clients a tenth of their rate."""
        self.backupd.stop()
        for parameters in [], ["backup=none"]:
            with self.subTest(parameters):
                server = self.serve(self.image(f"disk-{len(parameters)}.img"), *parameters)
                self.write_blocks(server, 2000)  # more than is reason to ship
                before = times_waited(server, "ckpt-ship")
                self.write_blocks(server, 6000)
                self.assertLess(times_waited(server, "ckpt-ship") - before, 1000)

    def write_blocks(self, server, count):
        with NbdClient(str(server.socket)) as client:
            for block in range(count):
                client.write(block * 4096, b"b" * 4096)


class StoreDies(Remote):
    def test_killed_again_and_again_under_load(self):
        server, hammer = self.loaded()
        hammer.checkpoint(server, "first")
        hammer.must("start", 1, "pause=300")
        draw = random.Random(7)
        for _ in range(12):
            asked = threading.Thread(target=tool, args=("checkpoint", server.image),
                                     kwargs={"expect": None})
            asked.start()
            time.sleep(draw.uniform(0, 0.15))
            self.backupd.kill9()
            time.sleep(draw.choice((0, 0.1, 1.2)))
            self.backupd.start()
            asked.join()
        self.expect_exact(server, hammer, "end")

    def test_it_is_not_there_at_first(self):
        self.backupd.stop()
        server, hammer = self.loaded()
        status = self.status(server)
        self.assertFalse(status["protected"])
        self.assertEqual(status["backup"]["state"], "detached")
        self.assertIn(self.backupd.address, status["problem"])
        hammer.must("start", 2)
        time.sleep(0.3)
        hammer.must("stop")
        self.assertIn(self.backupd.address,
                      tool("checkpoint", server.image, "--timeout", 1, expect=FAILED).message)
        self.assertEqual(tool("list", server.image, expect=None).code, UNREACHABLE)
        self.backupd.start()
        self.expect_exact(server, hammer, "end")

    def test_it_hangs(self):
        """Writes go on; a checkpoint says which store and why; then all is made good."""
        server, hammer = self.loaded()
        hammer.checkpoint(server, "first")
        hammer.must("start", 3)
        self.backupd.process.send_signal(signal.SIGSTOP)
        self.addCleanup(lambda: self.backupd.process and
                        self.backupd.process.send_signal(signal.SIGCONT))
        before = hammer.must("stats")["operations"]
        answer = tool("checkpoint", server.image, "--timeout", 3, expect=None)
        self.assertNotEqual(answer.code, OK)
        detached = self.connected(server, ("detached",))
        self.assertIn(self.backupd.address, detached["problem"])
        self.assertGreater(hammer.must("stats")["operations"], before)
        self.backupd.process.send_signal(signal.SIGCONT)
        self.expect_exact(server, hammer, "end")

    def test_sigterm_ends_it_in_good_order(self):
        server, hammer = self.loaded()
        hammer.must("start", 4)
        for i in range(5):
            hammer.checkpoint(server, f"c{i}")
        self.backupd.stop()
        self.connected(server, ("detached",))
        self.backupd.start()
        self.expect_exact(server, hammer, "end")

    def test_its_file_system_is_full(self):
        small = Tmpfs(self, "40m", self.folder)
        self.backupd.stop()
        self.backupd = self.keep("--silence=2", store=small.path / "shelf")
        server = self.serve(self.image(size=64 * MIB), "compress=none")
        content = random.Random(1).randbytes(MIB)
        with NbdClient(str(server.socket)) as client:
            for i in range(48):
                client.write(i * MIB, content)
        answer = tool("checkpoint", server.image, "--timeout", 10, expect=FAILED)
        self.assertIn("space", (answer.message + self.status(server)["problem"]).lower())
        self.connected(server, ("failed",))  # again, when it has just tried
        run("mount", "-o", "remount,size=400m", small.path)
        eventually(lambda: tool("checkpoint", server.image, expect=None).code == OK,
                   "a checkpoint", 90)
        self.assertEqual(tool("verify", server.image)["mismatched_bytes"], 0)


class StoreChanges(Remote):
    """What backupd keeps is not what it was."""

    def prepared(self):
        server = self.serve(self.image(size=16 * MIB))
        for i in range(2):
            with NbdClient(str(server.socket)) as client:
                client.write(i * MIB, bytes([i + 1]) * 65536)
            tool("checkpoint", server.image)
        folder = self.backupd.folder_of(server)
        return server, folder

    def write_more(self, server):
        with NbdClient(str(server.socket)) as client:
            client.write(5 * MIB, b"z" * 65536)

    def test_it_was_lost(self):
        server, folder = self.prepared()
        self.backupd.stop()
        shutil.rmtree(folder)
        self.backupd.start()
        self.write_more(server)
        eventually(lambda: tool("checkpoint", server.image, expect=None).code == OK, "a checkpoint")
        run("cmp", server.image, folder / "backup.img")

    def test_an_older_copy_was_restored(self):
        server, folder = self.prepared()
        self.backupd.stop()
        run("cp", "-a", "--sparse=always", folder, self.folder / "older")
        self.backupd.start()
        self.connected(server)
        self.write_more(server)
        tool("checkpoint", server.image)
        self.backupd.stop()
        shutil.rmtree(folder)
        shutil.move(self.folder / "older", folder)
        self.backupd.start()
        status = self.connected(server, ("connected", "syncing"))
        self.assertRegex(status["problem"], "lost checkpoint|^$")
        eventually(lambda: tool("checkpoint", server.image, expect=None).code == OK, "a checkpoint")
        self.assertEqual(tool("verify", server.image)["mismatched_bytes"], 0)
        run("cmp", server.image, folder / "backup.img")

    def test_a_damaged_one_does_not_keep_others_from_being_served(self):
        server, folder = self.prepared()
        other = self.serve(self.image("other.img", size=4 * MIB))
        tool("checkpoint", other.image)
        self.backupd.stop()
        with open(folder / "volume", "r+b") as file:
            file.write(b"\xff" * 262144)
        self.backupd.start()
        self.assertIn(f"{folder.name} cannot be opened", self.backupd.said())
        sizes = {one["volume"]: one["size_bytes"]
                 for one in tool("list", self.backupd.address)["volumes"]}
        self.assertEqual(sizes, {folder.name: 0, self.status(other)["volume"]: 4 * MIB})
        self.connected(other)
        tool("checkpoint", other.image)
        eventually(lambda: folder.name in self.status(server)["problem"], "the server says so")
        self.write_more(server)

    def test_the_store_of_another_volume_in_its_place(self):
        server, folder = self.prepared()
        other = self.serve(self.image("other.img", size=16 * MIB))
        tool("checkpoint", other.image)
        other_folder = self.backupd.folder_of(other)
        other.stop()
        self.backupd.stop()
        shutil.rmtree(folder)
        shutil.move(other_folder, folder)
        before = (folder / "backup.img").read_bytes()
        self.backupd.start()
        eventually(lambda: "volume" in self.status(server)["problem"], "the server says so")
        self.assertEqual(tool("checkpoint", server.image, "--timeout", 1, expect=None).code, FAILED)
        self.assertEqual((folder / "backup.img").read_bytes(), before)


class Daemon(Remote):
    """The daemon itself."""

    def test_what_cannot_be_served_is_refused(self):
        for listen, store, said in (
                (None, self.backupd.store, "in use by another backupd"),
                (self.backupd.address, self.folder / "b", "another server listens"),
                ("0.0.0.0:7000", self.folder / "c", "tls=off"),
                ("nonsense", self.folder / "d", "not an address"),
                ("unix:relative", self.folder / "e", "absolute path"),
                (None, "/proc/nowhere", "/proc/nowhere")):
            with self.subTest(listen=listen, store=store):
                other = self.keep(store=store, start=False, **({"listen": listen} if listen else {}))
                self.assertIn(said, other.refusal())
        tool("checkpoint", self.serve(self.image(size=4 * MIB)).image)

    def test_help_version_and_bad_options(self):
        program = str(build() / "backupd" / "backupd")
        for option in ("--help", "--version"):
            done = subprocess.run([program, option], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0)
            self.assertIn("backupd", done.stdout)
        for words in ((), ("--store", "/x"), ("--listen", "unix:/x"), ("--silence=0",),
                      ("--colour=red",)):
            done = subprocess.run([program, *words], capture_output=True, text=True, timeout=10)
            self.assertIn(done.returncode, (1, 2), words)
            self.assertTrue(done.stderr.startswith("backupd: "), done.stderr)

    def test_in_the_background(self):
        store = self.folder / "background"
        pidfile, sock = self.folder / "pid", self.backupd.address[len("unix:"):] + "2"
        run(build() / "backupd" / "backupd", "--listen", f"unix:{sock}", "--store", store, "-P",
            pidfile)
        eventually(pidfile.exists, "the pid file")
        pid = int(eventually(pidfile.read_text, "its content"))
        server = self.serve(self.image(size=4 * MIB), f"backup=unix:{sock}")
        tool("checkpoint", server.image)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), "it has ended")

    def test_in_the_background_it_says_when_it_cannot_serve(self):
        sock = self.backupd.address[len("unix:"):] + "3"
        done = subprocess.run([str(build() / "backupd" / "backupd"), "--listen", f"unix:{sock}",
                               "--store", self.folder / "x", "-P", "/nowhere/pid"],
                              capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nowhere/pid", done.stderr)

    def test_a_socket_from_outside_is_judged_like_its_own(self):
        listener = socket.create_server(("0.0.0.0", 0))
        program = build() / "backupd" / "backupd"
        words = f"LISTEN_PID=$$ exec {program} -f --store {self.folder}/y 3<&{listener.fileno()}"
        done = subprocess.run(["bash", "-c", words], pass_fds=[listener.fileno()], timeout=30,
                              env={**os.environ, "LISTEN_FDS": "1"}, capture_output=True, text=True)
        listener.close()
        self.assertEqual(done.returncode, 1)
        self.assertIn("tls=off", done.stderr)

    def test_started_with_a_socket(self):
        """As systemd does it: the socket is there before, and READY comes after."""
        path = self.folder / "activated.sock"
        notify = self.folder / "notify.sock"
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        heard.bind(str(notify))
        heard.settimeout(30)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        program = build() / "backupd" / "backupd"
        words = f"LISTEN_PID=$$ exec {program} -f --store {self.folder}/activated 3<&{listener.fileno()}"
        process = subprocess.Popen(["bash", "-c", words], pass_fds=[listener.fileno()],
                                   env={**os.environ, "LISTEN_FDS": "1",
                                        "NOTIFY_SOCKET": str(notify)})
        self.addCleanup(process.kill)
        self.assertEqual(heard.recv(100), b"READY=1")
        server = self.serve(self.image(size=4 * MIB), f"backup=unix:{path}")
        tool("checkpoint", server.image)
        process.terminate()
        self.assertEqual(heard.recv(100), b"STOPPING=1")
        self.assertEqual(process.wait(30), 0)
        heard.close()
        listener.close()

    def test_strangers_are_turned_away(self):
        server = self.serve(self.image(size=4 * MIB))
        draw = random.Random(3)
        for junk in (b"", b"GET / HTTP/1.1\r\n\r\n", draw.randbytes(64), draw.randbytes(5000),
                     b"CKPW" + draw.randbytes(60), bytes(1 << 16)):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(10)
                stranger.connect(self.backupd.address[len("unix:"):])
                try:
                    stranger.sendall(junk)
                    while stranger.recv(4096):
                        pass
                except (BrokenPipeError, ConnectionResetError):
                    pass
        tool("checkpoint", server.image)

    def test_a_stranger_who_is_silent_is_given_up(self):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(20)
            stranger.connect(self.backupd.address[len("unix:"):])
            stranger.sendall(b"CKPW")
            while stranger.recv(4096):
                pass  # what it says before it closes
        tool("checkpoint", self.serve(self.image(size=4 * MIB)).image)


if __name__ == "__main__":
    unittest.main()
