# SPDX-License-Identifier: Apache-2.0
"""Operations and bytes a second: nbdkit's file plugin and ckpt in turn, each on a fresh image."""

import statistics

from load import Checkpoints, Job, run_fio
from report import Row, human, in_turn, ratios, rounds, spread
from servers import GIB

SECTION = "throughput"
JOBS = [Job("4k random write, qd 1", "randwrite", "4k", 1),
        Job("4k random write, qd 16", "randwrite", "4k", 16),
        Job("256k sequential write, qd 8", "write", "256k", 8),
        Job("4k random read, qd 16", "randread", "4k", 16)]
# Not over and over: no block is written twice, so everything written is shipped as well.
FIRST_PASS = Job("256k sequential write, qd 8, each block once", "write", "256k", 8, bytes=GIB)
QUIET_BAR = 0.9
BUSY_BAR = 0.7


class Contender:
    """One way to run: a server, its parameters, and whether checkpoints are taken meanwhile."""

    def __init__(self, kind, io="", busy=False):
        self.kind = kind
        self.io = io
        self.busy = busy
        self.runs = []

    @property
    def title(self):
        return f"io={self.io}, " + ("a checkpoint every second" if self.busy else "no checkpoint")

    def parameters(self):
        """Those of its server."""
        return [f"io={self.io}"] if self.io else []

    def run(self, place, job, seconds, how):
        """One run on a fresh image."""
        image = place.image(GIB, how)
        server = place.serve(self.kind, image, *self.parameters())
        if self.kind == "ckpt":
            server.settle()
        self.runs.append(self.load(server, job, seconds))
        server.kill()

    def load(self, server, job, seconds):
        """What the job gave."""
        if not self.busy:
            return run_fio(server, job, seconds)
        with Checkpoints(server) as checkpoints:
            result = run_fio(server, job, seconds)
        return {**result, "checkpoints": checkpoints.outcomes}

    def values(self, field):
        return [run[field] for run in self.runs]

    def checkpoints(self):
        """How many were confirmed in a run, and how soon after their cut: medians."""
        if not self.busy:
            return ""
        count = statistics.median(len(run["checkpoints"]) for run in self.runs)
        waits = [one["confirm_ms"] for run in self.runs for one in run["checkpoints"]]
        return f"{count:g}" + (f", confirmed in {human(statistics.median(waits), 'ms')}"
                               if waits else "")


def measure(place, options, say):
    """Yields the rows of each job. The rounds of a job run every contender once, the order turns
    around from round to round."""
    for job in (job for job in [*JOBS, FIRST_PASS] if options.jobs in job.name):
        contenders = [Contender("file")]
        for io in options.io:
            contenders.append(Contender("ckpt", io))
            contenders.append(Contender("ckpt", io, busy=True))
        for number in rounds(options, job.name, say):
            for contender in in_turn(contenders, number):
                contender.run(place, job, options.seconds, options.image)
        yield [compare(job, contenders[0], ours) for ours in contenders[1:]]


def compare(job, theirs, ours, section=SECTION, is_judged=True):
    """The row of one contender against the file plugin."""
    sequential = job.block == "256k"
    rate = "bytes_per_second" if sequential else "iops"
    bar = BUSY_BAR if ours.busy else QUIET_BAR
    if job is FIRST_PASS or not is_judged:
        bar = None
    more = {"rate_unit": "B/s" if sequential else "1/s",
            "file": spread(theirs.values(rate)), "ckpt": spread(ours.values(rate)),
            "file_cpu_us": statistics.median(theirs.values("server_cpu_us")),
            "ckpt_cpu_us": statistics.median(ours.values("server_cpu_us")),
            "checkpoints": ours.checkpoints(), "file_runs": theirs.runs, "ckpt_runs": ours.runs}
    return Row(section, f"{job.name}; {ours.title}",
               ratios(ours.values(rate), theirs.values(rate)), "", bar, ">=", **more)
