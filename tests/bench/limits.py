# SPDX-License-Identifier: Apache-2.0
"""Confirmations against a program that does the least that one needs, and rollbacks against nbdcopy of as
many bytes, in turn, with the embedded store. What has changed lies in pieces of 4 to 64 KiB all over the disk,
does not shrink, and none of it was shipped before the checkpoint is asked for."""

import os
import subprocess
import time

from report import in_turn, peer_row, rounds
from scatter import places, write_scattered
from servers import GIB, MIB

SECTION = "limits"
PRODUCTS = ("tests/bench/limit",)
CONFIRM_BAR, ROLLBACK_BAR = 0.8, 0.9
LATE = ("batch-delay=1000000", "batch-bytes=1G")  # nothing is shipped ahead


def needs(_):
    """The programs that are run."""
    return ("nbdcopy",)


class Volume:
    """A disk that changes and is confirmed, or changes and goes back."""

    def __init__(self, place, disk, changed):
        self.disk, self.changed = disk, changed
        self.server = place.serve("ckpt", place.image(disk, "written"), *LATE)
        self.server.ask("checkpoint", timeout_ms=600000)

    def change(self, seed):
        self.server.settle()
        write_scattered(self.server, self.disk, self.changed, seed)
        os.sync()

    def confirm(self, seed):
        """Bytes a second, from the request to its answer."""
        self.change(seed)
        began = time.perf_counter()
        answer = self.server.ask("checkpoint", timeout_ms=600000)
        taken = time.perf_counter() - began
        if answer["changed_bytes"] != self.changed:
            raise RuntimeError(f"not {self.changed} bytes confirmed: {answer}")
        return self.changed / taken

    def roll_back(self, seed):
        """Bytes a second, from the request to its answer."""
        self.change(seed)
        began = time.perf_counter()
        answer = self.server.ask("rollback", checkpoint="last", clients="refuse")
        taken = time.perf_counter() - began
        if answer["restored_bytes"] != self.changed:
            raise RuntimeError(f"not {self.changed} bytes rolled back: {answer}")
        return self.changed / taken


def least(place, volume, seed):
    """Bytes a second of the program that does the least, with what a confirmation of that seed has."""
    volume.server.settle()
    os.sync()
    target = place.folder / "least.img"
    target.unlink(missing_ok=True)
    ranges = sorted(places(volume.disk, volume.changed, seed))
    done = subprocess.run([str(place.build / "tests/bench/limit"), str(volume.server.image), str(target)],
                          input="".join(f"{offset} {length}\n" for offset, length in ranges), text=True,
                          capture_output=True, check=True)
    return volume.changed / float(done.stdout)


def nbdcopy(place, source):
    """Bytes a second of nbdcopy from one nbdkit file to another, made durable as a rollback is."""
    target = place.image(source.stat().st_size, "sparse", "target.img")
    servers = [place.serve("file", path) for path in (source, target)]
    os.sync()
    began = time.perf_counter()
    subprocess.run(["nbdcopy", "--flush", *(server.uri for server in servers)], check=True)
    taken = time.perf_counter() - began
    for server in servers:
        server.stop()
    return source.stat().st_size / taken


def compare(options, say, name, ours, theirs):
    """Both in turn, by seed."""
    contenders = {ours: [], theirs: []}
    for number in rounds(options, f"{SECTION}: {name}", say):
        for act in in_turn(list(contenders), number):
            contenders[act].append(act(number))
    return contenders[ours], contenders[theirs]


def measure(place, options, say):
    """Yields the rows of confirmations and of rollbacks."""
    disk, changed = (GIB // 4, 16 * MIB) if options.smoke else (GIB, 256 * MIB)

    def row(name, peer, bar, found):
        judged = {} if options.smoke else {"bar": bar, "sign": ">="}
        return peer_row(SECTION, f"{name}, {changed // MIB} MiB", peer, found[1], found[0], "B/s", **judged)

    volume = Volume(place, disk, changed)
    found = compare(options, say, "confirm", volume.confirm, lambda seed: least(place, volume, seed))
    yield [row("confirm", "a program that reads, compresses, writes and syncs", CONFIRM_BAR, found)]
    part = place.image(changed, "written", "part.img")
    found = compare(options, say, "rollback", volume.roll_back, lambda _: nbdcopy(place, part))
    yield [row("rollback", "nbdcopy --flush", ROLLBACK_BAR, found)]
    volume.server.stop()
