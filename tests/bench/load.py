# SPDX-License-Identifier: Apache-2.0
"""What loads a server: fio jobs, and checkpoints at an interval."""

import atexit
import functools
import json
import os
import random
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A fio job. bytes=0: for a time, over and over; else so many bytes, once."""
    name: str
    rw: str
    block: str
    depth: int
    size: str = "1g"
    bytes: int = 0
    seed: int = 1
    more: tuple = ("--norandommap",)
    each: int = 0  # one write at the beginning of each unit of so many bytes, in random order

    def command(self, uri, seconds):
        """fio's command line; the same seed gives the same blocks."""
        if self.each:
            return self._command_of_each(uri)
        words = ["fio", "--name=bench", "--ioengine=nbd", f"--uri={uri}", f"--rw={self.rw}",
                 f"--bs={self.block}", f"--iodepth={self.depth}", f"--size={self.size}",
                 *self.more, f"--randseed={self.seed}", "--output-format=json"]
        if self.bytes:
            return [*words, f"--io_size={self.bytes}"]
        return [*words, "--time_based", f"--runtime={seconds}"]


    def _command_of_each(self, uri):
        """fio replays a list: with --blockalign it would take some units twice, and others never."""
        return ["fio", "--name=bench", "--ioengine=nbd", f"--uri={uri}", f"--iodepth={self.depth}",
                f"--read_iolog={_list_of_writes(self)}", "--replay_redirect=bench", "--replay_no_stall=1",
                f"--size={self.size}", "--output-format=json"]


@functools.lru_cache
def _list_of_writes(job):
    """A file for fio's --read_iolog, gone when this program ends."""
    length = int(job.block[:-1]) << 10
    units = list(range(job.bytes // length))
    random.Random(job.seed).shuffle(units)
    with tempfile.NamedTemporaryFile("w", prefix="ckpt-bench-", suffix=".log", delete=False) as log:
        atexit.register(os.unlink, log.name)
        log.write("fio version 2 iolog\nbench add\nbench open\n")
        log.writelines(f"bench write {unit * job.each} {length}\n" for unit in units)
        log.write("bench close\n")
    return log.name


def run_fio(server, job, seconds=0):
    """Runs a job; operations and bytes a second, latencies, processor time an operation."""
    before = server.cpu_seconds()
    command = job.command(server.uri, seconds)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as fio:
        try:
            out, errors = fio.communicate()
        except BaseException:
            fio.kill()
            raise
    if fio.returncode != 0:
        raise RuntimeError(f"{command}: {errors or out}")
    result = json.loads(out[out.index("{"):])["jobs"][0]
    side = result["read" if "read" in job.rw else "write"]
    operations = side["total_ios"]
    percentiles = side["clat_ns"].get("percentile", {})
    return {"operations": operations, "iops": side["iops"],
            "bytes_per_second": side["bw_bytes"],
            "p99_us": percentiles.get("99.000000", 0) / 1000,
            "max_us": side["clat_ns"]["max"] / 1000,
            "server_cpu_us": (server.cpu_seconds() - before) / max(operations, 1) * 1e6}


class Checkpoints:
    """Takes a checkpoint every second while its context is open; one that takes longer delays the
    next. Leaving the context kills the server, so that the last checkpoint is not waited for, unless
    it is still wanted."""

    def __init__(self, server, interval=1.0, kills=True):
        self._kills = kills
        self.outcomes = []
        self._server = server
        self._interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop)
        self._failure = None

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._over.set()
        if self._kills:
            self._server.kill()
        self._thread.join()
        if self._failure and kind is None:
            raise self._failure

    def _loop(self):
        pause = self._interval
        try:
            while not self._over.wait(pause):
                began = time.monotonic()
                answer = self._server.ask("checkpoint", timeout_ms=300000)
                taken = time.monotonic() - began
                pause = max(0, self._interval - taken)
                self.outcomes.append({"answered_ms": round(taken * 1000), **{
                    field: answer[field]
                    for field in ("confirm_ms", "stall_us", "changed_bytes", "shipped_bytes")}})
        except (RuntimeError, OSError) as failure:
            if not self._over.is_set():
                self._failure = failure
