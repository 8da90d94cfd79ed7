#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How long a disk is away when its machine dies: from kill -9 of server and backupd to the first answered
read and write on the promoted back-up, with little and with much that is confirmed and not applied yet.
backupd dies too, since it has to be stopped for the promotion. Split into the promotion, the start of
the new server, and the first requests. Nothing detects the death here: that is up to whoever does.

Usage: failover.py [--build DIR] [--rounds N] [--mib MIB,MIB] [--folder DIR] [--out FILE]"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

from harness import MIB, Backupd, Server, tool  # noqa: E402
from nbd_client import NbdClient  # noqa: E402

SPARE_MIB = 64  # of the disk, beyond what is written
PARTS = ("promote, ms", "start, ms", "first read and write, ms", "all, ms", "not applied yet, MiB")


def write(client, mib):
    piece = os.urandom(MIB)  # which no compression makes smaller
    for offset in range(0, mib * MIB, MIB):
        client.write(offset, piece)


def lose(folder, mib):
    """A volume whose last checkpoint covers so much, and both of its machines, dead at once after it."""
    image = folder / "disk.img"
    with open(image, "wb") as file:
        file.truncate((mib + SPARE_MIB) * MIB)
    backupd = Backupd(folder / "shelf", folder=folder).start()
    server = Server(image, f"backup={backupd.address}", folder=folder)
    server.start()
    tool("checkpoint", image)
    with NbdClient(str(server.socket)) as client:
        write(client, mib)
        client.flush()
        store = backupd.folder_of(server)
        tool("checkpoint", image, "--timeout", "600", timeout=900)
        unapplied = tool("status", image)["backup"]["confirmed_bytes"]
        server.kill9()
        backupd.kill9()
    server.cleanup()
    backupd.cleanup()
    return store, unapplied


def fail_over(store, folder):
    """Seconds: of the promotion, of the start, and of the first requests."""
    times = [time.monotonic()]
    answer = tool("promote", store, "--yes", timeout=900)
    times.append(time.monotonic())
    server = Server(Path(answer["image"]), "backup=none", folder=folder)
    try:
        server.start()
        times.append(time.monotonic())
        with NbdClient(str(server.socket)) as client:
            client.read(0, 4096)
            client.write(0, b"x" * 4096)
            times.append(time.monotonic())
    finally:
        server.cleanup()
    return [after - before for before, after in zip(times, times[1:])]


def measure(mib, scratch):
    with tempfile.TemporaryDirectory(prefix="ckpt-failover-", dir=scratch) as name:
        folder = Path(name)
        store, unapplied = lose(folder, mib)
        parts = fail_over(store, folder)
    return dict(zip(PARTS, [*(1000 * part for part in (*parts, sum(parts))), unapplied / MIB]))


def summarize(rounds):
    return {part: {"median": statistics.median(one[part] for one in rounds),
                   "least": min(one[part] for one in rounds),
                   "most": max(one[part] for one in rounds)} for part in PARTS}


def show(mib, summary):
    figures = " ".join(f"| {value['median']:.0f} ({value['least']:.0f}–{value['most']:.0f})"
                       for value in summary.values())
    print(f"| {mib} MiB {figures} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mib", default="0,64,1024")
    parser.add_argument("--folder", help="where the disks are [$TMPDIR]")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    if arguments.build:
        os.environ["CKPT_BUILD"] = arguments.build
    sizes = [int(size) for size in arguments.mib.split(",")]
    found = {size: [] for size in sizes}
    for _ in range(arguments.rounds):
        for size in sizes:
            found[size].append(measure(size, arguments.folder))
    print(f"| confirmed last | {' | '.join(f'{part}' for part in PARTS)} |")
    print("|---" * (len(PARTS) + 1) + "|")
    for size in sizes:
        show(size, summarize(found[size]))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
