# SPDX-License-Identifier: Apache-2.0
"""How much memory a backupd takes for each connected, idle volume, many of them at once.

Each volume has an nbdkit of its own and a sparse disk with 1 MiB of content. Measured are backupd
before the first one, with a quarter, with all, and with all after each has shipped some more and
made another checkpoint: what was allocated for that should not stay. nbdkit takes more than
backupd: if the machine's memory is not enough, there are fewer volumes; the table says how many."""

import os
import time
from pathlib import Path

from backup import is_applied, keep, wait_for
from report import Row, spread
from scatter import write_scattered
from servers import GIB, MIB

SECTION = "remote-memory"
BAR = 4 * MIB
CONTENT = MIB  # of each volume at first
SHIPPED = 4 * MIB  # by each volume later, at most a quarter of it
SAMPLES = 5
IDLE_SECONDS = 12  # more than the 5 s after which an idle connection is pinged
SPARE = 2 * GIB  # of memory, for the page cache and others


def needs(_):
    """The programs that are run."""
    return ()


def available_bytes():
    """Memory that can be taken without swapping (proc_meminfo(5))."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def sample(backupd, options):
    """Its memory when nothing has happened for some seconds: {kind: spread}."""
    time.sleep(0.5 if options.smoke else IDLE_SECONDS)
    found = []
    for _ in range(SAMPLES):
        found.append(backupd.memory())
        time.sleep(0.1 if options.smoke else 1)
    return {kind: spread([one[kind] for one in found]) for kind in found[0]}


def start_volume(place, backupd, number, options):
    """A server whose first checkpoint is applied."""
    image = place.image(options.volume, "sparse", f"v{number}.img")
    with open(image, "r+b") as file:
        file.write(os.urandom(CONTENT))
    server = place.serve("ckpt", image, f"backup={backupd.address}")
    wait_for(server, is_applied, "the first checkpoint")
    return server


def how_many(options, servers):
    """As many as fit, by what the first ones take: twice their own memory."""
    private = [server.memory()["RssAnon"] + server.memory()["RssShmem"] for server in servers]
    fit = int((available_bytes() - SPARE) / (2 * max(private)))
    return min(options.volumes, len(servers) + max(fit, 0))


class Memory:
    """Samples of backupd, and the rows that they make."""

    def __init__(self, backupd, options):
        self._backupd, self._options = backupd, options
        self._empty = sample(backupd, options)

    def empty_rows(self):
        return [Row(SECTION, f"backupd, no volumes: {kind}", self._empty[kind], "B")
                for kind in ("Pss", "Rss")]

    def rows(self, count, done=""):
        """Those of so many volumes that are idle now: all together, and a volume's share."""
        found = sample(self._backupd, self._options)
        return [Row(SECTION, f"backupd, {count} volumes connected and idle{done}", found["Pss"],
                    "B", note=self._note(found, count)),
                *(self._share(kind, found[kind], count) for kind in ("Pss", "Rss"))]

    def _note(self, found, count):
        parts = ", ".join(f"{kind} {found[kind]['median'] / MIB:.1f} MiB" for kind in found)
        return (f"{parts}, {self._backupd.count_of('task')} threads, "
                f"{self._backupd.count_of('fd')} descriptors")

    def _share(self, kind, found, count):
        share = spread([(value - self._empty[kind]["median"]) / count for value in found["values"]])
        return Row(SECTION, f"the same, a volume: {kind}", share, "B",
                   None if self._options.smoke else BAR, "<=")


def start_some(place, backupd, numbers, options, say):
    """Servers of that many volumes more."""
    servers = []
    for number in numbers:
        servers.append(start_volume(place, backupd, number, options))
        if (number + 1) % 50 == 0:
            say(f"{SECTION}: {number + 1} volumes")
    return servers


def ship(server, options, seed):
    """Changes something, and makes a checkpoint of it."""
    write_scattered(server, options.volume, min(SHIPPED, options.volume // 4), seed)
    server.ask("checkpoint", timeout_ms=600000)


def ship_all(servers, options):
    """Every volume ships and makes a checkpoint; what was done, when all of it is applied."""
    for number, server in enumerate(servers):
        ship(server, options, number)
    for server in servers:
        wait_for(server, is_applied, "all is applied")
    shipped = min(SHIPPED, options.volume // 4) // MIB
    return f", each after {shipped} MiB more and a checkpoint"


def measure(place, options, say):
    """Yields the rows before, with a quarter and with all of the volumes, and after they
    shipped."""
    backupd = keep(place)
    memory = Memory(backupd, options)
    yield memory.empty_rows()
    first = max(options.volumes // 4, 1)
    servers = start_some(place, backupd, range(first), options, say)
    yield memory.rows(first)
    count = how_many(options, servers)
    fewer = f", of {options.volumes}: no more fit into memory" if count < options.volumes else ""
    servers += start_some(place, backupd, range(first, count), options, say)
    yield memory.rows(count, fewer)
    yield memory.rows(count, fewer + ship_all(servers, options))
    for server in servers:
        server.kill()
    backupd.remove()
