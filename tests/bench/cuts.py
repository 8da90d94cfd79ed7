# SPDX-License-Identifier: Apache-2.0
"""How long a cut makes a client wait: the longest write of a paced client in the 50 ms after it.

The instant of a cut is the `time` that the checkpoint's answer carries, which the server takes just
before it cuts, by the wall clock that the client reads too, cut off to a millisecond. So the window
begins at that time and ends 51 ms later; a write counts if it was in flight at any moment of the
window. The time must lie between the sending of the command and its answer, else the run fails."""

import time
from datetime import datetime, timezone

from child import Child
from report import Row, spread
from servers import GIB, MIB

SECTION = "cuts"
WINDOW_NS = 51 * 10**6
PACE_SECONDS = 0.8
WITHOUT_AT = 0.15  # seconds after the pace began: a window without a cut
CUT_AT = 0.4
BAR_MS = 5.0


def to_ns(text):
    """An RFC 3339 time of the control protocol in nanoseconds since 1970."""
    instant = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    return round(instant.timestamp() * 1000) * 10**6


def longest_ms(samples, begin):
    """The longest write in flight at any moment of the window that begins then."""
    end = begin + WINDOW_NS
    taken = [(sent, took) for sent, took, _ in samples if sent < end and sent + took > begin]
    # One alone is an answer only if it took all the window.
    if not taken or (len(taken) == 1 and not spans(*taken[0], begin, end)):
        raise RuntimeError("the paced client did not write in the window")
    return max(took for _, took in taken) / 1e6


def spans(sent, took, begin, end):
    """Whether a write was in flight all the time between."""
    return sent <= begin and sent + took >= end


def take_cut(server):
    """A checkpoint now; the instant of its cut, and its answer."""
    sent = time.time_ns()
    answer = server.ask("checkpoint", timeout_ms=600000)
    cut = to_ns(answer["time"])
    if not sent - 10**6 <= cut <= time.time_ns():
        raise RuntimeError(f"the cut is not between command and answer: {answer}")
    return cut, answer


def one_round(server, client, size):
    """Changes so much, writes at the pace right after it, cuts; the longest writes in both
    windows."""
    client.order(fill=size)
    client.answer()
    began = time.time_ns()
    client.order(pace=PACE_SECONDS, bytes=size)
    time.sleep(CUT_AT)
    unshipped = server.ask("status")["backup"]["unshipped_bytes"]
    cut, answer = take_cut(server)
    samples = client.answer()
    server.settle()
    return {"with_ms": longest_ms(samples, cut),
            "without_ms": longest_ms(samples, began + int(WITHOUT_AT * 1e9)),
            "late_ms": max(late for _, _, late in samples) / 1e6,
            "unshipped_bytes": unshipped, "stall_us": answer["stall_us"],
            "confirm_ms": answer["confirm_ms"], "changed_bytes": answer["changed_bytes"]}


def cut_rounds(place, size, count, disk=2 * GIB):
    """What so many cuts cost the paced client, with that much changed."""
    server = place.serve("ckpt", place.image(disk))
    server.settle()
    with Child("paced.py", server.socket) as client:
        rounds = [one_round(server, client, size) for _ in range(count)]
    server.stop()
    return rounds


def cut_rows(place, size, count):
    """The rows of one amount of changed data."""
    rounds = cut_rounds(place, size, count)
    name = f"{size // MIB} MiB changed"
    values = {field: spread([one[field] for one in rounds])
              for field in ("with_ms", "without_ms", "stall_us", "unshipped_bytes")}
    unshipped = values["unshipped_bytes"]["median"] / MIB
    return [Row(SECTION, f"longest write in the 50 ms after a cut, {name}", values["with_ms"], "ms",
                BAR_MS, rounds=rounds, note=f"{unshipped:.0f} MiB of it not yet shipped (median)"),
            Row(SECTION, f"the same before the cut, {name}", values["without_ms"], "ms"),
            Row(SECTION, f"stall_us that the checkpoint reports, {name}", values["stall_us"],
                "µs")]


def file_row(place, size, count):
    """The same client and windows on the file plugin."""
    server = place.serve("file", place.image(2 * GIB))
    found = []
    with Child("paced.py", server.socket) as client:
        for _ in range(count):
            client.order(fill=size)
            client.answer()
            began = time.time_ns()
            client.order(pace=PACE_SECONDS, bytes=size)
            found.append(longest_ms(client.answer(), began + int(CUT_AT * 1e9)))
    server.stop()
    return Row(SECTION, f"the same with nbdkit file, {size // MIB} MiB changed", spread(found),
               "ms")


def measure(place, options, say):
    """Yields the rows for 16 MiB and for 1 GiB."""
    count = 5 if options.quick else 20
    for size in (16 * MIB, GIB):
        yield [*cut_rows(place, size, count), file_row(place, size, count)]
        say(f"cuts: {size // MIB} MiB")
