#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A power cut at any instant, of the machine or of the store's alone: a guest records what its
disks are asked to do, and here they are made as they may have been at one instant after the other,
and the product recovers from each.

Usage: power_cut_states.py FOLDER BUILD PRIMARY_FS STORE_FS SEED STATES [NUMBER]

A file system is ext4 or xfs. A recording that is in FOLDER already is taken: so a failed run can be
repeated, or its state NUMBER alone. Exit code 0 if all was right, every kind of state came up, and
what was sabotaged was found."""

import bisect
import collections
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from power_cut_disks import DISKS, PRIMARY, STORE, Disks, State, is_flush, is_load
from power_cut_recovery import Recovery, Wrong, enter_namespace
from power_cut_model import Model
from sector_log import read_log
from write_log import Recording, SECTOR_BYTES

HERE = Path(__file__).resolve().parent
DISK_MIB = 320  # mkfs.xfs takes no less than 300
MOST_ROUNDS = 5
LOG_MIB = 4096  # of which hardly any is used
MKFS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q"]}
MUST_COME_UP = (
    *State.KINDS, "with dropped writes", "with torn writes", "during a checkpoint",
    "during a rollback", "between intent and answer",
    "between the record of a rollback and its end", "checkpoint in flight exists",
    "checkpoint in flight does not exist", "start knew what may be changed",
    "exported from the store alone",
)


def make_file(path, mib):
    with open(path, "wb") as file:
        file.truncate(mib << 20)


def make_drives(folder, file_systems):
    """The disk of both file systems, as the guest finds it, and an empty log."""
    make_file(folder / "drive", DISK_MIB * len(DISKS))
    for disk, name in DISKS.items():
        make_file(folder / name, DISK_MIB)
        subprocess.run([*MKFS[file_systems[disk]], folder / name], check=True)
        subprocess.run(["dd", f"if={folder / name}", f"of={folder / 'drive'}", "bs=1M",
                        f"seek={DISK_MIB * disk}", "conv=notrunc,sparse", "status=none"],
                       check=True)
    make_file(folder / "log", LOG_MIB)


def record(folder, build, file_systems, seed):
    make_drives(folder, file_systems)
    # One processor: see Recording of write_log.py.
    subprocess.run([HERE / "run-in-guest.sh", "--cpus", "1", "--timeout", "600",
                    "--drive", folder / "drive", "--drive", folder / "log",
                    HERE / "power_cut_record.sh", folder, build, *file_systems, seed], check=True)


class Instants:
    """How much of the load's log was written at a place of the recording."""

    def __init__(self, folder):
        self.recording = Recording(folder / "log", DISK_MIB * 2**20 // SECTOR_BYTES)
        self.head, self.events = read_log(folder / "load.log")
        flushed = {entry.disk for entry in self.recording.entries if is_flush(entry)}
        assert flushed == set(DISKS), "a disk was never flushed, or the log does not say which"
        marks = [(place, text) for place, text in self.recording.marks() if text.isdigit()]
        self.marks = [place for place, _ in marks]
        assert [int(text) for _, text in marks] == list(range(len(self.events) + 1))
        self.flushes = [place for place, entry in enumerate(self.recording.entries)
                        if place > self.marks[0] and is_flush(entry)]

    def lines(self, place):
        return bisect.bisect(self.marks, place) - 1

    def model(self, place):
        return Model(self.head, self.events[: self.lines(place)])

    def last_act(self, place):
        """Asked for or answered last: "cut" is a checkpoint in flight, "back" a rollback."""
        acts = [e[0] for e in self.events[: self.lines(place)] if e[0] in ACT_WORDS]
        return acts[-1] if acts else None

    def line_place(self, word, nth=-1):
        """Where the nth line with this word was written."""
        lines = [line for line, event in enumerate(self.events) if event[0] == word]
        return self.marks[lines[nth] + 1]


ACT_WORDS = ("cut", "exists", "back", "restored")


def choose_states(instants, rng, count, earlier):
    """All flushes once, if so many states are wanted; the others mostly where something was in
    flight. Every kind, recovered either way."""
    places = [(place, "flush") for place in instants.flushes]
    during = collections.defaultdict(list)
    for place in instants.flushes:
        during[instants.last_act(place)].append(place)
    if count < 2 * len(places):
        places = []
    while len(places) < count:
        kind = State.KINDS[len(places) % len(State.KINDS)]
        act = rng.choices(ACT_WORDS, weights=(6, 2, 2, 1))[0]
        places.append((rng.choice(during[act] or instants.flushes), kind))
    states = [State(earlier + n, place, kind, rng.getrandbits(32), n // len(State.KINDS) % 2 == 1)
              for n, (place, kind) in enumerate(places)]
    return sorted(states, key=lambda state: (state.place, state.kind == "flush"))


def count_state(counters, state):
    counters["states"] += 1
    counters[state.kind] += 1
    counters["with dropped writes"] += state.dropped > 0
    counters["with torn writes"] += state.torn > 0


class Worker:
    """Recovers from states, in a process of its own."""

    def __init__(self, folder, build, file_systems, instants, scratch):
        enter_namespace(scratch)
        self.instants = instants
        self.folder = folder
        self.scratch = scratch
        self.counters = collections.Counter()
        device = (folder / "device").read_text().strip()
        another_boot = folder / "another_boot.so"
        self.recovery = Recovery(build, file_systems, device, another_boot, self.counters)

    def recover_each(self, states):
        """Why one was wrong, of each that was."""
        disks = Disks(self.instants.recording, self.folder, self.scratch)
        problems = []
        for state in states:
            print(f"# {state}", flush=True)
            try:
                paths = disks.make(state)
                count_state(self.counters, state)
                self.recovery.recover(state, paths, self.instants.model(state.place))
            except Exception as problem:  # whatever it is, it is this state's
                if not isinstance(problem, Wrong):
                    traceback.print_exc()
                problems.append(f"{state}: {problem!r}")
                print(f"not ok - {problems[-1]}", flush=True)
        return problems


def work(name, arguments, states, answer):
    folder, scratch = arguments[0], tempfile.mkdtemp(prefix="ckpt-states.", dir=memory_folder())
    sys.stdout = sys.stderr = open(folder / f"{name}.log", "a", encoding="utf-8")
    try:
        worker = Worker(*arguments, Path(scratch))
        problems = worker.recover_each(states)
        answer.send((problems, worker.counters))
    finally:
        shutil.rmtree(scratch)


def memory_folder():
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def recover_all(arguments, shares):
    """Each share by a process, which has the share's name."""
    workers, problems, counters = [], [], collections.Counter()
    for name, states in shares.items():
        ours, theirs = multiprocessing.Pipe(duplex=False)
        worker = multiprocessing.Process(target=work, args=(name, arguments, states, theirs))
        worker.start()
        theirs.close()
        workers.append((worker, ours))
    for worker, ours in workers:
        try:
            found, counted = ours.recv()
            problems += found
            counters += counted
        except EOFError:
            problems.append("a process died; see its log")
        worker.join()
    return problems, counters


def sabotaged(instants):
    """States that no disk can be in that keeps what it was told to: the audit must say so."""
    end = instants.line_place("flushed")
    entries = instants.recording.entries
    load = [place for place, entry in enumerate(entries[:end])
            if entry.disk == PRIMARY and is_load(entry) and (entry.durable_at or end) < end]
    one_write = State(-1, end, "flush", 0, False)
    one_write.lost = lambda entry, place: place == load[-1]
    asked = instants.line_place("cut")
    no_flush = State(-2, instants.line_place("exists"), "flush", 0, False)
    no_flush.lost = lambda entry, place: entry.disk == STORE and place > asked
    return {"one-write-lost": [one_write], "no-flush-of-the-store": [no_flush]}


def check_sabotage(arguments, instants):
    shares = sabotaged(instants)
    problems, _ = recover_all(arguments, shares)
    for problem in problems:
        print(f"# found, as it must be: {problem[:300]}")
    return [] if len(problems) == len(shares) else ["a write or a flush left out is not noticed"]


def never_came_up(counters):
    return [name for name in MUST_COME_UP if counters[name] == 0]


def recover_enough(arguments, rng, count):
    """So many, and as many again if something never came up, which in few states may be chance."""
    problems, counters = [], collections.Counter()
    for _ in range(MOST_ROUNDS):
        states = choose_states(arguments[-1], rng, count, counters["states"])
        workers = os.cpu_count()
        shares = {f"worker-{n}": states[n::workers] for n in range(workers)}
        found, counted = recover_all(arguments, shares)
        problems += found
        counters += counted
        if problems or not never_came_up(counters):
            break
    for name in sorted(counters):
        print(f"# {counters[name]:6} {name}")
    return problems + [f"never came up: {name}" for name in never_came_up(counters)]


def recover_one(arguments, rng, count, number):
    for earlier in range(0, number + 1, count):
        states = choose_states(arguments[-1], rng, count, earlier)
    one = [state for state in states if state.number == number]
    return recover_all(arguments, {"one": one})[0]


def main():
    folder, build, *file_systems, seed, count = sys.argv[1:7]
    folder = Path(folder).resolve()
    if not (folder / "load.log").exists():
        record(folder, build, file_systems, seed)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", folder / "another_boot.so",
                    HERE / "another_boot.c"], check=True)
    instants = Instants(folder)
    began = time.monotonic()
    arguments = (folder, build, file_systems, instants)
    rng = random.Random(int(seed))
    print(f"# {' and '.join(file_systems)}, seed {seed}: {len(instants.flushes)} flushes")
    if len(sys.argv) > 7:
        problems = recover_one(arguments, rng, int(count), int(sys.argv[7]))
    else:
        problems = recover_enough(arguments, rng, int(count))
        problems += check_sabotage(arguments, instants)
    for problem in problems:
        print(f"not ok - {problem}")
    print(f"# {time.monotonic() - began:.0f} s to recover")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
