# SPDX-License-Identifier: Apache-2.0
"""Whether a cut can be felt, with little and with much changed: how long the server holds a write because of it,
and the longest write of a paced client in the 50 ms after it over the longest in as long without one."""

from cuts import cut_rounds
from report import Row, spread
from servers import GIB, MIB

SECTION = "stalls"
STALL_BAR_US, FELT_BAR = 100, 1.5
COUNT = 50
LOOP_GIB = 24  # a disk of 8 GiB, and as much again twice of its changes


def rows_of(size, rounds, is_judged):
    """Of the same cuts. Medians are compared: a single window is as long as the machine's worst moment in it."""
    name = f"{size // MIB} MiB changed"
    with_cut, without = (spread([one[field] for one in rounds]) for field in ("with_ms", "without_ms"))
    felt = spread([with_cut["median"] / without["median"]])
    return [Row(SECTION, f"the server holds a write because of a cut, {name}",
                spread([one["stall_us"] for one in rounds]), "µs", STALL_BAR_US if is_judged else None, rounds=rounds),
            Row(SECTION, f"longest write after a cut ÷ without one, medians of {len(rounds)}, {name}", felt, "",
                FELT_BAR if is_judged else None, "<=",
                note=f"{with_cut['median']:.2f} and {without['median']:.2f} ms")]


def measure(place, options, say):
    """Yields the rows for 64 MiB and for 4 GiB."""
    sizes = (16 * MIB, 64 * MIB) if options.quick else (64 * MIB, 4 * GIB)
    for size in sizes:
        rounds = cut_rounds(place, size, 5 if options.quick else COUNT, max(2 * GIB, 2 * size))
        yield rows_of(size, rounds, not options.quick)
        place.clear()
        say(f"{SECTION}: {size // MIB} MiB")
