# SPDX-License-Identifier: Apache-2.0
"""Volumes whose server was killed, and what their back-ups must be when they were promoted."""

import hashlib
import random
import shutil
from pathlib import Path

from harness import MIB, Case, tool
from nbd_client import NbdClient

SIZE = 32 * MIB
INTERRUPTIONS = 30


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def write_some(server, draw, count=40):
    with NbdClient(str(server.socket)) as client:
        for _ in range(count):
            data = draw.randbytes(draw.randrange(1, 70000))
            client.write(draw.randrange(client.size - len(data)), data)
        client.zero(draw.randrange(client.size - MIB), MIB)
        client.flush()


class PromoteCase(Case):
    def setUp(self):
        super().setUp()
        self.draw = random.Random(7)
        self.truth = self.folder / "truth.raw"

    def lost(self, *parameters, kept=True):
        """A volume that has changed since its checkpoint, whose server was killed; truth is what it
        was then."""
        server = self.serve(self.image(size=SIZE), *parameters)
        write_some(server, self.draw)
        if kept:
            self.checkpoint = tool("checkpoint", server.image, "--name", "kept")["checkpoint"]
        shutil.copyfile(server.image, self.truth)
        write_some(server, self.draw)
        server.kill9()
        return server

    def lost_at(self, backupd):
        server = self.lost(f"backup={backupd.address}")
        folder = backupd.folder_of(server)
        backupd.kill9()  # with what was pending, and perhaps not applied
        return server, folder

    def serve_promoted(self, answer, *parameters, **options):
        parameters = parameters or ("backup=embedded",)
        return self.serve(Path(answer["image"]), *parameters, **options)

    def assert_works(self, server):
        """It is the checkpoint, and is protected again once the new back-up has its own."""
        self.assertEqual(digest(server.image), digest(self.truth))
        write_some(server, self.draw)
        again = tool("checkpoint", server.image)
        self.assertGreater(again["checkpoint"], self.checkpoint)
        then = digest(server.image)
        verified = tool("verify", server.image)
        self.assertEqual((verified["checked_bytes"], verified["mismatched_bytes"]), (SIZE, 0))
        write_some(server, self.draw)
        self.assertNotEqual(digest(server.image), then)
        tool("rollback", server.image, "--yes")
        self.assertEqual(digest(server.image), then)
