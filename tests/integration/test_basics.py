#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The export is a right NBD disk: to nbdinfo, nbdcopy, QEMU, fio and to requests of every shape."""

import json
import os
import random
import re
import subprocess
import unittest
from pathlib import Path

from file_tools import FileTools
from harness import (BLOCK, MIB, Case, ServerFailed, build, eventually, plugin,
                     plugin_environment, run, tool)
from nbd_client import FUA, NO_HOLE, NbdClient


class Basics(FileTools, Case):
    io = "auto"

    def test_creates_an_image_of_the_size_asked_for(self):
        server = self.serve(self.folder / "new.img", "size=10M")
        self.assertEqual(os.path.getsize(server.image), 10 * MIB)
        self.assertEqual(self.status(server)["size_bytes"], 10 * MIB)
        with NbdClient(str(server.socket)) as client:
            self.assertEqual(client.size, 10 * MIB)
            self.assertEqual(client.read(0, MIB), bytes(MIB))

    def test_multi_conn_is_announced_only_when_on(self):
        for value in ("off", "on"):
            server = self.serve(self.image(f"{value}.img"), f"multi-conn={value}")
            export = json.loads(run("nbdinfo", "--json", server.uri))["exports"][0]
            self.assertEqual(export["can_multi_conn"], value == "on")

    def test_single_bytes_at_odd_places(self):
        server = self.serve(self.image(size=4 * MIB))
        expected = bytearray(4 * MIB)
        draw = random.Random(3)
        edges = [0, 1, 4095, 4096, 4097, 2 * MIB - 1, 4 * MIB - 1]
        with NbdClient(str(server.socket)) as client:
            for offset in edges + [draw.randrange(4 * MIB) for _ in range(300)]:
                expected[offset] = draw.randrange(1, 256)
                client.write(offset, expected[offset:offset + 1])
            self.assertEqual(client.read(0, 4 * MIB), bytes(expected))

    def test_a_size_that_is_no_multiple_of_the_block(self):
        size = 3 * MIB + 1234
        server = self.serve(self.image(size=size))
        with NbdClient(str(server.socket)) as client:
            self.assertEqual(client.size, size)
            client.write(size - 2000, b"x" * 2000)
            client.zero(size - 1000, 1000)
            self.assertEqual(client.read(size - 2000, 2000), b"x" * 1000 + bytes(1000))
        server.stop()
        self.assertEqual(os.path.getsize(server.image), size)

    def test_zeroes_and_trims_read_as_zeroes(self):
        server = self.serve(self.image(size=4 * MIB))
        with NbdClient(str(server.socket)) as client:
            for offset, length in ((0, BLOCK), (1, 5), (4095, 2), (10000, 300000), (MIB, 2 * MIB)):
                for clear in (client.trim, client.zero, lambda o,
                              n: client.zero(o, n, NO_HOLE | FUA)):
                    client.write(0, b"\xff" * (4 * MIB))
                    clear(offset, length)
                    disk = client.read(0, 4 * MIB)
                    self.assertEqual(disk[offset:offset + length], bytes(length))
                    self.assertEqual(disk.count(0), length)

    def test_no_hole_allocates_and_trim_frees(self):
        server = self.serve(self.image(size=8 * MIB))
        with NbdClient(str(server.socket)) as client:
            client.zero(0, 4 * MIB, NO_HOLE)
            client.flush()
            self.assertGreaterEqual(os.stat(server.image).st_blocks * 512, 4 * MIB)
            client.trim(0, 4 * MIB, FUA)
            self.assertLess(os.stat(server.image).st_blocks * 512, MIB)

    def test_fua_and_flush_are_answered(self):
        server = self.serve(self.image())
        with NbdClient(str(server.socket)) as client:
            client.write(4096, b"f" * 4096, FUA)
            client.trim(8192, 4096, FUA)
            client.flush()
            self.assertEqual(client.read(4096, 4096), b"f" * 4096)

    def test_a_fua_write_survives_kill_9(self):
        server = self.serve(self.image())
        with NbdClient(str(server.socket)) as client:
            client.write(12345, b"kept", FUA)
            server.kill9()
        server.start()
        with NbdClient(str(server.socket)) as client:
            self.assertEqual(client.read(12345, 4), b"kept")

    def test_random_load_leaves_the_disk_as_the_model_says(self):
        for threads, mode in ((8, "multi"), (1, "single")):
            server = self.serve(self.image(f"{mode}.img"),
                                "multi-conn=" + ("on" if mode == "multi" else "off"))
            hammer = self.hammer(server, threads, mode)
            hammer.must("ops", 1200 // threads, 5)
            hammer.must("check", "now")
            hammer.must("disconnect")
            server.stop()
            hammer.must("check-file", server.image, "now")

    def test_a_volume_has_a_name(self):
        server = self.serve(self.image("disk one.img"))
        self.assertEqual(tool("status", server.image)["name"], "disk one.img")
        server.stop()
        self.assertEqual(tool("status", server.image)["name"], "", "only a server knows")
        server = self.serve(server.image, "name=accounts")
        self.assertEqual(tool("status", server.image)["name"], "accounts")
        with self.assertRaisesRegex(ServerFailed, "name=a/b: must be one word of a path"):
            self.serve(self.image("other.img"), "name=a/b")

    def test_dump_plugin_and_help(self):
        for option in ("--dump-plugin", "--help"):
            out = subprocess.run(["nbdkit", str(plugin()), option], capture_output=True, text=True,
                                 check=True, env=plugin_environment())
            self.assertIn("ckpt", out.stdout)
            if option == "--dump-plugin":
                self.assertRegex(out.stdout, r"(?m)^ckpt_version=\d+\.\d+")
                self.assertRegex(out.stdout, r"(?m)^ckpt_io=(sync|uring)")

    def test_debug_flags_say_what_passes_to_the_store(self):
        for flag, line in (
                ("ckpt.ship=1", r"debug: ship: epoch 2, batch \d+: 1 extents, 65536 bytes"),
                ("ckpt.store=1", r"debug: store: confirm 2, 1 epochs covered, in \d+ us")):
            server = self.serve(self.image(f"{flag}.img"), words=["-v", "-D", flag, str(plugin())])
            # Else what is written may be in the first checkpoint.
            eventually(lambda: self.status(server)["protected"], "the first checkpoint")
            with NbdClient(str(server.socket)) as client:
                client.write(0, b"x" * 65536)
            tool("checkpoint", server.image)
            server.stop()
            self.assertRegex(server.log.read_text(), line)
            other = "store" if "ship" in flag else "ship"
            self.assertNotIn(f"debug: {other}:", server.log.read_text())

    def test_the_manuals_name_every_parameter_and_command(self):
        for page, command, pattern in (
                ("nbdkit-ckpt-plugin", ["nbdkit", plugin(), "--help"], r"(?m)^\[?([a-z][-a-z]*=)"),
                ("ckpt-tool", [build() / "tools/ckpt-tool", "--help"], r"(?m)^  ([a-z]+)   ")):
            names = re.findall(pattern, run(*command, env=plugin_environment()))
            self.assertGreater(len(names), 5, page)
            text = (Path(__file__).resolve().parents[2] / f"docs/{page}.pod").read_text()
            headings = "\n".join(line for line in text.splitlines() if line.startswith("="))
            for name in names:
                self.assertRegex(headings, rf"[ <\[]{name}")


class BasicsUring(Basics):
    io = "uring"


class BasicsSync(Basics):
    io = "sync"


if __name__ == "__main__":
    unittest.main()
