#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The load generator's oracle, tried on servers that are not ours: it accepts nbdkit's file and
memory plugins, and finds a server that forgets, a flipped byte, an old copy and a torn one."""

import shutil
import unittest

from harness import MIB, Case
from test_verify import flip


class Oracle(Case):
    def foreign(self, plugin, image=None):
        return self.serve(image or self.image(), words=[plugin])

    def expect_mismatch(self, hammer, *words):
        answer = hammer.ask(*words)
        self.assertTrue(answer.startswith("mismatch"), answer)
        return answer

    def test_accepts_the_memory_plugin(self):
        for threads, mode in ((8, "multi"), (1, "single")):
            hammer = self.hammer(self.foreign("memory", "64M"), threads, mode)
            for seed in range(3):
                hammer.must("ops", 800 // threads, seed)
                hammer.must("check", "now")
            hammer.must("adopt", "now")
            self.assertEqual(hammer.must("stats")["modelled"], 0)

    def test_accepts_the_file_plugin_also_after_its_death(self):
        server = self.foreign("file")
        hammer = self.hammer(server, 4)
        for seed in range(5):
            hammer.must("start", seed)
            hammer.must("mark", "open", "begin")
            server.kill9()
            hammer.must("lost")
            hammer.must("check-file", server.image, "now")
            server.start()
            hammer.must("reconnect", server.uri)
            hammer.must("check", "now")
        self.assertGreater(hammer.must("stats")["unknown"], 0)

    def test_errors_leave_a_request_uncertain(self):
        server = self.serve("64M", words=["--filter=error", "memory"], start=False)
        server.parameters = ("error-pwrite-rate=20%", "error-zero-rate=20%")
        hammer = self.hammer(server.start(), 4)
        self.assertGreater(hammer.must("ops", 100, 1)["failed"], 0)
        hammer.must("check", "now")

    def test_finds_a_server_that_forgets(self):
        hammer = self.hammer(self.foreign("null", "64M"), 2)
        hammer.must("ops", 20, 1)
        self.expect_mismatch(hammer, "check", "now")

    def test_finds_one_flipped_byte(self):
        server = self.foreign("file")
        hammer = self.hammer(server, 4)
        hammer.must("ops", 50, 1)
        for offset in (0, 12345678, 64 * MIB - 1):
            flip(server.image, offset)
            answer = self.expect_mismatch(hammer, "check-file", server.image, "now")
            self.assertIn(f"bytes=1 offset={offset} length=1 ", answer)
            flip(server.image, offset)
        hammer.must("check-file", server.image, "now")

    def test_finds_a_copy_of_another_time(self):
        server = self.foreign("file")
        hammer = self.hammer(server, 4)
        copies = [self.folder / name for name in ("a", "b", "c")]
        for copy in copies:
            hammer.must("ops", 30, len(copy.name) + ord(copy.name))
            hammer.must("mark", copy.name, "begin")
            shutil.copyfile(server.image, copy)
            hammer.must("mark", copy.name, "end")
        for copy in copies:
            for mark in copies:
                if copy == mark:
                    hammer.must("check-file", copy, mark.name)
                else:
                    self.expect_mismatch(hammer, "check-file", copy, mark.name)

    def test_finds_a_copy_that_no_single_cut_explains(self):
        server = self.foreign("file")
        hammer = self.hammer(server, 8)
        torn = self.folder / "torn"
        hammer.must("start", 1, "max=65536", "hot=67108864")
        hammer.must("mark", "c", "begin")
        shutil.copyfile(server.image, torn)
        hammer.must("mark", "c", "end")
        hammer.must("stop")
        self.expect_mismatch(hammer, "check-file", torn, "c")
        hammer.must("check", "now")


if __name__ == "__main__":
    unittest.main()
