# SPDX-License-Identifier: Apache-2.0
"""What is done over a link that is cut, step by step, and what must hold after each step: whole disks
are compared with a model, which is what this test itself wrote."""

import os
import random
import re
from pathlib import Path

from harness import FAILED, MIB, OK, TIMEOUT, Case, eventually, tool
from link_proxy import BATCH, PING, LinkProxy
from link_strikes import Flip, Hold
from nbd_client import NbdClient

HALF_WAY, UNREACHABLE, FENCED = 9, 10, 11
# How a step may end that the link broke off (ckpt-tool(1), EXIT STATUS).
DOCUMENTED = {FAILED, TIMEOUT, HALF_WAY, UNREACHABLE}
SIZE = 2 * MIB
UNTOUCHED = MIB // 4  # of the disk's beginning: a hole, and remains one
SOAK = os.environ.get("CKPT_LINK_CUTS") == "all"
PAGE = Path(__file__).resolve().parents[2] / "docs/wire-protocol.md"


def frame_types():
    """By number, as the page has them: direction, name, and whether it has a body."""
    messages = re.search(r"^## Messages$(.*?)^Kinds of errors", PAGE.read_text(), re.M | re.S)[1]
    rows = re.findall(r"^\| (\d+) \| ([a-z ]+) \|([^|]*)\|", messages, re.M)
    return {int(number): ("up" if int(number) < 128 else "down", name, bool(body.strip()))
            for number, name, body in rows}


class Scenario(Case):
    """A disk that a proxy keeps apart from its back-up. A step is what somebody asks for; it is
    prepared while nothing strikes."""

    silence = 4
    steps = ("checkpoint", "flood", "reconnect", "attachments", "rollback", "verify",
             "verify_changed", "export", "tools", "spoilt", "idle", "slow", "rejoin", "relay", "release",
             "switch", "first_copy")

    def setUp(self):
        super().setUp()
        seed = int(os.environ.get("CKPT_SEED", random.randrange(1 << 31)))
        print(f"{self.id()}: CKPT_SEED={seed}")
        self.random = random.Random(seed)
        self.backupd = self.keep(f"--silence={self.silence}")
        self.proxy = LinkProxy(self.folder, self.backupd.address)
        self.addCleanup(self.proxy.close)
        self.model = bytearray(bytes(UNTOUCHED) + self.content(SIZE - UNTOUCHED))
        self.server = self.serve_through(self.image(size=SIZE), self.model)
        self.volume = tool("status", self.server.image)["volume"]
        self.copies = 0
        self.lure = None  # strikes in a step, too, so that a frame comes that is rare
        self.laid = [[], []]  # what may strike in this step, and what did in the one before
        self.models = {}  # by checkpoint
        self.answered = 0
        self.asked = bytes(self.model)
        self.checkpoint()
        self.expect_all()

    def content(self, size):
        """Data and holes in turn."""
        piece = 16384
        return b"".join(self.random.randbytes(piece) + bytes(piece)
                        for _ in range(size // piece // 2))

    def serve_through(self, image, content, address=None):
        """A server over an image that has that content."""
        with open(image, "r+b") as file:
            for at in range(0, len(content), 4096):
                if any(content[at:at + 4096]):
                    file.seek(at)
                    file.write(content[at:at + 4096])
        return self.serve(image, f"backup={address or self.proxy.address}", "compress=none",
                          "batch-bytes=64K")

    def through(self):
        """The volume's name for tools that ask backupd themselves, over the proxy."""
        return f"{self.proxy.address}/{self.volume}"

    # What holds after each step.

    def store(self):
        """What backupd has, past the proxy: number of the checkpoint and content."""
        def applied():
            backup = tool("status", f"{self.backupd.address}/{self.volume}")["backup"]
            return backup["confirmed"] if backup["applied"] == backup["confirmed"] else None
        number = eventually(applied, "the store has applied what it confirmed", 120)
        content = (self.backupd.store / self.volume / "backup.img").read_bytes()
        return (number, content) if applied() == number else self.store()

    def expect_store(self):
        """It has the last checkpoint that was answered, or that which was asked for and broke off; all
        of it, and nothing else."""
        number, content = self.store()
        self.assertGreaterEqual(number, self.answered, "a checkpoint that was answered is lost")
        if number not in self.models:
            self.models[number] = self.asked
        self.answered = number
        self.expect_bytes(content, self.models[number], f"the store at checkpoint {number}")

    def expect_primary(self):
        self.expect_bytes(self.server.image.read_bytes(), self.model, "the primary")

    def expect_bytes(self, found, wanted, what):
        if found != wanted:
            at = next((i for i, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), None)
            self.fail(f"{what} is not what was written: {len(found)} bytes, differ at {at}")

    def expect_all(self):
        self.assertTrue(self.server.running, f"the server ended: {self.server.said()}")
        self.assertIsNone(self.backupd.process.poll(), f"backupd ended: {self.backupd.said()}")
        self.expect_store()
        self.expect_primary()

    # How steps are asked for.

    def run_step(self, name, *strikes):
        self.lure = None
        getattr(self, f"prepare_{name}", lambda: None)()
        if self.lure:
            strikes += self.lure,
        self.laid = [strikes, [one for one in self.laid[0] if one.happened.is_set()]]
        self.proxy.lay(*strikes)
        getattr(self, name)()
        self.expect_all()

    def insist(self, ask, refused=None):
        """Asks until it is done. What struck in this step or in the one before may be a reason to refuse,
        once each."""
        refusals = 0
        while True:
            answer = ask()
            if answer.code == OK:
                return answer
            refusals += 1
            what = f"{answer}, after {'; '.join(map(str, [*self.laid[0], *self.laid[1]]))}"
            struck = [one for laid in self.laid for one in laid if one.happened.is_set()]
            self.assertIn(answer.code, DOCUMENTED, what)
            self.assertLessEqual(refusals, len(struck), f"refused without a reason: {what}")
            if refused:
                refused(answer)

    def scribble(self, count=40, longest=9000):
        with NbdClient(str(self.server.socket)) as client:
            for _ in range(count):
                length = self.random.randrange(1, longest)
                offset = self.random.randrange(UNTOUCHED, SIZE - length)
                if self.random.random() < 0.2:
                    client.zero(offset, length)
                    self.model[offset:offset + length] = bytes(length)
                else:
                    data = self.random.randbytes(length)
                    client.write(offset, data)
                    self.model[offset:offset + length] = data

    # The steps.

    def take(self, *options):
        self.asked = bytes(self.model)
        answer = tool("checkpoint", self.server.image, *options, expect=None)
        if answer.code == OK:
            number = answer["checkpoint"]
            self.assertGreater(number, max(self.models, default=0), "numbers go back")
            self.models = {number: self.asked}
            self.answered = number
        return answer

    def checkpoint_broke_off(self, _answer):
        """It is there, or not; what is written now is in neither."""
        self.expect_store()
        self.scribble(5)

    def checkpoint(self, *options):
        return self.insist(lambda: self.take(*options), self.checkpoint_broke_off)

    def prepare_checkpoint(self):
        self.scribble()

    def prepare_flood(self):
        self.scribble(20, 100000)

    def flood(self):
        self.checkpoint()

    def prepare_reconnect(self):
        self.scribble(10)
        self.proxy.cut_all()

    def reconnect(self):
        self.checkpoint()

    def prepare_attachments(self):
        self.scribble(5)
        self.attached = {f"a{i}": self.random.randbytes(self.random.randrange(1, 3000))
                         for i in range(3)}
        self.attached["large"] = self.random.randbytes(MIB + 12345)

    def attachments(self):
        """They are put with a checkpoint, and got again."""
        for name, content in self.attached.items():
            (self.folder / name).write_bytes(content)
        self.checkpoint(*(word for name in self.attached
                          for word in ("--attach", f"{name}={self.folder / name}")))
        for name, content in self.attached.items():
            self.export(self.through(), content, "--attachment", name)

    def prepare_export(self):
        """Applied zeroes are holes."""
        with NbdClient(str(self.server.socket)) as client:
            for at in range(UNTOUCHED, SIZE, 1 << 18):
                client.zero(at, 1 << 16)
                self.model[at:at + (1 << 16)] = bytes(1 << 16)
        self.checkpoint()
        self.expect_store()

    def export(self, volume=None, content=None, *options):
        out = self.folder / "out"
        out.unlink(missing_ok=True)

        def nothing_is_there(_answer):
            self.assertFalse(out.exists(), "half of an export")
        self.insist(lambda: tool("export", volume or self.server.image, "last", out, *options,
                                 expect=None), nothing_is_there)
        self.expect_bytes(out.read_bytes(), content or self.models[self.answered], "what is exported")

    def prepare_rollback(self):
        self.expect_store()
        self.scribble(80, 6000)

    def rollback(self):
        """However the link breaks, it waits for its store and goes on by itself, once it has begun."""
        def ask():
            answer = tool("rollback", self.server.image, "--yes", expect=None)
            self.assertNotEqual(answer.code, HALF_WAY, answer)
            return answer
        self.insist(ask)
        self.model = bytearray(self.models[self.answered])

    def verify(self):
        answer = self.insist(lambda: tool("verify", self.server.image, expect=None))
        self.assertEqual(answer["mismatched_bytes"], 0, answer)

    def prepare_verify_changed(self):
        """Next to what has changed, blocks are compared byte by byte."""
        self.checkpoint()
        self.scribble(12)

    verify_changed = verify

    def tools(self):
        listed = self.insist(lambda: tool("list", self.proxy.address, expect=None))["volumes"]
        self.assertIn(self.volume, [one["volume"] for one in listed])
        def status():
            answer = tool("status", self.through(), expect=None)
            if answer.code == OK and answer["backup"]["error"]:
                answer.code = UNREACHABLE  # it says so
            return answer
        kept = self.insist(lambda: tool("list", self.through(), expect=None))["checkpoints"]
        self.assertEqual(kept[-1]["checkpoint"], self.answered)
        self.assertEqual(self.insist(status)["backup"]["confirmed"], self.answered)

    def prepare_spoilt(self):
        self.checkpoint()  # there is a session
        self.scribble(5)
        self.lure = Flip("up", BATCH, self.random, "payload")

    def spoilt(self):
        """A batch has a wrong byte: backupd says so, and the session begins anew on its connection."""
        self.checkpoint()

    def idle(self):
        before = self.proxy.trace.count(("up", PING))
        eventually(lambda: self.proxy.trace.count(("up", PING)) > before, "a ping", 60)

    def prepare_slow(self):
        self.checkpoint()
        self.scribble(5)
        self.lure = Hold("up", BATCH)

    def slow(self):
        """backupd has to wait for the end of a batch."""
        self.checkpoint()

    def prepare_rejoin(self):
        """Of another volume, whose back-up was promoted: its old image is here now."""
        self.copies += 1
        image, self.rejoined = self.image(f"{self.copies}.img", size=MIB), bytearray(self.content(MIB))
        far = self.keep(store=self.folder / f"far-{self.copies}")
        old = self.serve_through(image, self.rejoined, far.address)
        volume = tool("checkpoint", image) and tool("status", image)["volume"]
        with NbdClient(str(old.socket)) as client:
            client.write(12345, b"lost" * 5000)
        old.kill9()
        far.kill9()
        self.promoted = Path(tool("promote", far.store / volume, "--yes")["image"])
        far.start()
        tool("rejoin", image, "--store", self.backupd.store, "--yes")
        far.stop()
        for ended in old, far:
            self._logged.remove(ended)

    def rejoin(self):
        server = self.serve_through(self.promoted, b"")
        with NbdClient(str(server.socket)) as client:
            data = self.random.randbytes(5000)
            client.write(MIB // 2 + 99, data)
            self.rejoined[MIB // 2 + 99:MIB // 2 + 99 + len(data)] = data
        self.insist(lambda: tool("checkpoint", self.promoted, expect=None))
        volume = tool("status", self.promoted)["volume"]
        eventually(lambda: self.is_applied(volume), "it is applied", 60)
        kept = (self.backupd.store / volume / "backup.img").read_bytes()
        self.expect_bytes(kept, bytes(self.rejoined), "the image that rejoined")
        tool("verify", self.promoted)
        server.stop()
        self._logged.remove(server)

    def prepare_relay(self):
        """Of another volume, whose back-up another backupd has."""
        self.copies += 1
        image, self.relayed = self.image(f"{self.copies}.img", size=MIB), self.content(MIB)
        near = self.keep(store=self.folder / f"near-{self.copies}")
        server = self.serve_through(image, self.relayed, near.address)
        tool("checkpoint", image)
        self.relayed_volume = tool("status", image)["volume"]
        server.stop()
        near.stop()
        config = self.folder / "relay.toml"
        config.write_text(f'[[relay]]\nto = "{self.proxy.address}"\nvolume = "{self.relayed_volume}"\n')
        self.near = self.keep("--config", config, f"--silence={self.silence}", store=near.store, start=False)
        for ended in server, near:
            self._logged.remove(ended)

    def relay(self):
        """It passes the last checkpoint on."""
        self.near.start()
        def has_passed():
            status = tool("status", f"{self.backupd.address}/{self.relayed_volume}", expect=None)
            return status.code == OK and status["backup"]["confirmed"] is not None
        eventually(has_passed, "it is passed on", 120)
        eventually(lambda: self.is_applied(self.relayed_volume), "it is applied", 60)
        kept = (self.backupd.store / self.relayed_volume / "backup.img").read_bytes()
        self.expect_bytes(kept, self.relayed, "what was passed on")
        self.near.stop()
        self._logged.remove(self.near)

    def prepare_release(self):
        """Of another volume, whose server was killed."""
        self.copies += 1
        image, self.lost = self.image(f"{self.copies}.img", size=MIB), self.content(MIB)
        server = self.serve_through(image, self.lost, self.backupd.address)
        tool("checkpoint", image)
        self.lost_folder = self.backupd.folder_of(server)
        server.kill9()
        self._logged.remove(server)

    def release(self):
        """backupd lets go of it, so that it is promoted."""
        answer = self.insist(lambda: tool("promote", self.lost_folder, "--yes", "--force", "--backupd",
                                          self.proxy.address, expect=None))
        kept = (self.lost_folder / "backup.img").read_bytes()
        self.expect_bytes(kept, self.lost, "what was promoted")
        name = f"{self.backupd.address}/{answer['volume']}"
        eventually(lambda: "promoted" in tool("status", name)["backup"]["error"], "backupd has it again")

    def prepare_switch(self):
        """Of another volume, that nobody serves."""
        self.copies += 1
        image = self.image(f"{self.copies}.img", size=MIB)
        server = self.serve_through(image, self.content(MIB))
        tool("checkpoint", image)
        with NbdClient(str(server.socket)) as client:
            client.write(54321, b"in no checkpoint")
        self.switched, self.switched_content = server, image.read_bytes()
        self.switched_volume = tool("status", image)["volume"]
        server.stop()
        self._logged.remove(server)

    def switch(self):
        """Whatever breaks, nothing is lost, and one of the two is the primary."""
        image, shelf = self.switched.image, self.folder / "switched"
        shelf.mkdir(exist_ok=True)
        def ask():
            answer = tool("switch", image, "--store", shelf, "--yes", expect=None)
            if answer.code == FENCED:  # the answer was lost
                answer = tool("rejoin", image, "--store", shelf, "--yes", expect=None)
            return answer
        self.insist(ask)
        folder = self.backupd.store / self.switched_volume
        tool("promote", folder, "--yes")
        for place in folder, shelf / self.switched_volume:
            self.expect_bytes((place / "backup.img").read_bytes(), self.switched_content, str(place))

    def first_copy(self):
        """Of another volume."""
        self.copies += 1
        content = self.content(MIB)
        image = self.image(f"{self.copies}.img", size=MIB)
        other = self.serve_through(image, content)
        self.insist(lambda: tool("checkpoint", image, expect=None))
        volume = tool("status", image)["volume"]
        eventually(lambda: self.is_applied(volume), "the copy is applied", 60)
        kept = (self.backupd.store / volume / "backup.img").read_bytes()
        self.expect_bytes(kept, content, "the copy")
        tool("verify", image)
        other.stop()
        self._logged.remove(other)

    def is_applied(self, volume):
        backup = tool("status", f"{self.backupd.address}/{volume}")["backup"]
        return backup["confirmed"] == backup["applied"]
