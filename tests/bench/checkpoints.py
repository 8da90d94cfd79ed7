# SPDX-License-Identifier: Apache-2.0
"""How long a checkpoint takes to be confirmed, and how fast a rollback is, by what has changed."""

from load import Job, run_fio
from report import Row, spread
from servers import GIB, MIB

SECTION = "checkpoints"
SIZES = (MIB, 16 * MIB, 64 * MIB, 256 * MIB, GIB)
PATTERNS = {"sequential": Job("sequential", "write", "256k", 8),
            "random 4k": Job("random", "randwrite", "4k", 16)}


def change(server, pattern, size):
    """Changes so many bytes (random: fewer, for some places are hit twice)."""
    job = PATTERNS[pattern]
    run_fio(server, Job(job.name, job.rw, job.block, job.depth, bytes=size))


def confirm_row(server, pattern, size, rounds):
    """Checkpoints asked for right after the last write."""
    found, unshipped = [], []
    for _ in range(rounds):
        server.settle()
        change(server, pattern, size)
        unshipped.append(server.ask("status")["backup"]["unshipped_bytes"])
        found.append(server.ask("checkpoint", timeout_ms=600000))
    changed = spread([one["changed_bytes"] / MIB for one in found])["median"]
    left = spread(unshipped)["median"] / MIB
    return Row(SECTION, f"confirm, {size // MIB} MiB written, {pattern}",
               spread([one["confirm_ms"] for one in found]), "ms", outcomes=found,
               note=f"{changed:.0f} MiB changed, {left:.0f} MiB of it not yet shipped (median)")


def rollback_row(server, pattern, size, rounds):
    """Rollbacks of so much, the client gone."""
    rates = []
    for _ in range(rounds):
        server.ask("checkpoint", timeout_ms=600000)
        server.settle()
        change(server, pattern, size)
        outcome = server.ask("rollback", checkpoint="last", clients="refuse")
        rates.append(outcome["restored_bytes"] / max(outcome["elapsed_ms"], 1) * 1000)
    return Row(SECTION, f"rollback of {size // MIB} MiB, {pattern}", spread(rates), "B/s")


def measure(place, options, say):
    """Yields the rows of both, on one server with a disk that has content."""
    rounds = min(options.rounds, 5)
    server = place.serve("ckpt", place.image(GIB, "written"))
    for pattern in PATTERNS:
        for size in SIZES[:4] if options.quick else SIZES:
            yield [confirm_row(server, pattern, size, rounds)]
        size = SIZES[2] if options.quick else GIB
        yield [rollback_row(server, pattern, size, rounds)]
        say(f"confirm and rollback: {pattern}")
    server.stop()
