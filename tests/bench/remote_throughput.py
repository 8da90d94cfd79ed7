# SPDX-License-Identifier: Apache-2.0
"""4k random writes at depth 16 with a checkpoint every second, the back-up at a loopback port, in
turn with nbdkit's file plugin, which keeps no back-up."""

import statistics

from backup import keep
from load import Job
from report import in_turn, rounds
from throughput import Contender, compare
from tls_files import make_keys

SECTION = "remote-throughput"
JOB = Job("4k random write, qd 16", "randwrite", "4k", 16)
USER = "bench"


def needs(options):
    """The programs that are run."""
    return ("fio", "psktool") if options.tls else ("fio",)


class RemoteContender(Contender):
    """ckpt with its back-up at a backupd of its own, a fresh one for each run."""

    def __init__(self, keys=None):
        super().__init__("ckpt", busy=True)
        self._keys = keys
        self._backupd = None

    @property
    def title(self):
        link = "TCP with TLS" if self._keys else "TCP"
        return f"back-up over {link}, a checkpoint every second"

    def parameters(self):
        tls = [f"tls-psk={self._keys[USER]}"] if self._keys else []
        return [f"backup={self._backupd.address}", *tls]

    def run(self, place, job, seconds, how):
        options = [f"--tls-psk={self._keys['']}"] if self._keys else []
        self._backupd = keep(place, *options)
        super().run(place, job, seconds, how)
        self._backupd.remove()

    def load(self, server, job, seconds):
        before = self._backupd.cpu_seconds()
        result = super().load(server, job, seconds)
        taken = self._backupd.cpu_seconds() - before
        return {**result, "backupd_cpu_us": taken / max(result["operations"], 1) * 1e6}


def keys_in(place):
    """Files of keys by user; "" is the server's."""
    path = place.folder / "keys.psk"
    path.unlink(missing_ok=True)
    return {"": path, **make_keys(path, USER)}


def measure(place, options, say):
    """Yields the rows, with and without TLS."""
    contenders = [Contender("file"), RemoteContender()]
    if options.tls:
        contenders.append(RemoteContender(keys_in(place)))
    for number in rounds(options, SECTION, say):
        for contender in in_turn(contenders, number):
            contender.run(place, JOB, options.seconds, options.image)
    yield [row_of(contenders[0], ours, options) for ours in contenders[1:]]


def row_of(theirs, ours, options):
    row = compare(JOB, theirs, ours, SECTION, is_judged=not options.smoke)
    row.fields["backupd_cpu_us"] = statistics.median(ours.values("backupd_cpu_us"))
    return row
