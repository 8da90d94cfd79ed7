#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The report, as a browser shows it: it has what happened, and nothing in it can do harm."""

import html.parser
import json
import re
import struct
import subprocess
import unittest
import zlib

from harness import MIB, UNKNOWN, USAGE, Case, build, eventually, tool
from nbd_client import NbdClient

HOSTILE = '<script>alert("1")</script>&amp;\u202e"\'><img src=x onerror=alert(2)>'


class Tags(html.parser.HTMLParser):
    """Counts tags and collects attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.classes, self.attributes, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.classes += [value for name, value in attrs if name == "class"]

    def handle_data(self, data):
        self.text += data


def pixels(path):
    """Width, height and the set of bytes of a PNG's first 2000 lines, unfiltered: enough to tell a
    page from an empty one (PNG specification, 5.3 and 9)."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IDAT":
            packed += data[at + 8:at + 8 + length]
        at += 12 + length
    return width, height, zlib.decompress(packed)


class Report(Case):
    def chromium(self, page, *arguments):
        done = subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu",
                               "--hide-scrollbars", f"--user-data-dir={self.folder / 'profile'}",
                               *map(str, arguments), page.as_uri()],
                              capture_output=True, text=True, timeout=180, check=True)
        return done.stdout

    def report(self, image):
        page = self.folder / "report.html"
        with open(page, "wb") as out:
            subprocess.run([str(build() / "tools/ckpt-tool"), "report", str(image)], stdout=out,
                           timeout=60, check=True)
        return page

    def lively(self, name="disk.img"):
        """A volume with some of everything."""
        server = self.serve(self.image(name, size=16 * MIB))
        for i in range(12):
            with NbdClient(str(server.socket)) as client:
                client.write(0, bytes([i + 1]) * 4096 * (1 << (i % 9)))
            tool("checkpoint", server.image, "--name", HOSTILE if i == 7 else f"step-{i}")
        tool("rollback", server.image, "--yes")
        server.stop()
        with open(server.state / "events", "a", encoding="utf-8") as file:
            for event in ({"event": "missed", "count": 3, "why": HOSTILE},
                          {"event": "void", "checkpoint": 99, "why": HOSTILE + "\x1b[2J\x00"},
                          {"event": "store", "state": HOSTILE, "error": HOSTILE}):
                file.write(json.dumps({"schema": 1, "time": "2026-01-31T12:00:00.123Z", **event}) +
                           "\n")
            file.write("torn {\n")
        return server

    def made(self, server):
        lines = (server.state / "events").read_text(encoding="utf-8").splitlines()
        return sum('"event":"checkpoint"' in line for line in lines)

    def check_harmless(self, text):
        """Nothing is loaded, nothing is run."""
        for bad in ("http:", "https:", "//", "url(", "@import", "<script", "<img", "<link",
                    "<iframe", "\x1b", "\x00"):
            self.assertNotIn(bad, text.lower().replace("http-equiv", ""), bad)
        tags = Tags(text)
        self.assertFalse({"script", "img", "link", "iframe", "object"} & set(tags.tags))
        for name, _ in tags.attributes:
            self.assertFalse(name.startswith("on") or name in ("src", "href", "srcset"), name)
        self.assertIn(HOSTILE, tags.text)

    def test_a_page_of_everything(self):
        server = self.lively().start()
        eventually(lambda: self.status(server)["protected"], "it is protected again")
        page = self.report(server.image)
        self.check_harmless(page.read_text(encoding="utf-8"))
        dom = Tags(self.chromium(page, "--dump-dom"))
        self.assertEqual(dom.classes.count("bar changed"), self.made(server))
        self.assertEqual(dom.classes.count("bar shipped"), self.made(server))
        self.assertEqual(dom.classes.count("dot confirm"), self.made(server))
        for mark in ("void", "missed", "rollback"):
            self.assertEqual(dom.classes.count(f"mark {mark}"), 1, mark)
        self.assertNotIn("script", dom.tags)
        self.assertIn("Protected: ", dom.text)

    def test_a_picture_of_it_is_not_empty(self):
        page = self.report(self.lively().image)
        picture = self.folder / "report.png"
        self.chromium(page, f"--screenshot={picture}", "--window-size=1200,1600")
        width, height, data = pixels(picture)
        self.assertEqual((width, height), (1200, 1600))
        self.assertGreater(len(set(data[i:i + 3] for i in range(0, len(data), 3001))), 8)

    def test_a_stopped_volume_without_events(self):
        server = self.serve(self.image(size=8 * MIB))
        tool("checkpoint", server.image)
        server.stop()
        (server.state / "events").unlink()
        text = self.report(server.image).read_text(encoding="utf-8")
        self.assertIn("Not served", text)
        self.assertIn("Nothing is on record", text)
        self.assertNotIn("<rect", text)

    def test_a_volume_that_is_not_protected(self):
        server = self.serve(self.image(size=8 * MIB), "backup=none")
        page = Tags(self.report(server.image).read_text(encoding="utf-8"))
        headline = page.text.split("Not protected: ", 1)[-1].split("\n", 1)[0]
        self.assertIn("backup=none", headline)

    def test_json_has_the_same(self):
        server = self.lively()
        report = tool("report", server.image)
        self.assertFalse(report["served"])
        self.assertEqual(report["status"]["state"], "stopped")
        kinds = [event["event"] for event in report["events"]]
        self.assertEqual(kinds.count("checkpoint"), self.made(server))
        self.assertEqual(kinds[0], "start")
        self.assertEqual(kinds[-1], "store")
        self.assertEqual(report["events"][-3]["why"], HOSTILE)
        self.assertNotIn("schema", report["events"][0])

    def test_events_of_any_size_and_content(self):
        server = self.serve(self.image(size=8 * MIB))
        tool("checkpoint", server.image)
        eventually(lambda: (server.state / "events").exists(), "the file")
        line = json.dumps({"schema": 1, "time": "2026-01-31T12:00:00.123Z", "event": "checkpoint",
                           "checkpoint": 2**64 - 1, "name": "n", "changed_bytes": 2**64 - 1,
                           "shipped_bytes": 0, "stall_us": 0, "confirm_ms": 2**43})
        for content in (b"\0" * (3 * MIB), b"[" * (2 * MIB), (line + "\n").encode() * 20000,
                        b'{"a":' * MIB, bytes(range(256)) * 9000):
            (server.state / "events").write_bytes(content)
            self.report(server.image)
        (server.state / "events").write_bytes((line + "\n").encode() * 3)
        dom = Tags(self.report(server.image).read_text())
        self.assertEqual(dom.classes.count("bar changed"), 3)
        self.assertIsNone(re.search(r"\bnan\b|\binf\b", dom.text))

    def test_more_checkpoints_than_there_is_room_for(self):
        server = self.serve(self.image(size=8 * MIB))
        tool("checkpoint", server.image)
        server.stop()
        line = json.dumps({"schema": 1, "time": "2026-01-31T12:00:00.123Z", "event": "checkpoint",
                           "checkpoint": 5, "name": "", "changed_bytes": 4096,
                           "shipped_bytes": 100, "stall_us": 3, "confirm_ms": 9})
        (server.state / "events").write_text((line + "\n") * 1000)
        text = self.report(server.image).read_text()
        self.assertEqual(Tags(text).classes.count("bar changed"), 160)
        self.assertIn("the last 160 of 1000", text)

    def test_not_to_a_terminal_and_not_without_a_volume(self):
        image = self.image(size=8 * MIB)
        command = f"{build() / 'tools/ckpt-tool'} report {image}"
        done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=60, check=False)
        self.assertEqual(done.returncode, USAGE)
        self.assertIn(b"> report.html", done.stdout)
        tool("report", image, expect=UNKNOWN)


if __name__ == "__main__":
    unittest.main()
