#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what bench.py --out has written, as SVG: figures.py RESULTS.json FOLDER. A figure for which there are no
results is left out."""

import json
import statistics
import sys
from html import escape
from pathlib import Path

WIDTH, LEFT, RIGHT, ROW, HEAD = 760, 250, 110, 20, 44
COLOURS = {"ckpt": "#1a7f5a", "ckpt, a checkpoint every second": "#6bbf9a"}
OTHERS = "#9aa4b1"
STYLE = "font-family:sans-serif;font-size:12px"


def human(value, unit):
    unit = "/s" if unit == "1/s" else unit
    for limit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if unit != "s" and unit != "µs" and value >= limit:
            return f"{value / limit:.3g} {name}{unit}"
    return f"{value:.3g} {unit}".strip()


def text(x, y, what, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
            f'fill="#24292f">{escape(what)}</text>')


def document(height, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" style="{STYLE}">'
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>' + "".join(parts) + "</svg>\n")


def bars(title, groups):
    """Groups of bars: (name, unit, [(label, values)]). A bar is the median, the line on it the range."""
    parts, y = [text(12, 24, title, weight="bold")], HEAD
    for name, unit, lines in groups:
        parts.append(text(12, y + 14, name, weight="bold"))
        y += ROW + 4
        most = max(max(values) for _, values in lines)
        scale = (WIDTH - LEFT - RIGHT) / most
        for label, values in lines:
            middle = statistics.median(values)
            colour = COLOURS.get(label, OTHERS)
            parts += [text(LEFT - 8, y + 13, label, "end"),
                      f'<rect x="{LEFT}" y="{y + 3}" width="{max(middle * scale, 1):.1f}" height="{ROW - 7}" '
                      f'fill="{colour}"/>',
                      f'<line x1="{LEFT + min(values) * scale:.1f}" x2="{LEFT + max(values) * scale:.1f}" '
                      f'y1="{y + ROW / 2}" y2="{y + ROW / 2}" stroke="#24292f"/>',
                      text(LEFT + max(values) * scale + 6, y + 13, human(middle, unit))]
            y += ROW
        y += 10
    return document(y + 6, parts)


def peers(rows):
    """Rates of all servers, a group for each job."""
    jobs = {}
    for row in rows:
        servers = jobs.setdefault((row["job"], row["rate_unit"]), {})
        servers[row["peer"]] = row["theirs"]["values"]
        servers[row["title"]] = row["ours"]["values"]
    return [(name, unit, list(servers.items())) for (name, unit), servers in jobs.items()]


def processor(rows):
    """Processor time of the server for each operation."""
    jobs = {}
    for row in rows:
        if row["peer"] == "nbdkit file":
            servers = jobs.setdefault(row["job"], {"nbdkit file": row["theirs_cpu_us"]})
            servers[row["title"]] = row["ours_cpu_us"]
    return [(name, "µs", list(servers.items())) for name, servers in jobs.items()]


def by(rows, field, unit, label):
    """One group: a bar for each row that has the field."""
    lines = [(label(row[field]), row["values"]) for row in rows if field in row]
    return [("", unit, lines)] if lines else []


FIGURES = {
    "figure-peers.svg": ("Operations or bytes a second", "peers", peers),
    "figure-write-cost.svg": ("Processor time of the server, for each operation", "peers", processor),
    "figure-rollback.svg": ("Rollback, by what has changed", "costs",
                            lambda rows: by(rows, "size_bytes", "s", lambda size: f"{size >> 20} MiB")),
    "figure-rewriting.svg": ("Bytes sent for each that is written, with a checkpoint every second", "costs",
                             lambda rows: by(rows, "theta", "", lambda theta: f"zipf {theta}")),
}


def main():
    results, folder = sys.argv[1:]
    document_of = json.loads(Path(results).read_text())
    for result in document_of["results"]:
        for name, (title, section, groups_of) in FIGURES.items():
            rows = [row for row in result["rows"] if row["section"] == section]
            groups = groups_of(rows) if rows else []
            if groups:
                (Path(folder) / name).write_text(bars(title, groups))
                print(name)


if __name__ == "__main__":
    main()
