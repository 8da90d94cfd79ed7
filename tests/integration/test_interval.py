#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""checkpoint-interval= keeps its times, also on crowded processors; what it cannot keep is told: in
the status, and in the file of events (docs/events-format.md)."""

import collections
import json
import multiprocessing
import os
import random
import signal
import stat
import time
import unittest

from harness import MIB, Case, Tmpfs, eventually, tool
from nbd_client import ZERO, NbdClient

BLOCK = 4096


def spin():
    while True:
        pass


def write_for_ever(socket, seed):
    """Blocks all over the first 32 MiB. So many requests are under way that the server never runs
    out of them while this process waits for a processor: zeroes need no data."""
    draw = random.Random(seed)
    with NbdClient(socket) as client:
        pending = collections.deque()
        while True:
            while len(pending) < 240:
                offset = draw.randrange(32 * MIB // BLOCK) * BLOCK
                pending.append(client.send(ZERO, offset, BLOCK))
            client.write(draw.randrange(32 * MIB // BLOCK) * BLOCK, draw.randbytes(BLOCK))
            for _ in range(40):
                client.receive(pending.popleft())


class Interval(Case):
    def beside(self, target, *arguments):
        """A process that runs until the test ends."""
        process = multiprocessing.get_context("fork").Process(target=target, args=arguments,
                                                              daemon=True)
        process.start()
        self.addCleanup(process.join)
        self.addCleanup(process.kill)

    @staticmethod
    def events(server, kind=None):
        """Those on record, every line of which must be valid."""
        path = server.state / "events"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines]
        return [event for event in events if kind in (None, event["event"])]

    def test_a_quiet_server_makes_about_one_a_second(self):
        server = self.serve(self.image(), "checkpoint-interval=1")
        self.assertEqual(server.control("status")["checkpoint_interval_s"], 1)
        eventually(lambda: server.control("status")["made_checkpoints"] >= 1, "the first one")
        before = server.control("status")
        begin = time.monotonic()
        time.sleep(8)
        status = server.control("status")
        elapsed = time.monotonic() - begin
        made = status["made_checkpoints"] - before["made_checkpoints"]
        planned = made + status["missed_checkpoints"] - before["missed_checkpoints"]
        self.assertAlmostEqual(planned, elapsed, delta=2)
        self.assertGreaterEqual(made, 5)
        self.assertEqual(status["void_checkpoints"], 0)

    def test_crowded_processors_do_not_end_it(self):
        server = self.serve(self.image(), "checkpoint-interval=1", "multi-conn=on")
        eventually(lambda: server.control("status")["made_checkpoints"] >= 1, "the first one")
        for _ in range(4):
            self.beside(spin)
        for seed in range(4):
            self.beside(write_for_ever, str(server.socket), seed)
        time.sleep(2)
        before = server.control("status")
        begin = time.monotonic()

        def since(field):
            return server.control("status")[field] - before[field]

        time.sleep(12)
        # Usually it is 6 or more by now; one a 30 s is what it must not be, however slow it is here.
        eventually(lambda: since("made_checkpoints") >= 4, "four checkpoints", 60)
        planned = since("made_checkpoints") + since("missed_checkpoints")
        self.assertGreaterEqual(planned, int(time.monotonic() - begin) - 3,
                                "a planned time was neither kept nor missed")

    def test_times_that_passed_while_it_stood_still_are_missed(self):
        server = self.serve(self.image(), "checkpoint-interval=1")
        eventually(lambda: server.control("status")["made_checkpoints"] >= 2, "two of them")
        before = server.control("status")["missed_checkpoints"]
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(5.2)
        server.process.send_signal(signal.SIGCONT)
        eventually(lambda: server.control("status")["missed_checkpoints"] >= before + 3, "missed")
        missed = eventually(lambda: self.events(server, "missed"), "an event for them")
        self.assertGreaterEqual(max(event["count"] for event in missed), 3, "not one for many")

    def test_without_an_interval_nothing_is_missed(self):
        server = self.serve(self.image(size=8 * MIB))
        status = server.control("status")
        self.assertEqual(status["checkpoint_interval_s"], 0)
        self.assertEqual(status["missed_checkpoints"], 0)

    def test_a_long_batch_delay_does_not_hold_it_up(self):
        server = self.serve(self.image(size=8 * MIB), "checkpoint-interval=1", "batch-delay=60000")
        eventually(lambda: server.control("status")["made_checkpoints"] >= 3, "three of them", 60)

    def test_a_store_that_cannot_confirm(self):
        small = Tmpfs(self, "48m", self.folder)
        server = self.serve(self.image(size=128 * MIB), f"backup=embedded:{small.path}",
                            "compress=none", "checkpoint-interval=1")
        eventually(lambda: server.control("status")["made_checkpoints"] >= 1, "the first one")
        with NbdClient(str(server.socket)) as client:
            for offset in range(0, 100 * MIB, MIB):
                client.write(offset, random.Random(offset).randbytes(MIB))
            eventually(lambda: server.control("status")["void_checkpoints"] >= 2, "void ones", 60)
            client.write(0, bytes(MIB))
        void = eventually(lambda: self.events(server, "void"), "an event for a void one")
        self.assertRegex(void[-1]["why"].lower(), "space")
        store = eventually(lambda: [event for event in self.events(server, "store")
                                    if event["state"] == "failed"], "the failed store")
        self.assertRegex(store[0]["error"].lower(), "space")


class Events(Case):
    events = staticmethod(Interval.events)

    def test_a_life(self):
        server = self.serve(self.image(size=8 * MIB))
        for name in ("a", 'b "quoted" \u00fc'):
            tool("checkpoint", server.image, "--name", name)
        tool("rollback", server.image, "--yes", "--clients=fence")
        tool("accept", server.image)
        server.stop()
        events = self.events(server)
        self.assertEqual(events[0]["event"], "start")
        self.assertEqual(events[-1]["event"], "stop")
        names = [event["name"] for event in events if event["event"] == "checkpoint"]
        self.assertEqual(names[-2:], ["a", 'b "quoted" \u00fc'])
        kinds = [event["event"] for event in events]
        self.assertLess(kinds.index("rollback"), kinds.index("accept"))
        self.assertTrue(next(e for e in events if e["event"] == "rollback")["fenced"])
        mode = os.stat(server.state / "events").st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    def test_after_a_kill_it_goes_on(self):
        server = self.serve(self.image(size=8 * MIB))
        tool("checkpoint", server.image)
        eventually(lambda: self.events(server, "checkpoint"), "an event")
        server.kill9()
        with open(server.state / "events", "ab") as file:
            file.write(b'{"schema":1,"ti')
        server.start()
        tool("checkpoint", server.image)
        server.stop()
        lines = (server.state / "events").read_text().splitlines()
        self.assertIn('{"schema":1,"ti', lines)
        kinds = [json.loads(line)["event"] for line in lines if line != '{"schema":1,"ti']
        self.assertEqual(kinds.count("start"), 2)
        self.assertEqual(kinds.count("stop"), 1)

    def test_a_file_that_cannot_be_written_fails_nothing(self):
        server = self.serve(self.image(size=8 * MIB), start=False)
        server.state.mkdir()
        (server.state / "events").mkdir()
        server.start()
        tool("checkpoint", server.image)
        server.stop()
        (server.state / "events").rmdir()
        server.start()
        tool("rollback", server.image, "--yes")
        server.stop()
        self.assertEqual(self.events(server)[-1]["event"], "stop")

    def test_work_without_a_server_is_on_record(self):
        server = self.serve(self.image(size=8 * MIB))
        tool("checkpoint", server.image)
        server.stop()
        tool("checkpoint", server.image, "--name", "offline")
        tool("rollback", server.image, "--yes")
        kinds = [event["event"] for event in self.events(server)]
        self.assertEqual(kinds[-1], "rollback")
        self.assertEqual(kinds.count("start"), 1)
        self.assertEqual(self.events(server, "checkpoint")[-1]["name"], "offline")


if __name__ == "__main__":
    unittest.main()
