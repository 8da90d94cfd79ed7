#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""After a rollback every byte of the disk is what it was at the checkpoint, whatever was written,
however many clients wrote it, and whether the server runs; no client gets past the rules that guard
it."""

import errno
import os
import threading
import unittest

from harness import BUSY, MIB, OK, UNKNOWN, Case, Mount, Tmpfs, eventually, tool
from nbd_client import READ, WRITE, NbdClient, NbdError


class RollbackCase(Case):
    """The folder images are made in, and the I/O the plugin does, differ by subclass."""

    file_system = None
    least_restored = 1  # bytes, when something was written since the checkpoint

    def setUp(self):
        super().setUp()
        self.place = self.folder
        if self.file_system:
            self.place = Mount(self, self.file_system, 1024 * MIB, self.folder).path

    def new_server(self, *parameters, size=64 * MIB, image=None, **options):
        image = image or self.image(size=size, folder=self.place)
        return self.serve(image, *parameters, **options)

    def rollback(self, server, *options, **more):
        return tool("rollback", server.image, *options, "--yes", **more)

    def checkpoint(self, server, hammer, name):
        return hammer.checkpoint(server, name)

    def checkpoint_under_load(self, server, hammer, names, seed):
        """A load with a checkpoint for each name while it runs."""
        hammer.must("start", seed)
        answers = [self.checkpoint(server, hammer, name) for name in names]
        hammer.must("stop")
        return answers

    def dirty_then_roll_back_online(self, server, hammer, name, seed):
        hammer.must("ops", 40, seed)
        hammer.must("check", "now")
        hammer.must("disconnect")
        done = self.rollback(server, "last")
        self.assertGreaterEqual(done["restored_bytes"], self.least_restored)
        hammer.must("reconnect", server.uri)
        hammer.must("adopt", name)
        hammer.must("disconnect")
        hammer.must("check-file", server.image, name)
        hammer.must("reconnect", server.uri)
        return done


class RollbackExact(RollbackCase):
    """Every byte of primary and back-up, from eight connections and from one, online and offline."""

    rounds = 3

    def rollback(self, server, *options, **more):
        done = self.ask_rollback(server, *options, **more)
        self.expect_same_backup(server)
        return done

    def ask_rollback(self, server, *options, **more):
        return super().rollback(server, *options, **more)

    def exercise_online(self, server, hammer):
        first = self.checkpoint(server, hammer, "empty")
        self.dirty_then_roll_back_online(server, hammer, "empty", 1)
        for round_number in range(self.rounds):
            names = [f"r{round_number}-{i}" for i in range(3)]
            answers = self.checkpoint_under_load(server, hammer, names, 10 + round_number)
            numbers = [answer["checkpoint"] for answer in answers]
            self.assertEqual(numbers, sorted(set(numbers)))
            self.assertGreater(numbers[0], first["checkpoint"])
            done = self.dirty_then_roll_back_online(server, hammer, names[-1], 20 + round_number)
            self.assertEqual(done["checkpoint"], numbers[-1])
            quiet = f"q{round_number}"
            hammer.must("ops", 20, 30 + round_number)
            self.checkpoint(server, hammer, quiet)
            hammer.must("check", quiet)
            self.dirty_then_roll_back_online(server, hammer, quiet, 40 + round_number)

    def test_online_from_eight_connections(self):
        server = self.new_server("multi-conn=on")
        self.exercise_online(server, self.hammer(server, 8, "multi"))

    def test_online_from_one_connection(self):
        server = self.new_server()
        self.exercise_online(server, self.hammer(server, 1, "single"))

    def test_offline(self):
        server = self.new_server("multi-conn=on")
        hammer = self.hammer(server, 8)
        for round_number in range(2):
            name = f"c{round_number}"
            names = [f"x{round_number}", name]
            self.checkpoint_under_load(server, hammer, names, 50 + round_number)
            hammer.must("ops", 40, 60 + round_number)
            hammer.must("disconnect")
            server.stop()
            done = self.rollback(server, name)
            self.assertGreaterEqual(done["restored_bytes"], self.least_restored)
            hammer.must("check-file", server.image, name)
            server.start()
            hammer.must("reconnect", server.uri)
            hammer.must("adopt", name)

    def test_a_disk_with_content_and_a_short_last_block(self):
        image = self.image(size=24 * MIB + 1234, folder=self.place)
        with open(image, "r+b") as file:
            file.write(b"old content " * 500000)
        server = self.new_server("multi-conn=on", image=image)
        hammer = self.hammer(server, 4)
        self.checkpoint(server, hammer, "c")
        self.dirty_then_roll_back_online(server, hammer, "c", 90)
        self.checkpoint_under_load(server, hammer, ["d"], 91)
        self.dirty_then_roll_back_online(server, hammer, "d", 92)


class RollbackContent(RollbackExact):
    """The content, over both ways of I/O and both file systems; see the end of the file."""

    def test_twice_to_the_same_checkpoint(self):
        server = self.new_server("multi-conn=on")
        hammer = self.hammer(server, 4)
        self.checkpoint_under_load(server, hammer, ["c"], 70)
        for seed in (71, 72):
            self.dirty_then_roll_back_online(server, hammer, "c", seed)
        hammer.must("disconnect")
        self.rollback(server, "c")
        hammer.must("check-file", server.image, "c")

    def test_a_restart_between_writes_and_rollback(self):
        server = self.new_server("multi-conn=on")
        hammer = self.hammer(server, 4)
        self.checkpoint_under_load(server, hammer, ["c"], 80)
        for seed in (81, 82):
            hammer.must("ops", 20, seed)
            hammer.must("disconnect")
            server.stop()
            server.start()
            hammer.must("reconnect", server.uri)
            hammer.must("check", "now")
        hammer.must("disconnect")
        self.rollback(server)
        hammer.must("check-file", server.image, "c")

    def test_small_batches_and_no_compression(self):
        server = self.new_server("multi-conn=on", "batch-bytes=64K", "batch-delay=1",
                                 "compress=none")
        hammer = self.hammer(server, 4)
        self.checkpoint_under_load(server, hammer, ["a", "b", "c"], 95)
        self.dirty_then_roll_back_online(server, hammer, "c", 96)

    def test_checkpoints_only_ship_when_asked(self):
        server = self.new_server("multi-conn=on", "batch-bytes=1G", "batch-delay=1000000")
        hammer = self.hammer(server, 4)
        self.checkpoint_under_load(server, hammer, ["a", "b"], 97)
        self.dirty_then_roll_back_online(server, hammer, "b", 98)


class RollbackClients(RollbackCase):
    """Who may be connected, and what becomes of them."""

    def wait_for_requests(self, hammer):
        before = hammer.must("stats")["operations"]
        eventually(lambda: hammer.must("stats")["operations"] > before + 100, "100 more requests")

    def with_checkpoint(self, content=b"A" * 4096):
        server = self.new_server("multi-conn=on")
        with NbdClient(str(server.socket)) as client:
            client.write(0, content)
            client.write(32 * MIB, content)
        tool("checkpoint", server.image, "--name", "c")
        return server

    def test_refuse_is_busy_while_a_client_is_connected(self):
        server = self.with_checkpoint()
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"B" * 4096)
            for options in ((), ("--clients=refuse",)):
                self.assertNotEqual(self.rollback(server, *options, expect=BUSY).message, "")
            self.assertEqual(client.read(0, 4096), b"B" * 4096)
            client.write(4096, b"still served")
        self.rollback(server)
        with NbdClient(str(server.socket)) as client:
            self.assertEqual(client.read(0, 4096), b"A" * 4096)

    def test_refuse_waits_for_a_client_that_is_closing(self):
        server = self.with_checkpoint()
        client = NbdClient(str(server.socket))
        timer = threading.Timer(0.5, client.close)
        timer.start()
        self.rollback(server)
        timer.join()

    def refused(self, server):
        try:
            NbdClient(str(server.socket)).close()
        except (OSError, ConnectionError):
            return True
        return False

    def test_fence_fails_requests_and_keeps_clients_out_until_accept(self):
        server = self.with_checkpoint()
        client = NbdClient(str(server.socket))
        self.addCleanup(client.close)
        client.write(0, b"B" * 4096)
        self.rollback(server, "--clients=fence")
        requests = (lambda: client.write(0, b"C" * 4096), lambda: client.read(0, 512), client.flush)
        for request in requests:
            with self.assertRaises((NbdError, ConnectionError)) as raised:
                request()
            if isinstance(raised.exception, NbdError):
                self.assertEqual(raised.exception.errno, errno.ESHUTDOWN)
        self.assertEqual(self.status(server)["state"], "fenced")
        self.assertTrue(self.refused(server))
        client.close()  # nbdkit ends only when its clients have left
        server.stop()
        server.start()
        self.assertTrue(self.refused(server), "the fence is gone after a restart")
        tool("accept", server.image)
        with NbdClient(str(server.socket)) as fresh:
            self.assertEqual(fresh.read(0, 4096), b"A" * 4096)
            fresh.write(0, b"D" * 4096)
        self.assertEqual(self.status(server)["state"], "running")

    def test_fence_under_load_lets_nothing_through(self):
        server = self.new_server("multi-conn=on")
        hammer = self.hammer(server, 8)
        for round_number in range(3):
            name = f"c{round_number}"
            hammer.must("start", 100 + round_number)
            hammer.checkpoint(server, name)
            self.wait_for_requests(hammer)
            self.rollback(server, "--clients=fence")
            hammer.must("stop")
            hammer.must("lost")
            hammer.must("check-file", server.image, name)
            tool("accept", server.image)
            hammer.must("reconnect", server.uri)
            hammer.must("adopt", name)

    def test_keep_holds_requests_and_reads_nothing_stale(self):
        server = self.with_checkpoint()
        restored = threading.Event()
        seen = []

        def look():
            with NbdClient(str(server.socket)) as reader:
                while not restored.is_set():
                    pair = [reader.send(READ, offset=at, length=4096) for at in (0, 32 * MIB)]
                    seen.extend(reader.receive(cookie)[:1] for cookie in pair)
                seen.append(reader.read(0, 4096)[:1])

        with NbdClient(str(server.socket)) as client:
            for offset in range(0, 64 * MIB, MIB):
                client.write(offset, b"B" * MIB)
            thread = threading.Thread(target=look)
            thread.start()
            eventually(lambda: len(seen) > 20, "reads")
            self.rollback(server, "--clients=keep")
            after = client.read(0, 4096)
            restored.set()
            thread.join()
            self.assertEqual(after, b"A" * 4096)
            client.write(0, b"E" * 4096)
            self.assertEqual(client.read(0, 4096), b"E" * 4096)
        self.assertEqual(set(seen), {b"A", b"B"})
        pairs = list(zip(seen[0::2], seen[1::2]))
        mixed = [pair for pair in pairs if pair[0] != pair[1]]
        self.assertLessEqual(len(mixed), 1, "old and new content were both served for a while")
        first_new = min(i for i, pair in enumerate(pairs) if b"A" in pair)
        later = set(pairs[first_new + 1:])
        self.assertLessEqual(later, {(b"A", b"A")}, "old content after new")

    def test_keep_under_load(self):
        server = self.new_server("multi-conn=on")
        hammer = self.hammer(server, 8)
        for round_number in range(3):
            name = f"c{round_number}"
            hammer.must("start", 110 + round_number)
            hammer.checkpoint(server, name)
            self.wait_for_requests(hammer)
            hammer.must("rolled", name, "begin")
            self.rollback(server, "--clients=keep")
            hammer.must("rolled", name, "end")
            self.wait_for_requests(hammer)
            self.assertEqual(hammer.must("stop")["failed"], 0)
            hammer.must("adopt", "now")

    def test_a_request_in_flight_at_the_rollback_is_answered(self):
        server = self.with_checkpoint()
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"B" * 4096)
            thread = threading.Thread(target=self.rollback, args=(server, "--clients=keep"))
            thread.start()
            cookies = []
            while thread.is_alive():
                cookies.append(client.send(WRITE, offset=48 * MIB, data=b"F" * 4096))
                client.receive(cookies[-1])
            thread.join()
            client.write(48 * MIB, b"G" * 4096)
            self.assertEqual(client.read(48 * MIB, 4096), b"G" * 4096)
            self.assertEqual(client.read(0, 4096), b"A" * 4096)

    def test_a_server_that_died_with_clients_stays_closed_after_an_offline_rollback(self):
        server = self.with_checkpoint()
        client = NbdClient(str(server.socket))
        client.write(0, b"B" * 4096)
        server.kill9()
        client.close()
        self.rollback(server)
        server.start()
        self.assertTrue(self.refused(server))
        tool("accept", server.image)
        with NbdClient(str(server.socket)) as fresh:
            self.assertEqual(fresh.read(0, 4096), b"A" * 4096)


class RollbackRefused(RollbackCase):
    """Rollbacks that cannot be, and those that only ask."""

    def test_before_the_first_checkpoint(self):
        # The server takes checkpoint 1 by itself: a store without room for it has none.
        image = self.image(size=32 * MIB)
        image.write_bytes(os.urandom(32 * MIB))
        store = Tmpfs(self, "4m", self.folder, "store").path / "store"
        server = self.serve(image, f"backup=embedded:{store}")
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"kept")
        self.assertNotEqual(self.rollback(server, expect=UNKNOWN).message, "")
        server.stop()
        self.rollback(server, expect=UNKNOWN)
        with open(server.image, "rb") as file:
            self.assertEqual(file.read(4), b"kept")

    def test_unknown_ids_and_volumes(self):
        server = self.new_server()
        tool("checkpoint", server.image, "--name", "known")
        for wrong in ("999999", "unknown"):
            self.rollback(server, wrong, expect=UNKNOWN)
        server.stop()
        self.rollback(server, "unknown", expect=UNKNOWN)
        self.rollback(server, "known")
        tool("rollback", self.folder / "nothing.img", "--yes", expect=UNKNOWN)

    def test_a_dry_run_changes_nothing(self):
        server = self.new_server("multi-conn=on")
        hammer = self.hammer(server, 2)
        hammer.must("ops", 50, 1)
        hammer.checkpoint(server, "c")
        hammer.must("ops", 50, 2)
        hammer.must("disconnect")
        timeline = self.status(server)["timeline"]
        self.rollback(server, "--dry-run")
        hammer.must("check-file", server.image, "now")
        self.assertEqual(self.status(server)["timeline"], timeline)
        server.stop()
        self.rollback(server, "--dry-run")
        hammer.must("check-file", server.image, "now")
        server.start()
        hammer.must("reconnect", server.uri)
        hammer.must("adopt", "now")

    def test_the_timeline_changes_and_the_numbers_go_on(self):
        server = self.new_server()
        first = tool("checkpoint", server.image)["checkpoint"]
        timeline = self.status(server)["timeline"]
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"x" * 4096)
        self.rollback(server)
        self.assertNotEqual(self.status(server)["timeline"], timeline)
        self.assertEqual(self.status(server)["last_checkpoint"]["checkpoint"], first)
        self.assertGreater(tool("checkpoint", server.image)["checkpoint"], first)

    def test_names_belong_to_one_checkpoint_and_are_no_numbers(self):
        server = self.new_server()
        tool("checkpoint", server.image, "--name", "a")
        self.assertNotEqual(tool("checkpoint", server.image, "--name", "a", expect=None).code, OK)
        self.assertNotEqual(tool("checkpoint", server.image, "--name", "17", expect=None).code, OK)
        self.assertEqual([c["name"] for c in tool("list", server.image)["checkpoints"]][-1], "a")

    def test_what_was_answered_is_the_last_checkpoint_at_once(self):
        server = self.new_server()
        tool("checkpoint", server.image)
        for number in range(30):
            with self.subTest(number=number):
                made = server.control("checkpoint", name=f"a{number}", timeout_ms=60000)
                status = server.control("status")
                self.assertEqual(status["last_checkpoint"]["checkpoint"], made["checkpoint"])
                made = server.control("checkpoint", name=f"b{number}", timeout_ms=60000)
                again = server.control("checkpoint", name=f"b{number}", timeout_ms=60000)
                self.assertIn("belongs to checkpoint", again.get("message", ""))


def variants(base):
    """The base test over both ways of I/O, on both file systems."""
    for io in ("uring", "sync"):
        for file_system in ("ext4", "xfs"):
            name = f"{base.__name__}_{io}_{file_system}"
            members = {"io": io, "file_system": file_system, "__module__": __name__}
            yield name, type(name, (base,), members)


for variant_name, variant in variants(RollbackContent):
    globals()[variant_name] = variant
del variant, RollbackContent


if __name__ == "__main__":
    unittest.main()
