# SPDX-License-Identifier: Apache-2.0
"""The first copy to a backupd, and catching up after one was gone, without compression, in turn
with nbdcopy of as many bytes from one nbdkit file to another. All links are loopback TCP, and the
content does not shrink.

A first copy is measured from the start of our server until checkpoint 1 is confirmed; catching up
from when backupd listens again until a checkpoint that is asked for then is confirmed. What is
confirmed is durable. `nbdcopy --flush` promises the same, and nbdcopy alone nothing."""

import os
import subprocess
import time

from backup import has_checkpoint, is_applied, keep, wait_for
from harness import free_port
from report import Row, in_turn, peer_row, rounds, spread
from scatter import write_scattered
from servers import MIB

SECTION = "remote-copy"
BAR = 0.6
PEERS = {"nbdcopy --flush": ["--flush"], "nbdcopy": []}


def needs(_):
    """The programs that are run."""
    return ("nbdcopy",)


def nbdcopy(place, image, flags):
    """Seconds that nbdcopy takes to copy the image to a new file."""
    target = place.image(image.stat().st_size, "sparse", "target.img")
    source, sink = (place.serve("file", path, port=free_port()) for path in (image, target))
    os.sync()
    began = time.perf_counter()
    done = subprocess.run(["nbdcopy", *flags, source.uri, sink.uri], capture_output=True, text=True)
    taken = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"nbdcopy: {done.stderr}")
    source.stop()
    sink.stop()
    target.unlink()
    return taken


def first_copy(place, image):
    """Seconds from our server's start until all of the image is confirmed."""
    place.forget(image)
    backupd = keep(place)
    os.sync()
    began = time.perf_counter()
    server = place.serve("ckpt", image, f"backup={backupd.address}", "compress=none")
    status = wait_for(server, has_checkpoint, "the first copy")
    taken = time.perf_counter() - began
    expect(status["last_checkpoint"]["changed_bytes"], image.stat().st_size, "copied")
    server.kill()
    backupd.remove()
    return taken


def expect(found, size, what):
    """Less, and the numbers would be of something else."""
    if found != size:
        raise RuntimeError(f"{found} bytes {what} instead of {size}")


class CatchUp:
    """A volume whose backupd goes, and comes back when something has changed."""

    def __init__(self, place, disk, changed):
        self._disk, self._changed = disk, changed
        self._backupd = keep(place)
        self._server = place.serve("ckpt", place.image(disk, "written"),
                                   f"backup={self._backupd.address}", "compress=none")
        self.answers = []

    def run(self, seed):
        """Seconds from when backupd listens, as its pidfile says, until a checkpoint of what has
        changed is confirmed."""
        wait_for(self._server, is_applied, "the back-up is idle")
        self._backupd.stop()
        wait_for(self._server, lambda status: status["backup"]["state"] == "detached", "no back-up")
        write_scattered(self._server, self._disk, self._changed, seed)
        os.sync()
        self._backupd.start()
        answer = self._server.ask("checkpoint", timeout_ms=600000)
        taken = time.time() - self._backupd.pidfile.stat().st_mtime
        expect(answer["changed_bytes"], self._changed, "shipped")
        self.answers.append({**answer, "taken_s": taken})
        return taken

    def end(self):
        self._server.kill()
        self._backupd.remove()


def compare(options, say, ours, peer, name):
    """Seconds of each, in turn: {contender: [...]}. `peer` takes nbdcopy's flags."""
    contenders = {"ckpt": ours,
                  **{title: (lambda _, flags=flags: peer(flags)) for title, flags in PEERS.items()}}
    found = {title: [] for title in contenders}
    for number in rounds(options, f"{SECTION}: {name}", say):
        for title in in_turn(list(contenders), number):
            found[title].append(contenders[title](number))
    return found


def rows_of(name, size, found, options, **more):
    """Bytes a second of ckpt over those of each peer."""
    rates = {title: [size / taken for taken in times] for title, times in found.items()}
    bar = {} if options.smoke else {"bar": BAR, "sign": ">="}
    return [peer_row(SECTION, f"{name}, {size // MIB} MiB", peer, rates[peer], rates["ckpt"],
                     "B/s", **bar, **more) for peer in PEERS]


def first_copies(place, options, say):
    image = place.image(options.disk, "written")
    found = compare(options, say, lambda _: first_copy(place, image),
                    lambda flags: nbdcopy(place, image, flags), "first copy")
    return rows_of("first copy", options.disk, found, options)


def catch_ups(place, options, say):
    part = place.image(options.changed, "written", "part.img")
    volume = CatchUp(place, options.disk, options.changed)
    found = compare(options, say, volume.run, lambda flags: nbdcopy(place, part, flags), "catch-up")
    volume.end()
    confirm = spread([answer["confirm_ms"] for answer in volume.answers])
    return [*rows_of("catch-up, in pieces of 4 to 64 KiB", options.changed, found, options,
                     answers=volume.answers),
            Row(SECTION, "of a catch-up, from the cut to the confirmation", confirm, "ms",
                note="the rest: until the server has connected again")]


def measure(place, options, say):
    """Yields the rows of the first copy, and of catching up."""
    yield first_copies(place, options, say)
    place.clear()
    yield catch_ups(place, options, say)
