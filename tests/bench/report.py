# SPDX-License-Identifier: Apache-2.0
"""Rows of results, their statistics, and the tables that show them."""

import statistics


def spread(values):
    """Median, extremes and the values themselves."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "values": list(values)}


def ratios(ours, theirs):
    """Ours over theirs, run by run: runs of one round are neighbours in time."""
    return spread([mine / other for mine, other in zip(ours, theirs)])


def rounds(options, name, say):
    """The numbers of the rounds; says when each is done."""
    for number in range(options.rounds):
        yield number
        say(f"{name}: round {number + 1} of {options.rounds}")


def in_turn(contenders, number):
    """Who runs when in that round: the order turns around from one to the next."""
    return contenders[::-1] if number % 2 else contenders


class Row:
    """One measured quantity. A bar is a least ratio (">=") or a greatest value ("<", "<=")."""

    def __init__(self, section, name, value, unit, bar=None, sign="<", **more):
        self.fields = {"section": section, "name": name, "unit": unit, **value, **more}
        if bar is not None:
            self.fields.update(bar=bar, sign=sign, passes=_holds(value["median"], sign, bar))

    @property
    def missed(self):
        return self.fields.get("passes") is False

    @property
    def off(self):
        """By how much the median misses its bar, relative to the bar."""
        return abs(self.fields["median"] / self.fields["bar"] - 1)


def as_row(fields):
    """One that was kept as JSON."""
    row = Row.__new__(Row)
    row.fields = fields
    return row


def _holds(value, sign, bar):
    return value >= bar if sign == ">=" else value <= bar if sign == "<=" else value < bar


def human(value, unit):
    """A number as people read it."""
    if unit == "1/s":
        return f"{value / 1000:.1f} k/s"
    if unit == "B/s":
        return f"{value / 1e6:.0f} MB/s" if value < 1e9 else f"{value / 1e9:.2f} GB/s"
    if unit == "B":
        return f"{value / (1 << 20):.1f} MiB"
    if unit == "":
        return f"{value:.2f}"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def with_spread(result, unit):
    """Median (least–greatest)."""
    middle = human(result["median"], unit)
    if len(result["values"]) == 1:
        return middle
    low, high = human(result["min"], unit), human(result["max"], unit)
    if low.partition(" ")[2] == high.partition(" ")[2]:
        low = low.partition(" ")[0]
    return f"{middle} ({low}–{high})"


def verdict(row):
    """What the last column says."""
    if "bar" not in row.fields:
        return ""
    bar = f"{row.fields['sign']} {human(row.fields['bar'], row.fields['unit'])}"
    return f"**misses** {bar} by {row.off:.0%}" if row.missed else f"{bar}: met"


def table(head, lines):
    """A Markdown table."""
    rule = "|".join("---" for _ in head)
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|",
                      *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def throughput_table(rows):
    """Server against server, a row for each job and mode."""
    lines = []
    for row in rows:
        fields = row.fields
        cpu = f"{fields['file_cpu_us']:.1f} → {fields['ckpt_cpu_us']:.1f}"
        if "backupd_cpu_us" in fields:
            cpu += f" + {fields['backupd_cpu_us']:.1f} (backupd)"
        lines.append([fields["name"], with_spread(fields["file"], fields["rate_unit"]),
                      with_spread(fields["ckpt"], fields["rate_unit"]),
                      with_spread(fields, ""), verdict(row), cpu, fields["checkpoints"]])
    return table(["job", "nbdkit file", "ckpt", "ckpt ÷ file", "bar", "server CPU, µs an operation",
                  "checkpoints a run"], lines)


def peer_row(section, name, peer, theirs, ours, unit, **more):
    """Ours over a peer's, round by round; `more` as for Row."""
    return Row(section, name, ratios(ours, theirs), "", peer=peer, theirs=spread(theirs),
               ours=spread(ours), rate_unit=unit, **more)


def peer_table(rows):
    """Rows of peer_row()."""
    lines = [[row.fields["name"], row.fields["peer"],
              with_spread(row.fields["theirs"], row.fields["rate_unit"]),
              with_spread(row.fields["ours"], row.fields["rate_unit"]),
              with_spread(row.fields, ""), verdict(row), row.fields.get("note", "")]
             for row in rows]
    return table(["what", "against", "that", "this", "this ÷ that", "bar", ""], lines)


def matrix_tables(rows):
    """Rows of peer_row() with a job and a title: a line for each of these, a column for each peer; a table for
    each set of peers."""
    lines = {}
    for row in rows:
        lines.setdefault((row.fields["job"], row.fields["title"]), []).append(row)
    tables = {}
    for (job, title), line in lines.items():
        fields = line[0].fields
        cells = [job, title, with_spread(fields["ours"], fields["rate_unit"]),
                 *(with_spread(row.fields, "") for row in line),
                 "; ".join(filter(None, map(verdict, line))), fields.get("note", "")]
        tables.setdefault(tuple(row.fields["peer"] for row in line), []).append(cells)
    return "\n".join(table(["job", "this", "its rate", *(f"÷ {peer}" for peer in peers), "bar", ""], cells)
                     for peers, cells in tables.items())


def value_table(rows):
    """One measured quantity a row."""
    lines = [[row.fields["name"], with_spread(row.fields, row.fields["unit"]), verdict(row),
              row.fields.get("note", "")] for row in rows]
    return table(["what", "measured", "bar", ""], lines)


def misses(rows):
    """A list of the bars that are missed."""
    lines = [f"- {row.fields['name']}: {with_spread(row.fields, row.fields['unit'])}, "
             f"{verdict(row)}" for row in rows if row.missed]
    return "\n".join(lines) + "\n" if lines else "None.\n"
