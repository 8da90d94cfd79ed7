#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A stand-by: beside a back-up it waits for the primary to die, fences it, promotes and serves. Two sites, each with
a backupd; a model says what the disk is."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from harness import HALFWAY, MIB, OK, USAGE, build, eventually, plugin, plugin_environment, tool
from nbd_client import NbdClient
from sites import Sites

AFTER = 1  # seconds, where it is to happen
NEVER = 2.5 * AFTER  # what is watched for so long does not happen
UNREACHABLE = 10


class StandBy:
    """ckpt-tool standby, in the background, and what it says."""

    def __init__(self, case, folder, *words, fence=None, server=None, command=(), after=AFTER):
        self.folder = Path(tempfile.mkdtemp(prefix="ckt"))  # a socket's path has at most 107 bytes
        case.addCleanup(shutil.rmtree, self.folder, True)
        self.socket = self.folder / "nbd.sock"
        self.fenced = self.folder / "fenced"  # a line each time
        self.log = self.folder / "log"
        self.words = [str(build() / "tools" / "ckpt-tool"), "--json", "standby", str(folder), "--after", str(after),
                      "--fence", fence or f"echo fenced >> {self.fenced}",
                      "--server", server or f"-U {self.socket} backup=none", *words,
                      *(["--", *command] if command else [])]
        self.begin()
        case.addCleanup(self.kill9)

    def begin(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment())

    def environment(self):
        """With an nbdkit that finds the plugin which was built: the fourth word names it."""
        program = self.folder / "nbdkit"
        program.write_text(f'#!/bin/sh\nwords="$1 $2 $3"\nshift 4\n'
                           f'exec {shutil.which("nbdkit")} $words {plugin()} "$@"\n')
        program.chmod(0o755)
        return {**plugin_environment(), "PATH": f"{self.folder}:{os.environ['PATH']}"}

    def lines(self):
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                found.append(json.loads(line))
        return found

    def events(self):
        return [line["event"] for line in self.lines() if "event" in line]

    def primary(self):
        """As it was told last."""
        seen = [line["primary"] for line in self.lines() if line.get("event") == "primary"]
        return seen[-1] if seen else None

    def fences(self):
        return len(self.fenced.read_text().splitlines()) if self.fenced.exists() else 0

    def said(self, characters=4000):
        return self.log.read_text(errors="replace")[-characters:]

    def await_event(self, event, seconds=60):
        eventually(lambda: event in self.events() or self.process.poll() is not None, f"{event}: {self.said()}", seconds)
        if event not in self.events():
            raise AssertionError(f"it has ended before {event}: {self.said()}")

    def await_primary(self, word):
        eventually(lambda: self.primary() == word, f"it sees the primary {word}: {self.said()}")

    def await_end(self, seconds=60):
        return self.process.wait(seconds)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill9(self):
        """Its server ends then by itself, and leaves its socket, as nbdkit does."""
        self.process.kill()
        self.process.wait()
        served = ["pgrep", "-f", f"nbdkit.*{self.socket}"]
        eventually(lambda: subprocess.run(served, stdout=subprocess.DEVNULL, check=False).returncode, "its server ends")
        self.socket.unlink(missing_ok=True)


class StandsBy(Sites):
    def setUp(self):
        super().setUp()
        self.store = self.far.store / self.volume

    def stand_by(self, *words, **options):
        """When it has seen the primary."""
        standby = StandBy(self, self.store, *words, **options)
        standby.await_primary("connected")
        return standby

    def expect_served(self, standby):
        """The disk of the last checkpoint, for reads and writes."""
        standby.await_event("served")
        with NbdClient(str(standby.socket)) as client:
            size = len(self.model.kept)
            content = b"".join(client.read(at, MIB) for at in range(0, size, MIB))
            self.assertEqual(content, self.model.kept)
            client.write(4096, b"a new life")
            self.assertEqual(client.read(4096, 10), b"a new life")

    def expect_nothing(self, standby):
        time.sleep(NEVER)
        self.assertIsNone(standby.process.poll(), standby.said())
        self.assertNotIn("fencing", standby.events())
        self.assertEqual(tool("status", self.store)["state"], "stopped")


class FailsOver(StandsBy):
    def test_where_the_primary_was_killed(self):
        command = 'echo "$$ $CKPT_IMAGE $CKPT_VOLUME $CKPT_TIMELINE $CKPT_CHECKPOINT" > "$0"; exec sleep 600'
        told = self.folder / "told"
        standby = self.stand_by(command=["sh", "-c", command, str(told)])
        last = self.checkpoint()["checkpoint"]
        self.model.write_some(self.server)  # in no checkpoint
        self.server.kill9()
        self.expect_served(standby)
        self.assertEqual(standby.fences(), 1)
        status = tool("status", self.store)
        self.assertEqual(status["state"], "promoted")
        eventually(lambda: told.exists() and told.read_text(), "COMMAND runs")
        self.assertEqual(told.read_text().split()[1:],
                         [str(self.store / "backup.img"), self.volume, status["timeline"], str(last)])
        events = standby.events()
        self.assertLess(events.index("fencing"), events.index("promoted"))
        self.assertIn("was promoted", self.server.refusal())
        # SIGTERM ends COMMAND and the server, which has stopped cleanly.
        self.assertEqual(standby.stop(), OK, standby.said())
        self.assertTrue(standby.lines()[-1]["promoted"])
        self.assertFalse(Path("/proc", told.read_text().split()[0]).exists())
        self.assertEqual(self.content(self.store / "backup.img")[4096:4106], b"a new life")
        self.assertEqual(tool("status", self.store / "backup.img")["state"], "stopped")

    def test_as_often_as_it_comes_and_goes(self):
        """It was back in time, each time."""
        standby = self.stand_by(after=30 * AFTER)
        for _ in range(3):
            self.server.kill9()
            standby.await_primary("away")
            self.server.start()
            standby.await_primary("connected")
        self.model.write_some(self.server)
        self.checkpoint()
        self.expect_nothing(standby)

    def test_after_the_primary_was_stopped_and_came_back(self):
        standby = self.stand_by()
        self.server.stop()
        standby.await_primary("stopped")
        self.expect_nothing(standby)
        tool("checkpoint", self.server.image, "--backup", self.far.address)  # by the tool itself
        standby.await_primary("stopped")
        self.model.keep()
        self.expect_nothing(standby)
        self.server.start()
        standby.await_primary("connected")
        self.server.kill9()
        self.expect_served(standby)

    def test_killed_before_it_served(self):
        """The same command goes on, and does not fence again."""
        standby = self.stand_by(server="--no-such-option backup=none")
        self.server.kill9()
        self.assertEqual(standby.await_end(), HALFWAY, standby.said())
        self.assertIn("promoted", standby.events())
        self.assertEqual(standby.fences(), 1)
        again = StandBy(self, self.store)
        self.expect_served(again)
        self.assertEqual(again.fences(), 0)

    def test_killed_while_it_served(self):
        standby = self.stand_by()
        self.server.kill9()
        self.expect_served(standby)
        standby.kill9()
        self.model.kept = self.content(self.store / "backup.img")
        standby.log.unlink()
        standby.begin()
        self.expect_served(standby)
        self.assertEqual(standby.fences(), 1)

    def test_where_the_server_dies(self):
        standby = self.stand_by()
        self.server.kill9()
        self.expect_served(standby)
        subprocess.run(["pkill", "-9", "-f", f"nbdkit.*{standby.socket}"], check=True)
        self.assertEqual(standby.await_end(), HALFWAY, standby.said())
        self.assertIn("signal 9", standby.said())

    def test_a_change_of_roles(self):
        """No fence: the other side has given its role up."""
        self.near.start()
        standby = self.stand_by()
        self.model.write_some(self.server)
        self.server.stop()
        tool("switch", self.server.image, "--store", self.near.store, "--yes")
        self.model.keep()
        self.expect_served(standby)
        self.assertEqual(standby.fences(), 0)


    def test_a_promotion_that_failed_after_the_fence(self):
        """The image is another program's for a while: it is tried again."""
        self.far.kill9()  # what it is told of the primary is of a volume that it has found
        self.far.start()
        tries = self.folder / "tries"
        standby = self.stand_by(fence=f"echo try >> {tries}")
        with open(self.store / "backup.img", "rb") as image:
            fcntl.flock(image, fcntl.LOCK_EX)
            self.server.kill9()
            standby.await_event("not_promoted")
        self.assertIn("in use", standby.said())
        self.expect_served(standby)
        self.assertGreater(len(tries.read_text().split()), 1)


class Waits(StandsBy):
    """Nothing is promoted."""

    def test_a_stop_under_load(self):
        """However much is on its way to the back-up."""
        standby = self.stand_by(after=30 * AFTER)
        for _ in range(5):
            hammer = self.hammer(self.server)
            hammer.must("start", 5)
            time.sleep(0.5)
            self.server.process.send_signal(signal.SIGTERM)
            hammer.cleanup()  # nbdkit ends when its clients have
            self.server.stop()
            standby.await_primary("stopped")
            self.server.start()
            standby.await_primary("connected")
        self.assertNotIn("away", [line.get("primary") for line in standby.lines()])

    def test_told_to_end_while_it_fences(self):
        """The fence is waited for, and then nothing is promoted."""
        told = self.folder / "told"
        standby = self.stand_by(fence=f"until test -e {told}; do sleep 0.1; done")
        self.server.kill9()
        standby.await_event("fencing")
        standby.process.send_signal(signal.SIGTERM)
        told.touch()
        self.assertEqual(standby.await_end(), OK, standby.said())
        self.assertFalse(standby.lines()[-1]["promoted"])
        self.assertEqual(tool("status", self.store)["state"], "stopped")

    def test_until_it_is_told_to_end(self):
        standby = self.stand_by()
        self.assertEqual(standby.stop(), OK)
        self.assertFalse(standby.lines()[-1]["promoted"])

    def test_while_the_back_up_restarts(self):
        """And before the primary was seen again: nobody knows whether it died meanwhile."""
        standby = self.stand_by(after=5 * AFTER)
        self.server.kill9()
        standby.await_primary("away")
        self.far.kill9()
        standby.await_primary("unknown")
        self.expect_nothing(standby)
        self.far.start()
        standby.await_primary("never")
        self.expect_nothing(standby)
        self.server.start()
        standby.await_primary("connected")
        self.server.kill9()
        self.expect_served(standby)

    def test_where_the_fence_fails(self):
        """It is tried again, until it does not, or the primary is back."""
        blocked = self.folder / "blocked"
        blocked.touch()
        tries = self.folder / "tries"
        standby = self.stand_by(fence=f"echo try >> {tries}; test ! -e {blocked}")
        self.server.kill9()
        eventually(lambda: tries.exists() and len(tries.read_text().split()) >= 2, "it is tried again")
        self.assertIn("not fenced", standby.said())
        self.assertEqual(tool("status", self.store)["state"], "stopped")
        self.server.start()
        standby.await_primary("connected")
        self.model.write_some(self.server)
        self.checkpoint()
        count = len(tries.read_text().split())
        time.sleep(NEVER)
        self.assertEqual(len(tries.read_text().split()), count)
        blocked.unlink()
        self.server.kill9()
        self.expect_served(standby)


class Refusals(StandsBy):
    def refused(self, code, *words, says):
        done = tool("standby", *words, expect=code)
        self.assertIn(says, done.message)

    def test_what_is_missing(self):
        fence, server = ("--fence", "true"), ("--server", "backup=none")
        self.refused(USAGE, self.store, *server, says="--fence")
        self.refused(USAGE, self.store, *fence, says="--server")
        self.refused(USAGE, self.store, *fence, *server, "--", "no-such-program", says="no-such-program")
        self.refused(USAGE, self.server.image, *fence, *server, says="the folder of a back-up")
        self.refused(USAGE, f"{self.far.address}/{self.volume}", *fence, *server, says="the folder of a back-up")
        self.refused(USAGE, self.store, *fence, *server, "--after", 0, says="--after")

    def test_without_a_backupd(self):
        self.far.kill9()
        self.refused(UNREACHABLE, self.store, "--fence", "true", "--server", "backup=none", says="backupd.sock cannot be asked")


if __name__ == "__main__":
    unittest.main()
