# SPDX-License-Identifier: Apache-2.0
"""A disk of 1 TiB: how soon it serves, and how much memory it takes with 1 GiB changed."""

import threading
import time
from dataclasses import replace

from load import Job, run_fio
from report import Row, spread
from servers import GIB, MIB

SECTION = "tebibyte"
TIB = 1 << 40
START_BAR_SECONDS = 1.0
MEMORY_BAR = 96 * MIB
PATTERNS = {"random": Job("4k random over the whole disk", "randwrite", "4k", 16, size="1t"),
            "sequential": Job("256k sequential", "write", "256k", 8, size="1t")}


class Watch:
    """The largest resident memory of a server while the context is open."""

    def __init__(self, server):
        self.most = server.memory()
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _loop(self):
        while not self._over.wait(0.05) and self._server.running:
            self.most = max(self.most, self._server.memory(), key=lambda memory: memory["VmRSS"])


def measure(place, options, say):
    """Yields the rows of starts and of memory."""
    yield starts(place, options.rounds)
    say("1 TiB: starts")
    changed = 64 * MIB if options.quick else GIB
    for pattern, job in PATTERNS.items():
        yield memory(place, pattern, replace(job, bytes=changed))
        say(f"1 TiB: memory, {pattern}")


def start_row(name, seconds):
    return Row(SECTION, f"1 TiB, start until the first read is answered: {name}", spread(seconds),
               "s", START_BAR_SECONDS)


def starts(place, rounds):
    """First and second starts of an untouched disk, and the file plugin's for comparison."""
    first, later, theirs = [], [], []
    for _ in range(rounds):
        image = place.image(TIB, "sparse")
        for found in (first, later):
            server = place.serve("ckpt", image)
            server.settle()
            found.append(server.start_seconds)
            server.stop()
        server = place.serve("file", image)
        theirs.append(server.start_seconds)
        server.stop()
    return [start_row("first", first), start_row("again, nothing changed", later),
            Row(SECTION, "1 TiB, start of nbdkit file", spread(theirs), "s")]


def memory_row(name, memory, changed):
    """The row of one measured VmRSS, judged only with the full 1 GiB."""
    parts = ", ".join(f"{part} {memory[part] / MIB:.1f}"
                      for part in ("RssAnon", "RssShmem", "RssFile"))
    return Row(SECTION, f"1 TiB, VmRSS, {name}", spread([memory["VmRSS"]]), "B",
               MEMORY_BAR if changed >= GIB else None, "<=", note=parts, parts=memory)


def until_unchanged(server, seconds=60):
    """Waits for the image's sync after a checkpoint: until then its blocks count as changed."""
    deadline = time.monotonic() + seconds
    while server.ask("status")["changed_bytes"]:
        if time.monotonic() > deadline:
            raise RuntimeError("the image was not synced after the checkpoint")
        time.sleep(0.1)


def memory(place, pattern, job):
    """Changes the disk, takes a checkpoint, changes it again; then starts with those changes."""
    size = f"{job.bytes // MIB} MiB"
    server = place.serve("ckpt", place.image(TIB, "sparse"))
    server.settle()
    rows = [memory_row(f"{pattern}: before the first write", server.memory(), 0)]
    with Watch(server) as watch:
        run_fio(server, job)
    rows.append(memory_row(f"{pattern}: {size} changed", watch.most, job.bytes))
    with Watch(server) as watch:
        outcome = server.ask("checkpoint", timeout_ms=600000)
        server.settle()
    rows.append(memory_row(f"{pattern}: their checkpoint", watch.most, job.bytes))
    rows.append(Row(SECTION, f"1 TiB, {pattern}: {size} changed, confirm",
                    spread([outcome["confirm_ms"] / 1000]), "s"))
    until_unchanged(server)
    with Watch(server) as watch:
        run_fio(server, replace(job, seed=2))
        server.settle()
    rows.append(memory_row(f"{pattern}: {size} changed after that", watch.most, job.bytes))
    return rows + later_starts(place, server, f"{pattern}, {size} changed")


def later_starts(place, server, name):
    """The start after a clean stop and the one after a kill, with changes that no checkpoint
    covers."""
    stopped = server.stop()
    server = place.serve("ckpt", server.image)
    clean = server.start_seconds
    server.kill()
    server = place.serve("ckpt", server.image)
    killed = server.start_seconds
    server.stop()
    return [start_row(f"{name}, after a clean stop", [clean]),
            start_row(f"{name}, after kill -9", [killed]),
            Row(SECTION, f"1 TiB, {name}: clean stop", spread([stopped]), "s")]
