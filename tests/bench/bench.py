#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures ckpt and prints a page in Markdown; --out keeps every single value as JSON."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkpoints
import costs
import cuts
import large
import limits
import peers
import remote
import stalls
import tebibyte
import throughput
from loop_device import MAKE, fresh_file_system
from report import matrix_tables, misses, peer_table, throughput_table, value_table
from servers import GIB, Place

MODULES = (throughput, tebibyte, cuts, checkpoints, peers, limits, costs, stalls, large)
SECTIONS = {**{module.SECTION: module for module in MODULES}, **remote.SECTIONS}
# What has each of the programs that are run, on Debian.
PACKAGES = {"nbdkit": "nbdkit", "fio": "fio", "findmnt": "util-linux", "nbdcopy": "libnbd-bin",
            "psktool": "gnutls-bin", "qemu-storage-daemon": "qemu-system-common",
            "qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils"}
PRODUCTS = ("plugin/nbdkit-ckpt-plugin.so", "tools/ckpt-tool", "backupd/backupd")
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def options_known():
    """The parser."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 short rounds, less data")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the results as JSON")
    parser.add_argument("--fs", action="append", default=[], metavar="DIR",
                        help="measure on the file system of DIR (again for more) [/var/tmp]")
    parser.add_argument("--loop", action="append", default=[], choices=tuple(MAKE),
                        help="measure on a fresh file system on a loop device (again for more)")
    parser.add_argument("--below", default="/var/tmp", metavar="DIR",
                        help="where the files below the loop devices are made [/var/tmp]")
    parser.add_argument("--build", type=Path, default=root / "build", metavar="DIR",
                        help="the build folder [build]")
    parser.add_argument("--io", default="auto", help="I/O engines, with commas [auto]")
    parser.add_argument("--only", default=",".join(SECTIONS),
                        help=f"sections, with commas, of {', '.join(SECTIONS)}; {remote.NAME}: all "
                        "that begin with it [all]")
    parser.add_argument("--jobs", default="", metavar="TEXT",
                        help="throughput: only jobs whose name contains it [all]")
    parser.add_argument("--rounds", type=int, help="runs of each kind [5; quick: 3]")
    parser.add_argument("--seconds", type=int, help="length of a run [5; quick: 2]")
    parser.add_argument("--image", choices=("preallocated", "written"), default="preallocated",
                        help="throughput on images that are preallocated only, or written once")
    remote.add_options(parser)
    return parser


def parse():
    """The options; --quick and --smoke set what is not given."""
    parser = options_known()
    options = parser.parse_args()
    options.fs = options.fs or ([] if options.loop else ["/var/tmp"])
    options.io = options.io.split(",")
    options.only = sections(options.only, parser)
    options.quick = options.quick or options.smoke
    options.rounds = options.rounds or (2 if options.smoke else 3 if options.quick else 5)
    options.seconds = options.seconds or (3 if options.smoke else 2 if options.quick else 5)
    remote.complete(options, parser)
    return options


def sections(text, parser):
    """Names of sections."""
    names = []
    for name in text.split(","):
        names += remote.SECTIONS if name == remote.NAME else [name]
    for name in names:
        if name not in SECTIONS:
            parser.error(f"--only {name}: there are {', '.join(SECTIONS)}")
    return names


def refuse_if_incomplete(options):
    """Ends the program unless all is there that will be run."""
    products = {*PRODUCTS}.union(*(getattr(SECTIONS[name], "PRODUCTS", ()) for name in options.only))
    for name in sorted(products):
        if not (options.build / name).exists():
            sys.exit(f"run.sh: no {name} in {options.build}; build it first, or name --build DIR")
    programs = {"nbdkit", "findmnt"}
    for name in options.only:
        needs = getattr(SECTIONS[name], "needs", lambda _: ("fio",))
        programs.update(needs(options))
    for program in sorted(programs):
        if not shutil.which(program):
            sys.exit(f"run.sh: {program} is not installed; Debian's package {PACKAGES[program]} "
                     "has it")


def first_line(*command):
    """What a program says of itself; empty if it is not there."""
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0].strip()


def cpu_model():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def build_type(build):
    """Of the measured build, as meson recorded it."""
    record = build / "meson-info/intro-buildoptions.json"
    if not record.exists():
        return "not recorded"
    return next(option["value"] for option in json.loads(record.read_text())
                if option["name"] == "buildtype")


def machine(options):
    """What the numbers were measured with."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    here = str(Path(__file__).parent)
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "kernel": platform.release(), "cpu": cpu_model(), "cores": os.cpu_count(),
            "memory_gib": round(memory), "nbdkit": first_line("nbdkit", "--version"),
            "fio": first_line("fio", "--version"), "nbdcopy": first_line("nbdcopy", "--version"),
            "ckpt": first_line(str(options.build / "tools/ckpt-tool"), "--version"),
            "commit": first_line("git", "-C", here, "describe", "--always", "--dirty"),
            "build": build_type(options.build), "load": os.getloadavg()[0]}


def file_system(folder):
    """Its type and mount options."""
    return " ".join(first_line("findmnt", "-no", "FSTYPE,OPTIONS", "-T", folder).split())


def say(text):
    """Progress, with the load of the machine: others' work shows there."""
    print(f"[{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f}] {text}", file=sys.stderr)


def run_on(folder, name, options, keep):
    """All sections on one file system; keep() is called with all results so far, now and then."""
    result = {"fs": name, "rows": []}
    with Place(folder, options.build) as place:
        for section in options.only:
            for rows in SECTIONS[section].measure(place, options, say):
                result["rows"] += rows
                keep(result)
            place.clear()
    return result


def run_all(options, keep):
    """All file systems in turn."""
    results = []
    for folder in options.fs:
        results.append(run_on(folder, file_system(folder), options,
                              lambda part: keep([*results, part])))
    for kind in options.loop:
        largest = max(getattr(SECTIONS[name], "LOOP_GIB", 16) for name in options.only)
        size = (4 if options.smoke else 8 if options.quick else largest) * GIB
        with fresh_file_system(kind, options.below, size) as folder:
            name = f"{file_system(folder)} (fresh, loop device on {file_system(options.below)})"
            results.append(run_on(str(folder), name, options,
                                  lambda part: keep([*results, part])))
    return results


def show(facts, results, options):
    """The page."""
    print("| machine | |\n|---|---|")
    for key, value in facts.items():
        print(f"| {key} | {value} |")
    print(f"\n{options.rounds} rounds; of throughput, {options.seconds} s a run.")
    if options.smoke:
        print("A smoke run: the numbers mean nothing.")
    for result in results:
        rows = result["rows"]
        print(f"\n## {result['fs']}\n")
        against = [row for row in rows if "file" in row.fields]
        matrix = [row for row in rows if "title" in row.fields]
        peers = [row for row in rows if "peer" in row.fields and row not in matrix]
        others = [row for row in rows if row not in against and "peer" not in row.fields]
        for some, table in ((against, throughput_table), (matrix, matrix_tables), (peers, peer_table),
                            (others, value_table)):
            if some:
                print(table(some))
        print(f"Missed:\n\n{misses(rows)}")


def save(path, facts, results, options):
    """Everything, as JSON."""
    document = {"schema": 1, "machine": facts, "quick": options.quick, "smoke": options.smoke,
                "rounds": options.rounds,
                "seconds": options.seconds, "image": options.image,
                "results": [{"fs": result["fs"],
                             "rows": [row.fields for row in result["rows"]]}
                            for result in results]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def end(number, _):
    """A signal unwinds the stack, so that every context cleans up; one is enough."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    sys.exit(128 + number)


def main():
    for number in SIGNALS:
        signal.signal(number, end)
    options = parse()
    refuse_if_incomplete(options)
    facts = machine(options)

    def keep(results):
        facts["load_after"] = os.getloadavg()[0]
        if options.out:
            save(options.out, facts, results, options)

    results = run_all(options, keep)
    keep(results)
    show(facts, results, options)


if __name__ == "__main__":
    main()
