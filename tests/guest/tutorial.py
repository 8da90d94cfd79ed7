#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of docs/tutorial.md in one shell, and compares what they say with the page.

Commands are the lines with "$ " in blocks marked as console; what follows one is its output, with
"..." for any lines left out. Numbers, units, times, UUIDs and Debian's versions differ from run to
run and are not compared, nor is white space. A block after a line <!-- run by SCRIPT --> is that script's, which
calls this with --by.

Usage: tutorial.py PAGE [--by SCRIPT]            compares; "ok" or "not ok" a command; 1 if any differs
       tutorial.py PAGE [--by SCRIPT] --record   prints the page with the output of this run in it
"""
import argparse
import re
import subprocess
import sys

MARK = "end-of-command-8b1f"
RUN_BY = re.compile(r"<!-- run by (\S+) -->")
# What differs between two runs, each in place of the one before it.
MASKS = [
    (re.compile(r"\bjust now\b"), "1 s ago"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"\b[0-9a-f]{32,}\b"), "DIGEST"),
    (re.compile(r"\(Debian [^)]*\)"), "(Debian VERSION)"),
    (re.compile(r"/dev/(nbd|loop)\d+"), "/dev/DISK"),
    (re.compile(r"(/\S+)?/ckpt-quickstart\.\w+"), "FOLDER"),
    (re.compile(r"\d[\d.,:TZ+-]*( ?([KMGT]i?B|bytes|B|ms|us|µs|s|min|h)\b|[KMGT]\b)?"), "N"),
    (re.compile(r"\bN \(N\)"), "N"),
    (re.compile(r"\s+"), " "),
]


class Shell:
    """One bash, so that variables and background processes stay."""

    def __init__(self):
        self.bash = subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True)

    def run(self, command):
        self.bash.stdin.write(f"{command}\nprintf '\\n%s\\n' {MARK}\n")
        self.bash.stdin.flush()
        lines = []
        for line in self.bash.stdout:
            if line.rstrip("\n") == MARK:
                break
            lines.append(line.rstrip())
        else:
            raise SystemExit(f"not ok - the shell ended in: {command}")
        while lines and not lines[-1]:
            lines.pop()
        return lines


def parse(text, script=None):
    """The page as a list of ("text", line) and ("command", command, expected lines). Commands are those
    of the script's blocks, or of blocks that are no script's."""
    parts = []
    in_block = run_it = False
    whose = None
    for line in text.splitlines():
        if not in_block and (mark := RUN_BY.fullmatch(line)):
            whose = mark[1]
        if line.startswith("```"):
            run_it = not in_block and line == "```console" and whose == script
            whose = None if in_block else whose
            in_block = not in_block
        elif in_block and run_it and line.startswith("$ "):
            parts.append(("command", line[2:], []))
            continue
        elif in_block and run_it and parts[-1][0] == "command":
            if parts[-1][1].endswith("\\"):
                parts[-1] = ("command", parts[-1][1] + "\n" + line, [])
            else:
                parts[-1][2].append(line)
            continue
        parts.append(("text", line))
    return parts


def masked(lines):
    """Those that are not empty, without what is not compared."""
    result = []
    for line in filter(None, lines):
        for pattern, word in MASKS:
            line = pattern.sub(word, line)
        result.append(line.strip())
    return result


def same(expected, actual):
    """Line by line; "..." stands for any number of lines."""
    if not expected:
        return not actual
    if expected[0] == "...":
        return any(same(expected[1:], actual[i:]) for i in range(len(actual) + 1))
    return bool(actual) and expected[0] == actual[0] and same(expected[1:], actual[1:])


def compare(parts):
    shell, differing = Shell(), 0
    for command, expected in [part[1:] for part in parts if part[0] == "command"]:
        actual = shell.run(command)
        if same(masked(expected), masked(actual)):
            print(f"ok - {command}")
        else:
            differing += 1
            print(f"not ok - {command}\n# the page says:", *expected, "# this run:", *actual,
                  sep="\n")
        sys.stdout.flush()
    print(f"{sum(part[0] == 'command' for part in parts)} commands, {differing} differ")
    return 1 if differing else 0


def shortened(expected, actual):
    """Without the lines that the page leaves out before the first that it has."""
    if expected[:1] != ["..."]:
        return actual
    first = masked(expected[1:2])
    begin = next((i for i, line in enumerate(actual) if masked([line]) == first), 0)
    return ["...", *actual[begin:]]


def record(parts):
    shell = Shell()
    for part in parts:
        if part[0] == "text":
            print(part[1])
        else:
            print("$ " + part[1], *shortened(part[2], shell.run(part[1])), sep="\n")
        sys.stdout.flush()
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("page")
    parser.add_argument("--by")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    with open(arguments.page, encoding="utf-8") as page:
        parts = parse(page.read(), arguments.by)
    if not any(part[0] == "command" for part in parts):
        raise SystemExit(f"not ok - {arguments.page} has no command for this script")
    return record(parts) if arguments.record else compare(parts)


if __name__ == "__main__":
    sys.exit(main())
