# SPDX-License-Identifier: Apache-2.0
"""What protection costs beside the clients' time: bytes that are sent for each that is written, where the same
blocks are written again and again; processor time for each byte that is shipped; and how long a rollback takes."""

import time

from load import Checkpoints, Job, run_fio
from report import Row, rounds, spread
from scatter import write_scattered
from servers import GIB, MIB

SECTION = "costs"
# Of fio(1): the larger, the fewer blocks take most of the writes.
ZIPF = (0.8, 1.1, 1.4)


def zipf_job(theta):
    return Job(f"zipf {theta}", "randwrite", "4k", 16,
               more=("--norandommap", f"--random_distribution=zipf:{theta}"))


def rewriting(place, options, theta, say):
    """Sent over written, with a checkpoint every second. What is sent of what does not shrink."""
    found, notes = [], []
    for _ in rounds(options, f"{SECTION}: zipf {theta}", say):
        server = place.serve("ckpt", place.image(GIB), "compress=none")
        server.settle()
        before = server.ask("status")["shipped_bytes"]
        with Checkpoints(server, kills=False) as checkpoints:
            result = run_fio(server, zipf_job(theta), options.seconds)
        server.ask("checkpoint", timeout_ms=600000)  # what was written last counts, too
        shipped = server.ask("status")["shipped_bytes"] - before
        found.append(shipped / (result["operations"] * 4096))
        notes.append(len(checkpoints.outcomes))
        server.kill()
    return Row(SECTION, f"bytes sent for each that is written, 4k random at qd 16, zipf {theta}", spread(found),
               "", theta=theta, note=f"{spread(notes)['median']:g} checkpoints a run")


def processor(place, options, pattern, job, say):
    """Seconds for each GiB: read, compressed, confirmed and applied."""
    found = []
    size = 64 * MIB if options.smoke else GIB
    for _ in rounds(options, f"{SECTION}: processor time, {pattern}", say):
        # With content: what a back-up image takes for the first time costs more, and once.
        server = place.serve("ckpt", place.image(GIB, "written"), "batch-delay=1000000", "batch-bytes=2G")
        server.settle()
        run_fio(server, Job(job.name, job.rw, job.block, job.depth, bytes=size))
        before = server.cpu_seconds()
        answer = server.ask("checkpoint", timeout_ms=600000)
        server.settle()
        found.append((server.cpu_seconds() - before) / answer["changed_bytes"] * GIB)
        server.kill()
    return Row(SECTION, f"processor time for each GiB that is shipped and applied, {pattern}", spread(found), "s")


PATTERNS = {"256k sequential": Job("sequential", "write", "256k", 8),
            "4k random": Job("random", "randwrite", "4k", 16)}


def rollbacks(place, options, size, say):
    """How long one takes, from the request to its answer, when that much lies scattered over the disk."""
    found = []
    server = place.serve("ckpt", place.image(2 * GIB, "written", f"back-{size}.img"))
    for seed in rounds(options, f"{SECTION}: rollback of {size // MIB} MiB", say):
        server.settle()
        write_scattered(server, 2 * GIB, size, seed)
        began = time.perf_counter()
        answer = server.ask("rollback", checkpoint="last", clients="refuse")
        found.append(time.perf_counter() - began)
        if answer["restored_bytes"] != size:
            raise RuntimeError(f"not {size} bytes rolled back: {answer}")
    server.stop()
    place.clear()
    return Row(SECTION, f"rollback of {size // MIB} MiB in pieces of 4 to 64 KiB", spread(found), "s", size_bytes=size)


def measure(place, options, say):
    """Yields the rows of all three."""
    for size in (MIB, 4 * MIB) if options.smoke else (MIB, 16 * MIB, 64 * MIB, 256 * MIB, GIB):
        yield [rollbacks(place, options, size, say)]
    for theta in ZIPF:
        yield [rewriting(place, options, theta, say)]
    for pattern, job in PATTERNS.items():
        yield [processor(place, options, pattern, job, say)]
