#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks every C++ file of a build folder by itself, without making code.

Usage: each_file.py BUILD_DIR. Exit code 1 if a file has an error or a warning."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def check(entry):
    """The compiler's messages, and whether it found nothing."""
    done = subprocess.run(entry["command"] + " -fsyntax-only", shell=True, cwd=entry["directory"],
                          capture_output=True, text=True)
    return done.stderr, done.returncode == 0


def main(build):
    entries = json.loads((Path(build) / "compile_commands.json").read_text())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(check, entries))
    for messages, _ in results:
        sys.stderr.write(messages)
    print(f"{len(results)} files")
    return 0 if results and all(good for _, good in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
