#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What holds for a volume holds while backupd is killed and started again in the middle of it, at a
Unix socket and by TLS: primary, back-up and a model are compared as whole disks after each rollback,
and after what the tools for NBD disks wrote. CKPT_SEED repeats a run's choices."""

import itertools
import os
import random
import unittest

import test_rollback
from file_tools import FileTools
from harness import FAILED, HALFWAY, OK, Case, eventually, plugin, tool
from phases import PhasePage
from store_deaths import StoreDeaths, is_up
from tls_files import keep_with_keys


def kept_at_socket(case, **where):
    case.backupd = case.keep(**where)


class StoreDies:
    """To be mixed into a Case; `keep_store` is how its backupd is reached."""

    keep_store = kept_at_socket

    def expect_deaths(self, **where):
        """Where the store is kept."""
        self.keep_store(**where)
        seed = int(os.environ.get("CKPT_SEED", random.randrange(1 << 31)))
        print(f"{self.id()}: CKPT_SEED={seed}", flush=True)
        self.deaths = StoreDeaths(self.backupd, random.Random(seed))

    def insist(self, ask):
        """A death before the store was told to confirm makes a checkpoint void, and nothing else
        fails: such a one never comes to be, so that its name is free."""
        def asked():
            answer = ask()
            self.assertIn(answer.code, (OK, FAILED), answer)
            return answer if answer.code == OK else None
        return eventually(asked, "a checkpoint", 90)


class Rollback(StoreDies, test_rollback.RollbackExact):
    """One death in each checkpoint, while blocks are shipped, while it is confirmed and while it is
    applied, in turn, and in each rollback, once the first block was written back."""

    rounds = 1
    least_restored = 0  # who goes on with a rollback may find that nothing is left

    def setUp(self):
        super().setUp()
        self.page = PhasePage(self.folder / "phases")
        self.store_page = PhasePage(self.folder / "store-phases")
        self.expect_deaths(store=self.place / "shelf", environment=self.store_page.environment)
        self.phases = itertools.cycle(("shipping", "confirming", "applying"))

    def tearDown(self):
        print(f"{self.deaths.count} of {self.deaths.asked} deaths in the middle", flush=True)
        self.assertGreaterEqual(self.deaths.count * 3, self.deaths.asked, "most came too late")

    def new_server(self, *parameters, **options):
        return super().new_server(*parameters, environment=self.page.environment, **options)

    def checkpoint(self, server, hammer, name):
        phase = next(self.phases)
        page = self.store_page if phase == "applying" else self.page
        with self.deaths.when(lambda: phase in page.current()):
            made = self.insist(lambda: hammer.checkpoint(server, name, expect=None))
            if phase == "applying":
                eventually(lambda: self.is_applied(server), "the store has applied it")
            return made

    def ask_rollback(self, server, *options, **more):
        """A server waits for its store, and the tool alone says that it stopped half-way."""
        before = os.stat(server.image).st_mtime_ns
        with self.deaths.when(lambda: os.stat(server.image).st_mtime_ns > before):
            done = super().ask_rollback(server, *options, expect=None, **more)
        if done.code == HALFWAY:
            self.assertFalse(server.running, done)
            done = super().ask_rollback(server, *options, **more)
        self.assertEqual(done.code, OK, done)
        return done


def variants():
    """Both links, both ways of I/O, both file systems: each pair of them once."""
    for link, io, file_system in (
            (kept_at_socket, "uring", "ext4"), (kept_at_socket, "sync", "xfs"),
            (keep_with_keys, "uring", "xfs"), (keep_with_keys, "sync", "ext4")):
        name = f"Rollback_{link.__name__}_{io}_{file_system}"
        members = {"keep_store": link, "io": io, "file_system": file_system, "__module__": __name__}
        yield name, type(name, (Rollback,), members)


for variant_name, variant in variants():
    globals()[variant_name] = variant
del variant, Rollback


class Tools(StoreDies, FileTools, Case):
    """Slowed down, so that there is time to die in the middle."""

    def setUp(self):
        super().setUp()
        self.expect_deaths()

    def disk(self, *parameters):
        words = ["--filter=rate", str(plugin())]
        server = super().disk(f"backup={self.backupd.address}", *self.extra, "rate=80M",
                              *parameters, words=words)
        eventually(lambda: is_up(server), "the back-up is there")
        return server

    def meanwhile(self, server, least=1):
        return self.deaths.again_and_again(server, least)

    def take_checkpoint(self, server):
        self.insist(lambda: tool("checkpoint", server.image, expect=None))


class ToolsWithKeys(Tools):
    keep_store = keep_with_keys


if __name__ == "__main__":
    unittest.main()
