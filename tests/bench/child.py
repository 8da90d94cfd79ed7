# SPDX-License-Identifier: Apache-2.0
"""A program of this folder that runs beside the benchmark, so that neither disturbs the other."""

import json
import subprocess
import sys
from pathlib import Path


class Child:
    """The program as a process: it takes orders as JSON lines and answers each with one."""

    def __init__(self, program, *arguments):
        self._name = program
        path = Path(__file__).with_name(program)
        self._process = subprocess.Popen([sys.executable, str(path), *map(str, arguments)],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def order(self, **arguments):
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()

    def answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} failed")
        return json.loads(line)
