#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts in its memory and in an SQLite database in WAL mode, and says so when the two do not agree.

Usage: sqlite_counter.py DATABASE LOG. LOG is opened for each line only."""

import sqlite3
import sys
import time

path, log = sys.argv[1:]
database = sqlite3.connect(path, isolation_level=None)
assert database.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
database.execute("PRAGMA synchronous=FULL")
database.execute("PRAGMA wal_autocheckpoint=20")
database.execute("CREATE TABLE counts (number INTEGER PRIMARY KEY, text TEXT)")
count = 0
while True:
    found = database.execute("SELECT count(*), coalesce(max(number), 0) FROM counts").fetchone()
    if found != (count, count):
        with open(log, "a", encoding="utf-8") as lines:
            lines.write(f"in memory {count}, in the database {found}\n")
        sys.exit(1)
    count += 1
    database.execute("INSERT INTO counts VALUES (?, ?)", (count, "x" * (count % 700)))
    time.sleep(0.01)
