#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A machine under load goes back with its disk, again and again: in place, into a new QEMU, after
whatever was killed in the middle; and what cannot be done is refused while it runs on.

Usage: vm_rounds.py FOLDER BUILD ROUNDS SEED [PART...]
Without PART all of them: see PARTS. Logs go into FOLDER; those of a part that fails stay, and their
ends are in FOLDER/console.log. Exit code 0 if all was as it must be."""

import os
import random
import re
import shutil
import sys
import time
import traceback
from pathlib import Path

from vm_rig import MODES, Rig, check, ok  # isort:skip: it says where the harness is
from harness import build, eventually, run, tool
from vm_faults import all_killed, all_refused

LONG = 10  # rounds, from which a run is one that takes its time


def in_place(rig, mode):
    made = rig.checkpoint(mode)
    rig.go_on_for_a_while()
    late = rig.make_mess()
    began = time.monotonic()
    rig.roll_back()
    rig.check_back(made, began, late)
    rig.check_files()
    rig.check_file_system()
    rig.check_goes_back(made, rig.make_mess())
    ok(f"{mode}: checkpoint {made.number}, count {made.low}: back in place, twice")


def into_a_new_one(rig, mode):
    """After a power cut."""
    made = rig.checkpoint(mode)
    rig.go_on_for_a_while()
    late = rig.make_mess()
    pid = rig.machine.pid()
    rig.machine.kill()
    began = time.monotonic()
    rig.roll_back("--fresh")
    check(rig.machine.pid() != pid, "the same QEMU")
    rig.check_back(made, began, late)
    rig.check_files()
    rig.check_file_system()
    rig.check_goes_back(made, rig.make_mess())
    ok(f"{mode}: checkpoint {made.number}, count {made.low}: into a new QEMU, and back there")


def by_the_printed_line(rig):
    """The commands that --print says do it, too. A memory that was saved while the machine
    was stopped comes back stopped."""
    made = rig.checkpoint()
    late = rig.make_mess()
    rig.machine.kill()
    answer = tool(*rig.vm_words("rollback", "--fresh", "--print", "--yes"))
    check(not rig.machine.processes(), "--print starts QEMU")
    began = time.monotonic()
    path = f"PATH={build() / 'tools'}:{os.environ['PATH']}"
    back, start = answer["commands"]
    run("env", path, "sh", "-c", back)
    rig.machine.launch(["env", path, "sh", "-c", f"exec {start}"])
    eventually(lambda: rig.status_or_none() in ("running", "paused"), "it has its memory", 60)
    rig.resume()
    rig.check_back(made, began, late)
    rig.check_goes_back(made)
    ok("into a new QEMU by the line that --print says")


def frozen_disk(rig):
    """The guest's agent brings what is cached to the disk first: it needs no recovery. Without it, it
    does."""
    agent = rig.machine.agent_socket
    for words, frozen in ((["--agent", agent], True), ([], False)):
        made = tool(*rig.vm_words("checkpoint", "--mode", "disk", *words))
        check((made["frozen_file_systems"] > 0) == frozen, f"{words}: {made}")
        check(made["memory_bytes"] == 0, made)
        rig.check_running(rig.machine.state())
        disk = rig.folder / "disk.img"
        tool("export", rig.image, made["checkpoint"], disk, "--force")
        features = run("dumpe2fs", "-h", disk).split("Filesystem features:")[1].splitlines()[0]
        check(("needs_recovery" in features) != frozen, f"frozen: {frozen}: {features}")
        if frozen:
            run("e2fsck", "-fn", disk)
        disk.unlink()
    ok("the disk alone, with and without the guest's agent")


def in_turn(rig, rounds):
    for number in range(rounds):
        in_place(rig, MODES[number % 2])
    for number in range(1 if rounds < LONG else 5):
        into_a_new_one(rig, MODES[(number + rounds) % 2])


def embedded(rig, rounds):
    in_turn(rig, rounds)
    frozen_disk(rig)
    by_the_printed_line(rig)


def remote(rig, rounds):
    in_turn(rig, rounds if rounds >= LONG else min(2, rounds))


# What is done to the machine, and whether the volume's store is behind backupd.
PARTS = {"embedded": (embedded, False), "remote": (remote, True),
         "refused": (all_refused, False), "killed": (all_killed, False)}
KERNEL_ERRORS = re.compile(r"I/O error|EXT4-fs.*(error|warning)|JBD2.*error|panic|vm: cannot")


def run_part(name, folder, draw, rounds):
    """True if it was as it must be."""
    began = time.monotonic()
    act, remote = PARTS[name]
    try:
        with Rig(folder / name, draw, remote) as rig:
            act(rig, rounds)
        check_consoles(folder / name)
        shutil.rmtree(folder / name)
        ok(f"part {name}, {time.monotonic() - began:.0f} s")
        return True
    except Exception:  # whatever it is, it has to be told with the logs
        report(folder, name, traceback.format_exc())
        return False


def check_consoles(folder):
    for console in folder.glob("console*.log"):
        bad = KERNEL_ERRORS.search(console.read_text(errors="replace"))
        check(not bad, f"the machine's kernel says: {bad and bad[0]}")


def report(folder, name, text):
    lines = [f"not ok - part {name}", text]
    for log in sorted((folder / name).glob("*.log")):
        lines.append(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}")
    with open(folder / "console.log", "a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


def main(folder, built, rounds, seed, *parts):
    os.environ["CKPT_BUILD"] = built
    folder = Path(folder).resolve()
    good = [run_part(name, folder, random.Random(f"{seed} {name}"), int(rounds))
            for name in parts or PARTS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    if len(sys.argv) < 5 or not set(sys.argv[5:]) <= set(PARTS):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
