#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Prints again what bench.py --out has written: page.py RESULTS.json..., a table for each section of each."""

import json
import sys
from pathlib import Path

from report import as_row, matrix_tables, peer_table, throughput_table, value_table


def tables(rows):
    """In the order in which they were measured."""
    kinds = {"throughput": throughput_table, "matrix": matrix_tables, "peer": peer_table, "value": value_table}
    found = {}
    for row in rows:
        kind = ("throughput" if "file" in row.fields else "matrix" if "title" in row.fields else
                "peer" if "peer" in row.fields else "value")
        found.setdefault((row.fields["section"], kind), []).append(row)
    return [f"{section}\n\n{kinds[kind](some)}" for (section, kind), some in found.items()]


def main():
    for path in sys.argv[1:]:
        document = json.loads(Path(path).read_text())
        machine = document["machine"]
        print(f"{machine['time']}, commit {machine['commit']}, {document['rounds']} rounds, load "
              f"{machine['load']:.1f} before\n")
        for result in document["results"]:
            print(f"{result['fs']}: ", end="")
            print("\n".join(tables([as_row(fields) for fields in result["rows"]])))


if __name__ == "__main__":
    main()
