#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Completion for bash, as bash calls it."""

import unittest
from pathlib import Path

from harness import Case, build, run, tool

SCRIPT = Path(__file__).resolve().parents[2] / "tools/completion/ckpt-tool.bash"
COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_ckpt_tool
printf '%s\\n' "${COMPREPLY[@]}"
"""


class Completion(Case):
    def complete(self, *words):
        """What is offered for the last of the words that follow the program's name."""
        return run("bash", "-euc", COMPLETE, "bash", SCRIPT, build() / "tools/ckpt-tool",
                   *words).split()

    def test_commands(self):
        self.assertIn("rollback", self.complete(""))
        self.assertGreater(len(self.complete("")), 6)
        self.assertEqual(self.complete("ro"), ["rollback"])
        self.assertEqual(self.complete("doc"), ["doctor"])
        self.assertEqual(self.complete("--state", "/there", "veri"), ["verify"])

    def test_options(self):
        self.assertEqual(self.complete("rollback", "--dr"), ["--dry-run"])
        self.assertIn("--json", self.complete("list", "--"))
        self.assertNotIn("--dry-run", self.complete("list", "--"))
        self.assertEqual(self.complete("rollback", "disk.img", "--clients", "=", "f"), ["fence"])
        self.assertEqual(self.complete("rollback", "--clients", "="), ["refuse", "fence", "keep"])

    def test_checkpoints(self):
        server = self.serve(self.image())
        made = [str(tool("checkpoint", server.image)["checkpoint"]) for _ in range(2)]
        self.assertEqual(self.complete("rollback", "--yes", server.image, ""), [made[-1], "last"])
        self.assertEqual(self.complete("rollback", server.image, "la"), ["last"])
        self.assertEqual(self.complete("rollback", "--clients", "=", "keep", server.image, ""),
                         [made[-1], "last"])
        self.assertEqual(self.complete("show", self.folder / "nothing", ""), ["last"])

    def test_paths_are_left_to_the_shell(self):
        self.assertEqual(self.complete("rollback", ""), [])
        self.assertEqual(self.complete("list", "disk.img", ""), [])
        self.assertEqual(self.complete("doctor", ""), [])
        self.assertEqual(self.complete("--state", ""), [])
        self.assertEqual(self.complete("rollback", "disk.img", "--state", "=", ""), [])


if __name__ == "__main__":
    unittest.main()
