#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: the same loads on a file system on each kind of disk, in turn.

Usage: guest_peers.py BUILD ROUNDS SECONDS JSON TEXT. Runs as root; /run/scratch is a real file system, /dev/ram0
and /dev/ram1 are of 192 MiB."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

build, rounds, seconds, json_path, text_path = sys.argv[1:]
MIB = 1 << 20
DISK = 192 * MIB
MOUNT, IMAGE, SOCKET = "/run/mnt", "/run/scratch/disk.img", "/run/peer.sock"
DRBD = "/lib/drbd/drbdsetup-84"


def run(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{words}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


# Disks: each is a context whose value is a device.

@contextlib.contextmanager
def plain():
    run("blockdev", "--flushbufs", "/dev/ram0")
    yield "/dev/ram0"


@contextlib.contextmanager
def dm_snapshot():
    """The origin of a new snapshot: the first write to each chunk of 4 KiB copies it to the other disk."""
    run("blockdev", "--flushbufs", "/dev/ram0")
    run("dd", "if=/dev/zero", "of=/dev/ram1", "bs=4k", "count=1")
    sectors = DISK // 512
    run("dmsetup", "create", "origin", "--noudevsync", "--table", f"0 {sectors} snapshot-origin /dev/ram0")
    run("dmsetup", "mknodes", "origin")  # there is no udev
    made = []
    try:
        # The file system is made before there is something to keep.
        def protect():
            run("dmsetup", "suspend", "origin")
            run("dmsetup", "create", "snapshot", "--noudevsync", "--table",
                f"0 {sectors} snapshot /dev/ram0 /dev/ram1 N 8")
            run("dmsetup", "resume", "--noudevsync", "origin")
            made.append("snapshot")
        yield "/dev/mapper/origin", protect
    finally:
        for name in ["origin", *made]:
            run("dmsetup", "remove", "--noudevsync", "--retry", name)


def wipe(disk):
    """What looks for a file system finds none."""
    run("dd", "if=/dev/zero", f"of={disk}", "bs=1M", "oflag=direct", f"count={DISK // MIB}")


def drbd(*words):
    return run(DRBD, *words)


@contextlib.contextmanager
def drbd_a():
    """Both ends in this kernel: a write is answered when it is on this disk and on its way to the other."""
    for minor, disk in enumerate(("/dev/ram0", "/dev/ram1")):
        wipe(disk)
        run("drbdmeta", "--force", str(minor), "v08", disk, "internal", "create-md")
    ends = (("a", "0", "/dev/ram0", "7788", "7789"), ("b", "1", "/dev/ram1", "7789", "7788"))
    try:
        for name, minor, disk, mine, theirs in ends:
            drbd("new-resource", name)
            drbd("new-minor", name, minor, "0")
            drbd("attach", minor, disk, disk, "internal")
        for name, minor, disk, mine, theirs in ends:
            drbd("connect", name, f"ipv4:127.0.0.1:{mine}", f"ipv4:127.0.0.1:{theirs}", "--protocol=A")
        time.sleep(1)
        drbd("new-current-uuid", "0", "--clear-bitmap")
        drbd("primary", "0")
        yield "/dev/drbd0"
    finally:
        for name, *_ in ends:
            subprocess.run([DRBD, "secondary", "0"], capture_output=True)
            subprocess.run([DRBD, "down", name], capture_output=True)


@contextlib.contextmanager
def served(*words):
    """nbdkit with that plugin, below the kernel's client."""
    Path(SOCKET).unlink(missing_ok=True)
    run("rm", "-rf", IMAGE, IMAGE + ".ckpt")
    with open(IMAGE, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, DISK)
    server = subprocess.Popen(["nbdkit", "-f", "-U", SOCKET, *words], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        while not os.path.exists(SOCKET):
            if server.poll() is not None:
                raise RuntimeError(f"{words}: the server ends with {server.returncode}")
            time.sleep(0.05)
        run("nbd-client", "-unix", SOCKET, "/dev/nbd0", "-block-size", "4096")
        try:
            yield "/dev/nbd0"
        finally:
            run("nbd-client", "-d", "/dev/nbd0")
            time.sleep(0.5)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(120)


def nbdkit_file():
    return served("file", IMAGE)


def checkpoint():
    run(f"{build}/tools/ckpt-tool", "-q", "checkpoint", IMAGE, "--timeout", "120")


@contextlib.contextmanager
def ckpt():
    """Its first copy is over before the loads, as is DRBD's."""
    with served(f"{build}/plugin/nbdkit-ckpt-plugin.so", IMAGE) as device:
        yield device, checkpoint


@contextlib.contextmanager
def ckpt_busy():
    """With a checkpoint every second."""
    over, failures, made = threading.Event(), [], []

    def loop():
        pause = 1
        while not over.wait(max(pause, 0)):
            began = time.monotonic()
            try:
                checkpoint()
            except RuntimeError as failure:
                failures.append(failure)
                return
            made.append(time.monotonic() - began)
            pause = 1 - made[-1]
    thread = threading.Thread(target=loop)

    def begin():
        checkpoint()
        thread.start()
    with ckpt() as (device, _):
        try:
            yield device, begin
        finally:
            over.set()
            thread.join()
            print(f"# {len(made)} checkpoints, {sum(made) / max(len(made), 1):.1f} s each", flush=True)
            if failures:
                raise failures[0]


# Loads: operations a second, on the mounted file system.

def fio(depth):
    def load():
        engine = ["--ioengine=libaio", f"--iodepth={depth}"]
        said = run("fio", "--name=load", f"--filename={MOUNT}/file", "--size=96m", "--rw=randwrite", "--bs=4k",
                   "--direct=1", *engine, "--time_based", f"--runtime={seconds}", "--norandommap",
                   "--output-format=json")
        return json.loads(said[said.index("{"):])["jobs"][0]["write"]["iops"]
    return load


def sqlite():
    """Transactions of one row, each synced."""
    path = Path(MOUNT) / "base"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("pragma journal_mode=wal")
    base.execute("pragma synchronous=full")
    base.execute("create table rows (number integer primary key, text text)")
    draw = random.Random(1)
    until, count = time.monotonic() + float(seconds), 0
    while time.monotonic() < until:
        base.execute("insert into rows (text) values (?)", (draw.randbytes(100).hex(),))
        count += 1
    base.close()
    return count / float(seconds)


LOADS = {"fio, 4k random write, qd 1": fio(1), "fio, 4k random write, qd 16": fio(16), "SQLite, inserts": sqlite}
DISKS = {"ram disk": (plain, None), "dm-snapshot": (dm_snapshot, "ram disk"), "DRBD, protocol A": (drbd_a, "ram disk"),
         "nbdkit file": (nbdkit_file, None), "ckpt": (ckpt, "nbdkit file"),
         "ckpt, a checkpoint every second": (ckpt_busy, "nbdkit file")}


def measure(disk):
    """Of each load, on a new file system."""
    with disk() as device:
        protect = None
        if isinstance(device, tuple):
            device, protect = device
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", device)
        run("mount", device, MOUNT)
        try:
            with open(f"{MOUNT}/file", "wb") as file:
                file.write(os.urandom(96 * MIB))
            os.sync()
            if protect:
                protect()
                os.sync()
            return {name: load() for name, load in LOADS.items()}
        finally:
            run("umount", MOUNT)


def line(name, values):
    return f"{name:48} {statistics.median(values):10.3g} ({min(values):.3g} to {max(values):.3g})"


def main():
    found = {disk: [] for disk in DISKS}
    for number in range(int(rounds)):
        order = list(DISKS)[::-1] if number % 2 else list(DISKS)
        for disk in order:
            found[disk].append(measure(DISKS[disk][0]))
            print(f"# round {number + 1}, {disk}: {found[disk][-1]}", flush=True)
    Path(json_path).write_text(json.dumps({"rounds": int(rounds), "seconds": float(seconds), "found": found}, indent=1))
    lines = []
    for load in LOADS:
        lines.append(load + ", operations a second")
        lines += [line("  " + disk, [one[load] for one in found[disk]]) for disk in DISKS]
        lines.append("  protected over its own base")
        for disk, (_, base) in DISKS.items():
            if base:
                ratios = [ours[load] / theirs[load] for ours, theirs in zip(found[disk], found[base])]
                lines.append(line("  " + disk, ratios))
    Path(text_path).write_text("\n".join(lines) + "\n")


main()
