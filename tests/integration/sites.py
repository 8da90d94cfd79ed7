# SPDX-License-Identifier: Apache-2.0
"""Two sites, each with a backupd, that change roles; a model says what the disk is."""

import os
import random
from pathlib import Path

from harness import MIB, Case, eventually, tool
from nbd_client import NbdClient

SIZE = 32 * MIB


class Model:
    """What the disk is, now and at the last checkpoint."""

    def __init__(self, draw, size=SIZE):
        self.draw = draw
        self.now = bytearray(size)
        self.kept = bytes(self.now)

    def write(self, client, offset, data):
        client.write(offset, data)
        self.now[offset:offset + len(data)] = data

    def zero(self, client, offset, length):
        client.zero(offset, length)
        self.now[offset:offset + length] = bytes(length)

    def write_some(self, server, count=30):
        with NbdClient(str(server.socket)) as client:
            for _ in range(count):
                data = self.draw.randbytes(self.draw.randrange(1, 40000))
                self.write(client, self.draw.randrange(len(self.now) - len(data)), data)
            self.zero(client, self.draw.randrange(len(self.now) - MIB), self.draw.randrange(1, MIB))
            client.flush()

    def keep(self):
        self.kept = bytes(self.now)

    def go_back(self):
        self.now = bytearray(self.kept)


class Modelled(Case):
    """Tests of one volume at several places; self.model says what the disk is, self.volume which it is."""

    def checkpoint(self, server):
        answer = tool("checkpoint", server.image)
        self.model.keep()
        return answer

    def content(self, path):
        return path.read_bytes()

    def expect_two_copies(self, server, shelf):
        """Both are the model, and a rollback is exact."""
        eventually(lambda: self.status(server)["last_checkpoint"] and self.status(server)["protected"],
                   "the new primary is protected", 120)
        self.model.write_some(server)
        self.checkpoint(server)
        self.assertEqual(tool("verify", server.image)["mismatched_bytes"], 0)
        eventually(lambda: self.is_applied(server), "it is applied")
        self.assertEqual(self.content(server.image), self.model.now)
        self.assertEqual(self.content(shelf / self.volume / "backup.img"), self.model.now)
        self.model.write_some(server)
        tool("rollback", server.image, "--yes")
        self.model.go_back()
        self.assertEqual(self.content(server.image), self.model.now)


class Sites(Modelled):
    """A primary at the first site, its back-up at the second; fail_over() swaps them."""

    def setUp(self):
        super().setUp()
        self.draw = random.Random(int(os.environ.get("CKPT_SEED", "1")))
        self.model = Model(self.draw)
        self.near, self.far = (self.site(name) for name in ("near", "far"))
        self.far.start()
        folder = self.folder / "near"
        self.server = self.serve(self.image(size=SIZE, folder=folder), f"backup={self.far.address}")
        with NbdClient(str(self.server.socket)) as client:
            self.model.write(client, 0, self.draw.randbytes(2 * MIB))
        self.model.write_some(self.server)
        self.checkpoint()

    def site(self, name):
        (self.folder / name).mkdir()
        return self.keep("--silence=2", store=self.folder / name / "shelf", start=False)

    def checkpoint(self, server=None):
        return super().checkpoint(server or self.server)

    def promote(self):
        """The far back-up is the disk from here on; its backupd refuses the old primary."""
        self.far.kill9()
        answer = tool("promote", self.far.store / self.volume, "--yes")
        self.far.start()
        self.model.go_back()
        self.assertEqual(self.content(self.far.store / self.volume / "backup.img"), self.model.now)
        return answer

    @property
    def volume(self):
        if not hasattr(self, "_volume"):
            self._volume = tool("status", self.server.image)["volume"]
        return self._volume

    def serve_promoted(self, answer, address=None, **options):
        return self.serve(Path(answer["image"]), f"backup={address or self.near.address}", **options)

    def rejoin(self, server, *words, **options):
        place = [] if server.image.name == "backup.img" else ["--store", self.near.store]
        self.near.store.mkdir(exist_ok=True)
        return tool("rejoin", server.image, *place, "--yes", *words, **options)

    def swap(self, server):
        self.near, self.far = self.far, self.near
        self.server = server
