# SPDX-License-Identifier: Apache-2.0
"""The life of a volume in stages (made, written to, checkpointed, rolled back, stopped, started,
rebuilt), one of whose programs may die or fail at any of its steps, and what must hold then: the
model is what this test wrote, and whole disks are compared with it."""

import collections
import os
import random
import shutil
import signal
import subprocess
import time

from harness import (BLOCK, FAILED, MIB, OK, Case, ServerFailed, Tmpfs, ToolAnswer, build, eventually,
                     tool)
from nbd_client import FUA, NbdClient, NbdError
from steps import Steps

VOLUMES_KEPT = 30  # below backupd, at once
SIZE = 9 * MIB  # two regions and a part of one

RUNNING = ("plugin", "backupd")

Point = collections.namedtuple("Point", "stage victim step occurrence")


def has_direct_io(folder):
    """A tmpfs has it since Linux 6.6."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True


class Disk:
    """What the disk holds, as far as that is known."""

    def __init__(self, content=bytes(SIZE)):
        self.now = bytearray(content)
        self.may = {}  # for bytes of which it is not known: all that they may be

    def change(self, offset, data, known):
        for at, byte in enumerate(data, offset) if self.may or not known else ():
            if known:
                self.may.pop(at, None)
            else:
                self.may.setdefault(at, {self.now[at]}).add(byte)
        self.now[offset:offset + len(data)] = data

    def differs(self, found):
        """The first offset at which it holds what it cannot hold; None. What was not known is
        taken from what was found."""
        for at, possible in self.may.items():
            if found[at] in possible:
                self.now[at] = found[at]
        self.may = {}
        if found == self.now:
            return None
        return next(at for at in range(SIZE) if found[at] != self.now[at])


Asked = collections.namedtuple("Asked", "name content attachment")


class Stages(Case):
    """A volume, its server, and the model of both."""

    is_remote = False
    # In each stage the programs that can be in it.
    stages = {"create": RUNNING, "write": RUNNING, "checkpoint": RUNNING, "attach": RUNNING,
              "roll back": RUNNING, "stop": RUNNING, "start": RUNNING, "recover": RUNNING,
              "roll back offline": ("tool", "backupd"), "rebuild": ("tool", "backupd")}

    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("CKPT_SEED", random.randrange(1 << 31)))
        self.random = random.Random(self.seed)
        self.volumes = 0
        self.server = None
        self.steps = {}
        for victim in ("plugin", "tool", "backupd"):
            self.steps[victim] = Steps(self.folder, victim, self.folder / "volumes")
        Tmpfs(self, "512M", self.folder, "volumes")  # what survives a kill is not a matter of disks
        self.can_be_direct = has_direct_io(self.folder / "volumes")
        if self.is_remote:
            self.backupd = self.keep(store=self.folder / "volumes" / "shelf",
                                     under=self.steps["backupd"].words)
        self.new_volume()

    # A volume of which nothing exists yet.
    def new_volume(self):
        if self.server is not None:
            self.server.cleanup()
            for leftover in (self.server.image, self.server.state):
                shutil.rmtree(leftover, True) if leftover.is_dir() else leftover.unlink(True)
        if self.is_remote and self.volumes % VOLUMES_KEPT == VOLUMES_KEPT - 1:
            self.clear_shelf()
        self.volumes += 1
        folder = self.folder / "volumes" / str(self.volumes)
        folder.mkdir()
        direct = "on" if self.can_be_direct and self.random.random() < 0.5 else "off"
        self.server = self.serve(folder / "disk.img", f"size={SIZE}", "io=sync", "batch-delay=20",
                                 f"direct={direct}", environment=self.steps["plugin"].environment, start=False)
        self._logged = self._logged[-6:]
        self.disk = Disk()
        self.kept = []     # what was answered
        self.asked = []    # what was not answered, and may exist
        self.rolls_back = False
        self.is_made = False

    def clear_shelf(self):
        """Nobody else removes back-ups of volumes that are gone, and there is not space for all."""
        self.backupd.kill9()
        shutil.rmtree(self.backupd.store, ignore_errors=True)
        self.backupd.start()

    # ---- What the volume is asked for; each may be cut short by a death, or fail.

    def start(self):
        """Whether it serves."""
        try:
            self.server.start(60)
        except ServerFailed as failed:
            self.assertIn(failed.code, (1, -signal.SIGKILL), str(failed))
            self.server.process = None
            return False
        self.is_made = True
        return True

    def stop(self):
        if self.server.process is None:
            return
        self.server.process.send_signal(signal.SIGTERM)
        code = self.server.process.wait(60)
        self.server.process = None
        self.assertIn(code, (0, 1, -signal.SIGKILL), self.server.said())

    def tool_with_steps(self, *arguments):
        """None if it died."""
        done = subprocess.run([*self.steps["tool"].words, str(build() / "tools" / "ckpt-tool"), "--json",
                               *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=120, check=False)
        if done.returncode == -signal.SIGKILL:
            return None
        answer = ToolAnswer(arguments, done)
        self.assertGreaterEqual(answer.code, 0, f"crashed: {answer}")
        return answer

    def one_write(self, client, offset, data, act):
        try:
            act(client)
            self.disk.change(offset, data, known=True)
        except OSError as problem:
            self.disk.change(offset, data, known=False)
            if not isinstance(problem, NbdError):
                raise
            self.write_failed(problem)

    def write_failed(self, problem):
        raise AssertionError(f"a write failed: {problem}")

    def writes(self):
        """Some of each kind, over one connection that may break."""
        draw = self.random
        try:
            with NbdClient(str(self.server.socket)) as client:
                for length, flags in ((700, 0), (BLOCK, FUA), (3 * BLOCK + 5, 0), (300000, 0)):
                    offset, data = draw.randrange(SIZE - length), draw.randbytes(length)
                    self.one_write(client, offset, data,
                                   lambda c, o=offset, d=data, f=flags: c.write(o, d, f))
                for act in (NbdClient.zero, NbdClient.trim):
                    offset, length = draw.randrange(SIZE // BLOCK - 40) * BLOCK, 40 * BLOCK
                    self.one_write(client, offset, bytes(length),
                                   lambda c, o=offset, n=length, a=act: a(c, o, n))
                self.flush(client)
        except NbdError:
            raise
        except OSError:
            self.server_is_gone()

    def flush(self, client):
        client.flush()

    def server_is_gone(self):
        eventually(lambda: not self.server.running, "a server that closed a connection is dead", 60)

    def checkpoint(self, attach=False, timeout=60):
        """Its answer. What it holds was written before, and nothing meanwhile."""
        name = f"c{self.random.randrange(1 << 60)}"
        attachment = self.random.randbytes(200000) if attach else None
        words = ["checkpoint", self.server.image, "--name", name, "--timeout", timeout]
        if attach:
            path = self.folder / "attached"
            path.write_bytes(attachment)
            words += ["--attach", f"memory={path}"]
        asked = Asked(name, bytes(self.disk.now), attachment)
        answer = tool(*words, expect=None)
        if answer.code == OK:
            self.kept.append((answer["checkpoint"], asked))
            self.asked = []
        elif answer.code != FAILED:  # that would be: nothing has changed
            self.asked.append(asked)
        return answer

    def roll_back(self, *words, with_steps=False):
        self.rolls_back = True
        ask = self.tool_with_steps if with_steps else lambda *all: tool(*all, expect=None)
        answer = ask("rollback", self.server.image, "--yes", *words)
        if answer is not None and answer.code == OK:
            self.is_rolled_back()
        return answer

    def is_rolled_back(self):
        self.rolls_back = False
        # The first one is made by itself, at a moment of its own.
        self.disk = Disk(self.kept[-1][1].content if self.kept else self.read_disk())

    # ---- What must hold, with everything running and nothing going to fail.

    def revive(self):
        """Both run again, in either order."""
        acts = [self.revive_server, self.revive_backupd]
        for act in acts if self.is_made and self.random.random() < 0.5 else reversed(acts):
            act()
        if self.server.control("status")["state"] == "fenced":
            tool("accept", self.server.image)
        try:
            eventually(self.is_settled, "the server has found its store", 60)
        except AssertionError as late:
            raise AssertionError(f"{late}: {self.server.control('status')}") from late

    def revive_server(self):
        if self.server.running:
            return
        if self.rolls_back:  # it is gone on with at the start, and that needs it
            self.revive_backupd()
        self.server.start()

    def revive_backupd(self):
        if self.backupd and (self.backupd.process is None or
                             self.backupd.process.poll() is not None):
            self.backupd.process = None
            self.backupd.start()

    def is_settled(self):
        status = self.server.control("status")
        backup = status["backup"]
        return (status["state"] == "running" and backup["state"] == "connected" and
                backup["applied"] == backup["confirmed"] and not status["problem"])

    def newest(self):
        kept = self.server.control("list")["checkpoints"]
        return max(kept, key=lambda one: one["checkpoint"], default=None)

    def check(self):
        """No answered checkpoint is lost, and the disk is what it must be."""
        self.settle_checkpoints()
        found = self.read_disk()
        if self.rolls_back and self.kept and found == self.kept[-1][1].content:
            self.is_rolled_back()
        self.rolls_back = False
        at = self.disk.differs(found)
        self.assertIsNone(at, f"the disk differs at {at}")

    def settle_checkpoints(self):
        newest = self.newest()
        exists = [asked for asked in self.asked if newest and newest["name"] == asked.name]
        self.kept += [(newest["checkpoint"], asked) for asked in exists]
        self.asked = []
        if not self.kept:
            return
        self.assertIsNotNone(newest, "an answered checkpoint is gone")
        self.assertEqual((newest["checkpoint"], newest["name"]),
                         (self.kept[-1][0], self.kept[-1][1].name))
        self.check_attachment()

    def check_attachment(self):
        number, asked = self.kept[-1]
        if asked.attachment is not None:
            out = self.folder / "attachment.out"
            tool("export", self.server.image, number, out, "--attachment", "memory", "--force")
            self.assertEqual(out.read_bytes(), asked.attachment)

    def read_disk(self):
        with NbdClient(str(self.server.socket)) as client:
            return b"".join(client.read(at, MIB) for at in range(0, SIZE, MIB))

    def go_on(self):
        """Either way out leads to a disk that is right: back, or on to the next checkpoint."""
        if self.kept and self.random.random() < 0.5:
            self.roll_back_again()
        else:
            before = self.kept[-1][0] if self.kept else 0
            answer = self.checkpoint()
            self.assertEqual(answer.code, OK, str(answer))
            self.assertGreater(answer["checkpoint"], before)
            self.assertEqual(tool("verify", self.server.image)["mismatched_bytes"], 0)
        self.check()

    def roll_back_again(self):
        answer = self.roll_back()
        self.assertEqual(answer.code, OK, str(answer))

    def check_store(self):
        """Its image is the last checkpoint, once that is applied and nothing runs."""
        eventually(self.is_settled, "the checkpoint is applied", 60)
        shelf = self.folder / "volumes" / "shelf" if self.backupd else self.server.state / "store"
        volume = self.server.control("status")["volume"]
        image = shelf / volume / "backup.img" if self.backupd else shelf / "backup.img"
        self.stop()
        self.assertTrue(image.read_bytes() == self.kept[-1][1].content, "the store's image differs")
        self.server.start()

    # ---- The stages. Each begins with a server that runs, or a volume that is not there yet.

    def prepare(self, stage):
        """What comes before the stage, and in which nothing dies."""
        if stage == "create":
            self.new_volume()
            return
        self.writes()
        if stage in ("stop", "start", "roll back", "roll back offline", "rebuild", "recover"):
            self.assertEqual(self.checkpoint(attach=self.random.random() < 0.2).code, OK)
        if stage in ("roll back", "roll back offline", "recover"):
            self.writes()
        if stage in ("start", "rebuild"):
            self.stop()
        elif stage in ("recover", "roll back offline"):
            self.server.kill9()
        if stage == "rebuild":
            self.server.image.unlink()

    def do(self, stage):
        if stage == "create":
            if self.start():
                self.writes()
        elif stage in ("start", "recover"):
            self.start()
        elif stage == "write":
            self.writes()
        elif stage in ("checkpoint", "attach"):
            self.checkpoint(attach=stage == "attach")
        elif stage == "roll back":
            self.roll_back()
        elif stage == "stop":
            self.stop()
        else:
            self.roll_back(*(["--rebuild"] if stage == "rebuild" else []), with_steps=True)

    # ---- Without a death or an error: which points there are.

    def points(self):
        """CKPT_POINTS=all: every one. Else of each step in each stage one, drawn."""
        points = self.survey()
        self.random.shuffle(points)
        if os.environ.get("CKPT_POINTS") != "all":
            points = list({point[:3]: point for point in points}.values())
        return points

    def survey(self):
        points = []
        for stage, victims in self.stages.items():
            self.prepare(stage)
            self.news()
            self.do(stage)
            if self.server.running:
                eventually(self.is_settled, "all is applied", 60)
            time.sleep(0.3)  # the last steps of its threads
            news = self.news()
            for victim in victims:
                points += [Point(stage, victim, step, occurrence + 1)
                           for step, count in news[victim].items() for occurrence in range(count)]
            self.finish(stage)
        return points

    def news(self):
        return {victim: steps.news() for victim, steps in self.steps.items()}

    def finish(self, stage):
        """All runs again, and nothing is lost."""
        if stage == "rebuild" and (self.rolls_back or not self.server.image.exists()):
            self.revive_backupd()
            answer = self.roll_back("--rebuild")
            self.assertEqual(answer.code, OK, str(answer))
        self.revive()
        self.check()
        self.go_on()
        if self.random.random() < 0.3:
            self.check_store()
