#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Completion for bash, as bash calls it, and for zsh, as one types it."""

import os
import unittest
from pathlib import Path

from harness import Case, build, run, tool

FOLDER = Path(__file__).resolve().parents[2] / "tools/completion"
SCRIPT = FOLDER / "ckpt-tool.bash"
COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_ckpt_tool
printf '%s\\n' "${COMPREPLY[@]}"
"""

# A zsh of its own: Tab completes and notes what is offered, Ctrl-X notes the line and leaves.
ZSHRC = """
PROMPT='ready>'
fpath=({completion} $fpath)
autoload -Uz compinit
compinit -u -d {folder}/dump
compadd() {{
  local -a found
  if [[ ${{@[1,(i)--]}} != *-[OAD][[:space:]]* ]]; then
    builtin compadd -A found "$@"
    offered+=("${{(Q)found[@]}}")
  fi
  builtin compadd "$@"
}}
complete-and-note() {{
  offered=()
  _main_complete
  print -rl -- "${{(u)offered[@]}}" > {folder}/offered
}}
zle -C complete-and-note complete-word complete-and-note
bindkey '^I' complete-and-note
leave() {{
  print -r -- "$BUFFER" > {folder}/line
  exit
}}
zle -N leave
bindkey '^X' leave
"""
TYPE = """
zmodload zsh/zpty
zpty shell zsh -i
zpty -r shell out '*ready>*'
zpty -w -n shell "$1"$'\\t\\x18'
while zpty -r shell out; do :; done
"""


class Bash(Case):
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

    def test_checkpoints_where_the_state_is_elsewhere(self):
        server = self.serve(self.image(), f"state={self.folder}/else where")
        made = str(tool("--state", server.state, "checkpoint", server.image)["checkpoint"])
        for words in (("show", "--state", server.state), ("--state", server.state, "show"),
                      ("show", "--state", "=", server.state), ("show", f"--state={server.state}")):
            self.assertEqual(self.complete(*words, server.image, ""), [made, "last"], words)
        self.assertEqual(self.complete("show", server.image, ""), ["last"])

    def test_commands_of_two_words(self):
        self.assertEqual(self.complete("vm", ""), ["run", "checkpoint", "rollback"])
        self.assertEqual(self.complete("vm", "ro"), ["rollback"])
        self.assertEqual(self.complete("vm", "rollback", "--fre"), ["--fresh"])
        server = self.serve(self.image())
        made = str(tool("checkpoint", server.image)["checkpoint"])
        self.assertEqual(self.complete("vm", "rollback", "--qmp", "socket", server.image, ""),
                         [made, "last"])
        self.assertEqual(self.complete("vm", "rollback", ""), [])

    def test_paths_are_left_to_the_shell(self):
        self.assertEqual(self.complete("rollback", ""), [])
        self.assertEqual(self.complete("list", "disk.img", ""), [])
        self.assertEqual(self.complete("doctor", ""), [])
        self.assertEqual(self.complete("--state", ""), [])
        self.assertEqual(self.complete("rollback", "disk.img", "--state", "=", ""), [])


class Zsh(Case):
    def setUp(self):
        super().setUp()
        (self.folder / ".zshrc").write_text(ZSHRC.format(completion=FOLDER, folder=self.folder))
        self.here = self.folder / "here"
        self.here.mkdir()
        (self.here / "disk.img").touch()
        (self.here / "disk.img.ckpt").mkdir()

    def complete(self, *words):
        """What Tab offers behind these words; and what it makes of the line, into self.line."""
        line = " ".join(str(word) for word in (build() / "tools/ckpt-tool", *words))
        run("zsh", "-fc", TYPE, "zsh", line, cwd=self.here, timeout=60,
            env={**os.environ, "ZDOTDIR": str(self.folder), "TERM": "dumb"})
        self.line = (self.folder / "line").read_text().rstrip("\n").split(" ", 1)[1]
        return (self.folder / "offered").read_text().split()

    def test_commands(self):
        offered = self.complete("")
        self.assertLess({"status", "rollback", "verify"}, set(offered))
        self.assertEqual(self.complete("ro"), ["rollback"])
        self.assertEqual(self.line, "rollback ")
        self.assertEqual(self.complete("--state", "/there", "veri"), ["verify"])

    def test_every_command_that_the_help_lists(self):
        listed = run(build() / "tools/ckpt-tool", "--help").split("\nCommands:\n")[1]
        names = [line.split()[0] for line in listed.split("\n\n")[0].splitlines()]
        self.assertEqual(sorted(self.complete("")), sorted(names))

    def test_options(self):
        self.assertEqual(self.complete("rollback", "--dr"), ["--dry-run"])
        self.assertEqual(self.line, "rollback --dry-run ")
        offered = self.complete("list", "--")
        self.assertLess({"--json", "--state"}, set(offered))
        self.assertNotIn("--dry-run", offered)
        self.assertIn("--version", self.complete("--"))
        self.assertEqual(self.complete("rollback", "disk.img", "--clients=f"), ["fence"])
        self.assertEqual(self.line, "rollback disk.img --clients=fence ")
        self.assertEqual(self.complete("rollback", "--clients", ""), ["refuse", "fence", "keep"])
        self.assertNotIn("--yes", self.complete("rollback", "--yes", "--"))

    def test_commands_of_two_words(self):
        self.assertEqual(sorted(self.complete("vm", "")), ["checkpoint", "rollback", "run"])
        self.assertEqual(self.complete("vm", "ro"), ["rollback"])
        self.assertEqual(self.complete("vm", "rollback", "--fre"), ["--fresh"])
        self.assertEqual(self.line, "vm rollback --fresh ")
        server = self.serve(self.image())
        made = str(tool("checkpoint", server.image)["checkpoint"])
        self.assertEqual(self.complete("vm", "rollback", server.image, ""), [made, "last"])

    def test_checkpoints(self):
        server = self.serve(self.image())
        made = [str(tool("checkpoint", server.image)["checkpoint"]) for _ in range(2)]
        self.assertEqual(self.complete("rollback", "--yes", server.image, ""), [made[-1], "last"])
        self.assertEqual(self.complete("rollback", server.image, "la"), ["last"])
        self.assertEqual(self.line, f"rollback {server.image} last ")
        self.assertEqual(self.complete("show", f"'{server.image}'", ""), [made[-1], "last"])
        self.assertEqual(self.complete("show", self.folder / "nothing", ""), ["last"])
        self.assertNotIn("last", self.complete("list", server.image, ""))

    def test_checkpoints_where_the_state_is_elsewhere(self):
        server = self.serve(self.image(), f"state={self.folder}/elsewhere")
        made = str(tool("--state", server.state, "checkpoint", server.image)["checkpoint"])
        for words in (("show", "--state", server.state), ("--state", server.state, "show"),
                      ("show", f"--state={server.state}")):
            self.assertEqual(self.complete(*words, server.image, ""), [made, "last"])
        self.assertEqual(self.complete("show", server.image, ""), ["last"])

    def test_paths_are_left_to_the_shell(self):
        for words in (("rollback", "di"), ("--state", "di"), ("list", "--state=di"),
                      ("rollback", "disk.img", "--state", "di")):
            self.assertEqual(set(self.complete(*words)), {"disk.img", "disk.img.ckpt"}, words)


if __name__ == "__main__":
    unittest.main()
