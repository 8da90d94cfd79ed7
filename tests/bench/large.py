# SPDX-License-Identifier: Apache-2.0
"""A disk of 1 TiB that is idle, that has much changed, and that has little changed: what a checkpoint of a few
blocks costs must not depend on the size of the disk."""

from load import Job, run_fio
from report import Row, spread
from servers import GIB, MIB
from tebibyte import TIB, Watch, until_unchanged

SECTION = "large"
IDLE_BAR, CHANGED_BAR, FEW_BAR_MS = 64 * MIB, 160 * MIB, 50
FEW = 100
LOOP_GIB = 56  # 16 GiB of the disk, of its back-up, and of a journal
SPREAD = Job("4k random over the whole disk", "randwrite", "4k", 16, size="1t")


def memory_row(name, memory, bar):
    parts = ", ".join(f"{part} {memory[part] / MIB:.1f}" for part in ("RssAnon", "RssShmem", "RssFile"))
    return Row(SECTION, name, spread([memory["VmRSS"]]), "B", bar, "<=", note=parts, parts=memory)


def few_blocks(server, size, count):
    """Milliseconds from the request to its answer, of checkpoints of a few blocks all over the disk."""
    found = []
    for seed in range(count):
        server.settle()
        run_fio(server, Job("few", "randwrite", "4k", 1, size=str(size), bytes=FEW * 4096, seed=seed))
        found.append(server.ask("checkpoint", timeout_ms=600000)["confirm_ms"])
    return found


def measure(place, options, say):
    """Yields the rows of checkpoints of a few blocks, and of memory."""
    count = options.rounds
    small = place.serve("ckpt", place.image(GIB, "sparse", "small.img"))
    small.settle()
    few = few_blocks(small, GIB, count)
    small.stop()
    server = place.serve("ckpt", place.image(TIB, "sparse"))
    server.settle()
    yield [memory_row("1 TiB, idle", server.memory(), IDLE_BAR),
           Row(SECTION, f"a checkpoint of {FEW} blocks, 1 GiB", spread(few), "ms"),
           Row(SECTION, f"a checkpoint of {FEW} blocks, 1 TiB", spread(few_blocks(server, TIB, count)), "ms",
               None if options.quick else FEW_BAR_MS)]
    say(f"{SECTION}: few blocks")
    changed = 256 * MIB if options.quick else 16 * GIB
    until_unchanged(server)
    with Watch(server) as watch:
        run_fio(server, Job(SPREAD.name, SPREAD.rw, SPREAD.block, SPREAD.depth, size=SPREAD.size, bytes=changed))
    yield [memory_row(f"1 TiB, {changed // MIB} MiB changed in blocks of 4 KiB", watch.most,
                      CHANGED_BAR if changed >= 16 * GIB else None)]
    say(f"{SECTION}: memory")
    server.kill()
