# SPDX-License-Identifier: Apache-2.0
"""What people would use instead, all in one run: nbdkit's file and null plugins, QEMU's storage daemon with
the disk as it is, QEMU's copy-before-write, and a qcow2 overlay."""

import os

from load import Job
from qemu_servers import CopyBeforeWrite, CopyBeforeWriteQcow2, DirectNbd, Overlay, QemuServer
from report import in_turn, peer_row, rounds
from servers import GIB, Server
from throughput import JOBS, Contender

SECTION = "peers"
CLUSTER = 64 << 10
# Each cluster of QEMU's once: only the first write to one is copied.
TOUCHES = [Job(f"4k random write at first touch, qd {depth}", "randwrite", "4k", depth,
               bytes=GIB // CLUSTER * 4096, each=CLUSTER) for depth in (1, 16)]
QUIET_BAR, BUSY_BAR, BUSY_SEQUENTIAL_BAR, TOUCH_BAR = 0.97, 0.85, 0.7, 4
OURS, OURS_BUSY = "ckpt", "ckpt, a checkpoint every second"
FILE, RAW, DIRECT = "nbdkit file", "QEMU raw", "qemu-nbd --cache=none"


def needs(_):
    """The programs that are run."""
    return ("fio", "qemu-storage-daemon", "qemu-img", "qemu-nbd")


class Peer(Contender):
    """A server of that class."""

    def __init__(self, title, server=Server, kind="", parameters=(), busy=False):
        super().__init__(kind or title, busy=busy)
        self._title, self._server, self._parameters = title, server, parameters

    @property
    def title(self):
        return self._title

    def run(self, place, job, seconds, how):
        how = "written" if job in TOUCHES else how  # there is something to copy
        server = place.adopt(self._server(place, self.kind, place.image(GIB, how), self._parameters)).start()
        if self.kind == "ckpt":
            server.settle()
        self.runs.append(self.load(server, job, seconds))
        server.kill()
        # What QEMU wrote beside the image is not the next one's burden.
        place.clear()
        os.sync()


def through_cache():
    return [Peer(FILE, kind="file"), Peer("nbdkit null", kind="null"), Peer(RAW, QemuServer),
            Peer("QEMU copy-before-write", CopyBeforeWrite),
            Peer("QEMU copy-before-write to qcow2", CopyBeforeWriteQcow2), Peer("qcow2 overlay", Overlay),
            Peer(OURS, kind="ckpt"), Peer(OURS_BUSY, kind="ckpt", busy=True)]


def past_cache():
    direct = ("direct=on",)
    return [Peer(DIRECT, DirectNbd), Peer(OURS, kind="ckpt", parameters=direct),
            Peer(OURS_BUSY, kind="ckpt", parameters=direct, busy=True)]


def measure(place, options, say):
    """Yields the rows of each job, through the page cache and then past it."""
    for make, jobs, suffix in ((through_cache, [*JOBS, *TOUCHES], ""), (past_cache, JOBS, ", direct=on")):
        for job in (job for job in jobs if options.jobs in job.name + suffix):
            contenders = make()
            if job in TOUCHES:
                contenders.pop()  # there is no second in it
            for number in rounds(options, f"{SECTION}: {job.name}{suffix}", say):
                for contender in in_turn(contenders, number):
                    contender.run(place, job, options.seconds, options.image)
            yield rows_of(job, suffix, {one.title: one for one in contenders}, options)


def bar_of(job, ours, peer):
    """What is wanted; nothing: not judged."""
    if job in TOUCHES:
        return TOUCH_BAR if peer == "QEMU copy-before-write" else None
    if peer not in (FILE, DIRECT):
        return None
    if not ours.busy:
        return QUIET_BAR
    return BUSY_SEQUENTIAL_BAR if job.block == "256k" else BUSY_BAR


def rows_of(job, suffix, contenders, options):
    """Ours over each of the others."""
    field, unit = ("bytes_per_second", "B/s") if job.block == "256k" else ("iops", "1/s")
    rows = []
    for ours in (one for title, one in contenders.items() if title.startswith(OURS)):
        for title, theirs in contenders.items():
            if title.startswith(OURS):
                continue
            bar = None if options.smoke else bar_of(job, ours, title)
            judged = {"bar": bar, "sign": ">="} if bar else {}
            rows.append(peer_row(SECTION, f"{job.name}{suffix}; {ours.title}", title, theirs.values(field),
                                 ours.values(field), unit, note=ours.checkpoints(), job=job.name + suffix,
                                 title=ours.title, theirs_cpu_us=theirs.values("server_cpu_us"),
                                 ours_cpu_us=ours.values("server_cpu_us"), **judged))
    return rows
