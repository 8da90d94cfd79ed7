#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How long a virtual machine stands still for a checkpoint of its disk and memory, in each mode and with
little and with much changed on its disk since the last one; how long it takes to go back; and, in turn
with these, how long savevm and loadvm take the same machine on a qcow2 image. Emulated machines (TCG),
which count and write all the time: times are for comparison within one run.

Usage: vm.py [--build DIR] [--rounds N] [--memory MIB,MIB] [--out FILE]"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "guest"))

import vm_machine  # noqa: E402
from harness import MIB, Server, run, tool  # noqa: E402
from vm_machine import Machine  # noqa: E402

CHANGED = 4, 256
MODES = "background", "snapshot", "disk"


class OnQcow2(Machine):
    """The same machine on an image of QEMU's own format."""

    def __init__(self, server, folder, image):
        super().__init__(server, folder)
        self.image = image
        for name in "qmp_socket", "_own_socket", "_talk_socket":
            path = getattr(self, name)
            setattr(self, name, path.with_name(f"{path.name}-qcow2"))

    def words(self, memory=None, machine="pc"):
        return [f"driver=qcow2,node-name=volume,discard=unmap,file.driver=file,file.filename={self.image}"
                if word.startswith("driver=nbd") else word for word in super().words(memory, machine)]

    def human(self, line):
        with self.monitor() as monitor:
            began = time.monotonic()
            says = monitor.command("human-monitor-command", **{"command-line": line})
            elapsed = time.monotonic() - began
        if says.strip():
            raise AssertionError(f"{line}: {says}")
        return elapsed * 1000


@contextlib.contextmanager
def alone(machine, other):
    """The other one does not run meanwhile."""
    for command, one in (("stop", other), ("cont", machine)):
        with one.monitor() as monitor:
            monitor.command(command)
    yield machine


def change(machine, mib):
    machine.shell(f"rm -f /changed; sync; for i in $(seq {mib // 4}); do cat /dev/shm/4 >>/changed; done; sync")


def boot(machine):
    machine.boot()
    machine.shell("mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm 2>/dev/null;"
                  " dd if=/dev/urandom of=/dev/shm/4 bs=1M count=4 2>/dev/null")


def measure_ours(machine, image, mode, mib):
    change(machine, mib)
    words = image, "--qmp", machine.qmp_socket
    made = tool("vm", "checkpoint", *words, "--mode", mode)
    figures = {"paused_ms": made["paused_us"] / 1000, "flush_ms": made["flush_us"] / 1000,
               "cut_ms": made["cut_us"] / 1000, "changed_mib": made["changed_bytes"] / MIB,
               "memory_mib": made["memory_bytes"] / MIB}
    if mode != "disk":
        change(machine, mib)
        back = tool("vm", "rollback", *words, "--yes")
        figures |= {"back_paused_ms": back["paused_us"] / 1000, "back_disk_ms": back["disk_ms"],
                    "back_memory_ms": back["memory_ms"], "restored_mib": back["restored_bytes"] / MIB}
    return figures


def measure_qcow2(machine, mib):
    change(machine, mib)
    with machine.monitor() as monitor:  # nothing of before
        monitor.command("human-monitor-command", **{"command-line": "delvm bench"})
    figures = {"paused_ms": machine.human("savevm bench")}
    change(machine, mib)
    figures["back_paused_ms"] = machine.human("loadvm bench")
    return figures


def measure(folder, memory, rounds):
    vm_machine.MEMORY_MIB = memory
    Machine.words.__defaults__ = (memory, "pc")
    folder.mkdir()
    image, copy = folder / "disk.img", folder / "disk.qcow2"
    vm_machine.install(image)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, copy)
    server = Server(image, folder=folder).start()
    ours = Machine(server, folder)
    peer = OnQcow2(server, folder, copy)
    peer.words.__func__.__defaults__ = (memory, "pc")
    rows = {}
    try:
        boot(ours)
        boot(peer)
        for _ in range(rounds):
            for mib in CHANGED:
                for mode in MODES:
                    with alone(ours, peer):
                        rows.setdefault((mode, mib), []).append(measure_ours(ours, image, mode, mib))
                with alone(peer, ours):
                    rows.setdefault(("savevm", mib), []).append(measure_qcow2(peer, mib))
    finally:
        peer.cleanup()
        ours.cleanup()
        server.cleanup()
    return [{"memory": memory, "mode": mode, "changed": mib,
             **{name: [one[name] for one in figures] for name in figures[0]}}
            for (mode, mib), figures in rows.items()]


def middle(row, name):
    if name not in row:
        return ""
    values = row[name]
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


COLUMNS = {"paused_ms": "stands still, ms", "flush_ms": "flush, ms", "cut_ms": "cut, ms",
           "memory_mib": "memory saved, MiB", "back_paused_ms": "back: stands still, ms",
           "back_disk_ms": "disk, ms", "back_memory_ms": "memory, ms", "restored_mib": "restored, MiB"}


def table(rows):
    lines = ["| memory, MiB | changed, MiB | | " + " | ".join(COLUMNS.values()) + " |",
             "|" + "---|" * (3 + len(COLUMNS))]
    for row in rows:
        cells = [str(row["memory"]), str(row["changed"]), row["mode"], *(middle(row, name) for name in COLUMNS)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=HERE.parents[1] / "build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", default="128,512")
    parser.add_argument("--out")
    options = parser.parse_args()
    os.environ["CKPT_BUILD"] = str(options.build)
    run(HERE.parent / "guest/prepare.sh")
    vm_machine.IMAGE_SIZE = 1024 * MIB
    rows = []
    with tempfile.TemporaryDirectory(prefix="ckpt-vm-bench.") as folder:
        for memory in map(int, options.memory.split(",")):
            rows += measure(Path(folder) / str(memory), memory, options.rounds)
    print(table(rows))
    if options.out:
        Path(options.out).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
