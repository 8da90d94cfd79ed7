#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Metrics: of the tool, and over HTTP on the control socket, to friends and to others."""

import http.client
import json
import os
import re
import socket
import subprocess
import time
import unittest
from pathlib import Path

from harness import MIB, UNKNOWN, Case, build, eventually, tool

DOCS = Path(__file__).resolve().parents[2] / "docs"
SAMPLE = re.compile(r'(ckpt_[a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+)\} (-?[0-9.]+)')


class UnixConnection(http.client.HTTPConnection):
    """http.client over a Unix socket; any length of path."""

    def __init__(self, state, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.state = state

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        folder = os.open(self.state, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/control.sock")
        finally:
            os.close(folder)


class Metrics(Case):
    def printed(self, image, *arguments):
        done = subprocess.run([str(build() / "tools/ckpt-tool"), "metrics", str(image), *arguments],
                              capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def parse(self, text):
        """Samples by name and labels; every line must be of the format, every sample described."""
        samples, types, helped = {}, {}, set()
        self.assertTrue(text.endswith("\n"))
        for line in text.splitlines():
            if line.startswith("# HELP "):
                helped.add(line.split()[2])
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                self.assertNotIn(name, types, "described twice")
                types[name] = kind
            else:
                match = SAMPLE.fullmatch(line)
                self.assertTrue(match, line)
                name, labels, value = match.groups()
                self.assertIn(name, types)
                self.assertIn(name, helped)
                self.assertNotIn((name, labels), samples, "a sample twice")
                samples[name, labels] = float(value)
        for name, kind in types.items():
            self.assertEqual(kind, "counter" if name.endswith("_total") else "gauge", name)
        return samples

    @staticmethod
    def value(samples, name, label=""):
        return next(value for (one, labels), value in samples.items()
                    if one == name and label in labels)

    def get(self, server, path="/metrics"):
        connection = UnixConnection(server.state)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer, body

    def raw(self, server, data, timeout=30):
        """What comes until the server closes the connection."""
        connection = UnixConnection(server.state, timeout)
        connection.connect()
        answer = b""
        try:
            connection.sock.sendall(data)
            while part := connection.sock.recv(65536):
                answer += part
        except (BrokenPipeError, ConnectionResetError):
            pass
        connection.sock.close()
        return answer

    def test_tool_and_server_say_the_same(self):
        server = self.serve(self.image('d"i\\s k.img', size=8 * MIB), "checkpoint-interval=3600")
        made = tool("checkpoint", server.image)
        eventually(lambda: self.status(server)["backup"]["applied"] == made["checkpoint"],
                   "it is applied")
        answer, body = self.get(server)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.version, 11)
        self.assertRegex(answer.getheader("Content-Type"), r"^text/plain; version=0\.0\.4\b")
        self.assertEqual(answer.getheader("Connection"), "close")
        served, told = self.parse(body), self.parse(self.printed(server.image))
        self.assertEqual(served.keys(), told.keys())
        self.assertIn(r'image="' + str(self.folder) + r'/d\"i\\s k.img"', body)
        for name, value in (("ckpt_up", 1), ("ckpt_protected", 1), ("ckpt_size_bytes", 8 * MIB),
                            ("ckpt_checkpoint_interval_seconds", 3600), ("ckpt_connections", 0),
                            ("ckpt_last_checkpoint_number", made["checkpoint"])):
            self.assertEqual(self.value(served, name), value, name)
        self.assertEqual(self.value(served, "ckpt_volume_state", 'state="running"'), 1)
        self.assertEqual(self.value(served, "ckpt_volume_state", 'state="fenced"'), 0)
        age = time.time() - self.value(served, "ckpt_last_checkpoint_timestamp_seconds")
        self.assertTrue(0 <= age < 300, age)

    def test_counters_count(self):
        server = self.serve(self.image(size=8 * MIB))

        def made():
            return self.value(self.parse(self.get(server)[1]), "ckpt_checkpoints_total")

        first = tool("checkpoint", server.image)["checkpoint"]
        # One is counted just after it was answered.
        eventually(lambda: made() == first, "all up to this one")
        for _ in range(3):
            tool("checkpoint", server.image)
        tool("rollback", server.image, "--yes")
        eventually(lambda: made() == first + 3, "three more")
        self.assertEqual(self.value(self.parse(self.get(server)[1]), "ckpt_rollbacks_total"), 1)

    def test_a_stopped_volume(self):
        server = self.serve(self.image(size=8 * MIB))
        tool("checkpoint", server.image)
        server.stop()
        samples = self.parse(self.printed(server.image))
        self.assertEqual(self.value(samples, "ckpt_up"), 0)
        self.assertEqual(self.value(samples, "ckpt_volume_state", 'state="stopped"'), 1)
        self.assertNotIn("ckpt_connections", [name for name, _ in samples])
        self.assertIn("ckpt_up", tool("metrics", server.image)["text"])

    def test_without_a_back_up(self):
        server = self.serve(self.image(size=8 * MIB), "backup=none")
        names = [name for name, _ in self.parse(self.get(server)[1])]
        self.assertNotIn("ckpt_backup_state", names)
        self.assertIn("ckpt_changed_bytes", names)

    def test_no_volume(self):
        self.assertIn("no such image", tool("metrics", self.folder / "x", expect=UNKNOWN).message)

    def test_anything_else_is_not_found(self):
        server = self.serve(self.image(size=8 * MIB))
        for path in ("/", "/metric", "/metrics/", "/metrics?x", "/../metrics", "/%6detrics"):
            answer, _ = self.get(server, path)
            self.assertEqual(answer.status, 404, path)
        for line in (b"GET /metrics", b"GET /metrics HTTP/2.0", b"GET /metrics HTTP/1.1 x",
                     b"GET  /metrics HTTP/1.1", b"GET ", b"GET /metrics\0 HTTP/1.1",
                     b"GET /metrics HTTP/1.x"):
            self.assertTrue(self.raw(server, line + b"\r\n\r\n").startswith(b"HTTP/1.1 404 "), line)
        answer = json.loads(self.first_line(server, b"POST /metrics HTTP/1.1\r\n"))
        self.assertEqual(answer["kind"], "invalid")

    def first_line(self, server, data):
        connection = UnixConnection(server.state)
        connection.connect()
        connection.sock.sendall(data)
        with connection.sock.makefile("rb") as lines:
            line = lines.readline()
        connection.sock.close()
        return line

    def test_bare_newlines_and_http_1_0(self):
        server = self.serve(self.image(size=8 * MIB))
        for request in (b"GET /metrics HTTP/1.0\r\n\r\n", b"GET /metrics HTTP/1.1\nHost: x\n\n"):
            answer = self.raw(server, request)
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer[:80])
            head, body = answer.split(b"\r\n\r\n", 1)
            self.assertIn(b"Content-Length: %d\r\n" % len(body), head + b"\r\n")

    def test_hostile_requests(self):
        server = self.serve(self.image(size=8 * MIB))
        first = b"GET /metrics HTTP/1.1\r\n"
        for headers in (b"x" * 200000, b"a: b\r\n" * 40000, b"y" * 65537 + b"\r\n\r\n"):
            answer = self.raw(server, first + headers)
            self.assertTrue(answer == b"" or answer.startswith(b"HTTP/1.1 431 "), answer[:80])
        self.assertEqual(self.raw(server, b"GET " + b"/" * 70000 + b"\r\n\r\n")[:9], b'{"schema"')
        connection = UnixConnection(server.state)
        connection.connect()
        connection.sock.sendall(first + b"half a hea")
        connection.sock.close()
        self.assertEqual(self.get(server)[0].status, 200)
        self.assertEqual(self.status(server)["state"], "running")

    def test_headers_that_do_not_end_time_out(self):
        server = self.serve(self.image(size=8 * MIB))
        connection = UnixConnection(server.state, 40)
        connection.connect()
        connection.sock.sendall(b"GET /metrics HTTP/1.1\r\n")
        begin = time.monotonic()
        connection.sock.settimeout(0.5)
        answer = b""
        while not answer and time.monotonic() - begin < 30:
            try:
                connection.sock.sendall(b"x: y\r\n")  # each line comes soon enough
            except BrokenPipeError:
                pass  # it has answered
            try:
                answer = connection.sock.recv(65536)
            except socket.timeout:
                continue
        self.assertTrue(answer.startswith(b"HTTP/1.1 408 "), answer)
        self.assertGreater(time.monotonic() - begin, 5)
        connection.sock.close()

    def test_a_folder_that_is_no_volume(self):
        tool("metrics", self.folder, expect=UNKNOWN)

    def test_dashboard_and_manual_know_what_there_is(self):
        server = self.serve(self.image(size=8 * MIB))
        tool("checkpoint", server.image)
        eventually(lambda: self.status(server)["made_checkpoints"] >= 1, "it is counted")
        names = {name for name, _ in self.parse(self.printed(server.image))}
        dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
        expressions = [target["expr"] for panel in dashboard["panels"]
                       for target in panel.get("targets", [])]
        self.assertGreater(len(expressions), 10)
        used = set(re.findall(r"\bckpt_[a-z_]+", " ".join(expressions)))
        self.assertEqual(used - names, set())
        for variable in dashboard["templating"]["list"]:
            for name in re.findall(r"\bckpt_[a-z_]+", json.dumps(variable)):
                self.assertIn(name, names)
        manual = set(re.findall(r"\bckpt_[a-z_]+", (DOCS / "ckpt-tool.pod").read_text()))
        self.assertEqual(manual, names)


if __name__ == "__main__":
    unittest.main()
