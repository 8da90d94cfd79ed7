#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Freezes a process of 64 MiB in three ways in turn, and tells for how long each: a dump by CRIU alone,
and checkpoints with its disk after 4 MiB and 256 MiB were changed there, and flushed.

Usage: freeze.py TOOL IMAGE MOUNT SCRATCH ROUNDS JSON TEXT. Runs as root, with IMAGE's disk at MOUNT."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time

MIB = 1 << 20
MEMORY = 64 * MIB
tool, image, mount, scratch, rounds, json_path, text_path = sys.argv[1:]

# Its memory does not shrink, and changes between two dumps.
SUBJECT = f"""
import os, time
memory = bytearray(os.urandom({MEMORY}))
file = open({mount + "/subject"!r}, "ab", 0)
print("ready", flush=True)
while True:
    file.write(b"x" * 512)
    memory[:{MIB}] = os.urandom({MIB})
    time.sleep(0.2)
"""


def start_subject():
    subject = subprocess.Popen([sys.executable, "-S", "-c", SUBJECT], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert subject.stdout.readline() == b"ready\n"
    subject.stdout.close()
    return subject


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def frozen_us(folder):
    """What CRIU notes of a dump (its images/stats.proto): field 1 is of the dump, its field 2 the time."""
    with open(folder + "/stats-dump", "rb") as file:
        data = file.read()
    at = 12  # two magic numbers and a length
    at += 1
    _, at = varint(data, at)
    while True:
        field, at = varint(data, at)
        value, at = varint(data, at)
        if field >> 3 == 2:
            return value


def dump_alone(pid):
    folder = scratch + "/images"
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    subprocess.run(["criu", "dump", "--tree", str(pid), "--images-dir", folder, "--leave-running",
                    "--log-file", "dump.log"], check=True)
    return {"frozen_us": frozen_us(folder)}


def change(mib):
    with open(mount + "/data", "r+b" if os.path.exists(mount + "/data") else "w+b") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def changed_bytes():
    return run_tool("status", image)["changed_bytes"]


def run_tool(*words):
    done = subprocess.run([tool, "--json", *words], check=True, stdout=subprocess.PIPE,
                          stdin=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def checkpoint(pid, mib):
    change(mib)
    changed = changed_bytes()
    result = run_tool("checkpoint", image, "--criu", str(pid), "--fs", mount)
    return {"changed_bytes": changed, **{name: result[name] for name in ("frozen_us", "sync_us", "cut_us")}}


def measure(pid):
    ways = {"CRIU alone": lambda: dump_alone(pid),
            "with 4 MiB changed": lambda: checkpoint(pid, 4),
            "with 256 MiB changed": lambda: checkpoint(pid, 256)}
    runs = {name: [] for name in ways}
    for number in range(-1, int(rounds)):  # the first is not counted: caches are cold
        for name, way in ways.items():
            one = way()
            time.sleep(1)
            print("#", number, name, one, flush=True)
            if number >= 0:
                runs[name].append(one)
    return runs


def milliseconds(runs, field):
    values = [run[field] / 1000 for run in runs if field in run]
    if not values:
        return "-"
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def table(runs):
    lines = ["| checkpoint of a process of 64 MiB | frozen, ms | of that sync | cut |", "|---|---|---|---|"]
    for name, all_runs in runs.items():
        cells = [milliseconds(all_runs, field) for field in ("frozen_us", "sync_us", "cut_us")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


process = start_subject()
try:
    results = measure(process.pid)
finally:
    process.kill()
with open(json_path, "w", encoding="utf-8") as out:
    json.dump({"rounds": int(rounds), "runs": results}, out, indent=1)
with open(text_path, "w", encoding="utf-8") as out:
    out.write(table(results))
