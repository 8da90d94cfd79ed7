#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What is installed beside the programs: units for systemd, and manual pages that say the truth."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

from harness import MIB, Case, build, eventually, plugin, run, tool
from nbd_client import NbdClient

TOP = Path(__file__).resolve().parents[2]
UNITS = TOP / "systemd"


def settings(unit, name):
    """All values of a setting, in their order."""
    return re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


class Units(Case):
    def verify(self, **edits):
        """What systemd-analyze says of the units of a volume "data"; edits: setting = line."""
        for unit in ("service", "socket"):
            text = (UNITS / f"ckpt@.{unit}").read_text()
            for name, line in edits.items():
                text = re.sub(rf"^{name}=.*$", line, text, flags=re.MULTILINE)
            (self.folder / f"ckpt@data.{unit}").write_text(text)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no",
                               *map(str, self.folder.glob("ckpt@data.*"))],
                              capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr + (f"exit {done.returncode}" if done.returncode else "")

    def test_systemd_has_no_complaint(self):
        self.assertEqual(self.verify(), "")
        self.assertIn("Unknown key", self.verify(TimeoutStopSec="TimeoutStop=5"))
        self.assertIn("nowhere", self.verify(ExecStart="ExecStart=/nowhere/nbdkit"))

    def test_the_daemon_s_unit_has_none_either_and_is_hardened(self):
        run("cp", UNITS / "backupd.service", self.folder)
        unit = self.folder / "backupd.service"
        # The program is not installed here; what is looked at is the rest.
        text = re.sub(r"(?m)^(ExecStart(Pre)?)=backupd", rf"\1={build()}/backupd/backupd",
                      unit.read_text())
        unit.write_text(text)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        judged = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
        exposure = float(re.search(r"exposure level for backupd.service: ([0-9.]+)", judged)[1])
        self.assertLess(exposure, 2.5, judged)

    def test_nothing_takes_block_devices_or_the_written_maps_away(self):
        text = (UNITS / "ckpt@.service").read_text()
        for setting in ("PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy",
                        "PrivateTmp", "ProtectHome", "DynamicUser"):
            self.assertEqual(settings("ckpt@.service", setting), [], setting)
        self.assertEqual(settings("ckpt@.service", "ProtectSystem"), ["full"])
        self.assertEqual(settings("ckpt@.service", "RuntimeDirectoryPreserve"), ["yes"])
        self.assertNotIn("XDG_RUNTIME_DIR", text)

    def test_allowed_system_calls_have_what_the_plugin_needs(self):
        filters = settings("ckpt@.service", "SystemCallFilter")
        names, allowed = [word for line in filters for word in line.split()], set()
        while names:
            name = names.pop()
            if name.startswith("@"):
                listed = run("systemd-analyze", "syscall-filter", name).splitlines()[1:]
                names += [line.strip() for line in listed if line.strip()[:1] not in ("#", "")]
            else:
                allowed.add(name)
        self.assertLess({"io_uring_setup", "io_uring_enter", "io_uring_register", "pwritev2",
                         "fallocate", "flock", "prctl", "setpriority", "fdatasync", "statx",
                         "memfd_create", "accept4"}, allowed)

    def test_all_is_installed(self):
        installed = json.loads(run("meson", "introspect", "--installed", build())).values()
        for end in ("/system/ckpt@.service", "/system/ckpt@.socket",
                    "/zsh/site-functions/_ckpt-tool", "/bash-completion/completions/ckpt-tool",
                    "/man1/ckpt-tool.1", "/man1/nbdkit-ckpt-plugin.1", "/man5/ckpt-formats.5", "/man8/backupd.8",
                    "/man8/ckpt@.service.8", "/system/backupd.service", "/sysusers.d/ckpt-backup.conf",
                    "/doc/ckpt/backupd.toml", "/doc/ckpt/control-protocol.md",
                    "/doc/ckpt/events-format.md", "/doc/ckpt/grafana-dashboard.json",
                    "/doc/ckpt/examples/libvirt-hook", "/libexec/ckpt/criu-hook"):
            self.assertEqual(len([path for path in installed if path.endswith(end)]), 1, end)


class Activated(Case):
    """The service's command, with a socket from outside."""

    def setUp(self):
        super().setUp()
        self.image_path = self.folder / "a disk.img"
        self.socket = self.folder / "nbd.sock"
        self.log = self.folder / "log"

    def said(self):
        return self.log.read_text(errors="replace")

    def command(self):
        """As systemd makes it of ExecStart= and of a conf file like the manual's."""
        words = shlex.split(settings("ckpt@.service", "ExecStart")[0])
        values = {"$OPTIONS": ["--threads=4"], "$PARAMETERS": ["size=64M", "multi-conn=on"],
                  "ckpt": [str(plugin())], "file=${IMAGE}": [f"file={self.image_path}"]}
        return [word for given in words for word in values.get(given, [given])]

    def activate(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["systemd-socket-activate", "-l", str(self.socket), *self.command()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        eventually(lambda: "Listening" in self.said(), "it listens")

    def ask_to_stop(self):
        self.process.send_signal(signal.Signals[settings("ckpt@.service", "KillSignal")[0]])

    def expect_clean_end(self):
        self.assertEqual(self.process.wait(60), 0, self.said())
        self.assertFalse(tool("status", self.image_path).last.get("problem"))
        self.assertTrue(Path(f"{self.image_path}.ckpt/saved-map").exists())

    def test_a_client_starts_it_and_a_checkpoint_is_made(self):
        self.activate()
        self.assertFalse(self.image_path.exists())
        with NbdClient(str(self.socket)) as client:
            client.write(MIB, b"saved" * 4096)
            tool("checkpoint", self.image_path, "--name", "first")
            client.write(MIB, b"wrong" * 4096)
        tool("rollback", self.image_path, "first", "--yes")
        self.assertEqual(self.image_path.read_bytes()[MIB:MIB + 20480], b"saved" * 4096)
        self.ask_to_stop()
        self.expect_clean_end()

    def test_its_stop_waits_for_the_client(self):
        self.activate()
        with NbdClient(str(self.socket)) as client:
            client.write(0, b"x" * 4096)
            self.ask_to_stop()
            time.sleep(1)
            self.assertIsNone(self.process.poll(), self.said())
        self.expect_clean_end()


class Reliability(unittest.TestCase):
    """docs/reliability.md names tests that there are."""

    page = (TOP / "docs/reliability.md").read_text()

    def sources(self, folder, pattern):
        return "".join(path.read_text() for path in sorted((TOP / folder).glob(pattern)))

    def test_unit_tests(self):
        tests = set(re.findall(r"\bTEST(?:_F|_P)?\((\w+),\s*(\w+)\)",
                               self.sources("tests/unit", "*.cc")))
        named = re.findall(r"`([A-Z]\w+)\.(\w+|\*)`", self.page)
        self.assertGreater(len(named), 10)
        for suite, test in named:
            found = any(one[0] == suite for one in tests) if test == "*" else (suite, test) in tests
            self.assertTrue(found, f"{suite}.{test}")

    def test_tests_on_this_machine(self):
        there = self.sources("tests/integration", "test_*.py")
        named = set(re.findall(r"`(test_\w+)`", self.page))
        self.assertGreater(len(named), 10)
        for test in named:
            self.assertIn(f"def {test}(", there)
        for file in re.findall(r"`(test_\w+\.py)`", self.page):
            self.assertTrue((TOP / "tests/integration" / file).exists(), file)

    def test_guests(self):
        there = subprocess.run([TOP / "tests/guest/run.sh", "--list"], stdout=subprocess.PIPE,
                               check=True, text=True).stdout.split()
        named = {name for names in re.findall(r"guests? ((?:`\w+`(?:, )?)+)", self.page)
                 for name in re.findall(r"`(\w+)`", names)}
        self.assertGreater(len(named), 5)
        self.assertLessEqual(named, set(there))


class Tutorial(unittest.TestCase):
    """Whatever docs/tutorial.md tells to type is run by a test."""

    page = (TOP / "docs/tutorial.md").read_text()

    def test_every_block_is_run(self):
        fences = re.findall(r"^```(.*)$", self.page, re.MULTILINE)
        self.assertGreater(len(fences[::2]), 10)
        self.assertEqual(set(fences[::2]), {"console"})
        self.assertNotRegex(self.page, re.compile(r"^    \S", re.MULTILINE))

    def test_whoever_runs_one_is_run(self):
        runs = "".join((TOP / file).read_text() for file in ("tests/run.sh", "tests/guest/run.sh"))
        marks = re.findall(r"^<!--.*", self.page, re.MULTILINE)
        self.assertGreater(len(marks), 1)
        for mark in marks:
            self.assertRegex(mark, r"^<!-- run by \S+ -->$")
            script = TOP / mark.split()[3]
            self.assertTrue(os.access(script, os.X_OK), script)
            self.assertIn(script.name, runs)


class Formats(Case):
    """ckpt-formats(5) names every file that there is."""

    page = (TOP / "docs/ckpt-formats.pod").read_text()

    def named(self, folder):
        return {name for name in os.listdir(folder) if f"F<{name}>" not in self.page
                and f"F<{name}/>" not in self.page}

    def test_every_file_is_named(self):
        server = self.serve(self.image())
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"x" * MIB)
        tool("checkpoint", server.image)
        self.assertEqual(self.named(server.state), set())
        self.assertEqual(self.named(server.state / "store"), set())
        server.stop()
        self.assertEqual(self.named(server.state), set())
        self.assertIn("saved-map", os.listdir(server.state))

    def test_they_are_their_owners_alone(self):
        os.umask(0o022)
        server = self.serve(self.folder / "disk.img", "size=8M")
        paths = [server.image, server.state, *server.state.rglob("*")]
        self.assertGreater(len(paths), 8)
        for path in paths:
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    def test_either_side_alone_begins_as_a_new_volume(self):
        server = self.serve(self.image())
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"kept" * 1024)
        tool("checkpoint", server.image)
        eventually(lambda: self.status(server)["backup"]["applied"] ==
                   self.status(server)["backup"]["confirmed"], "it is applied")
        server.stop()
        for source in (server.image, server.state / "store" / "backup.img"):
            copy = self.folder / f"copy of {source.name}"
            shutil.copy(source, copy)
            other = self.serve(copy)
            first = eventually(lambda: self.status(other)["last_checkpoint"], "a first copy")
            self.assertEqual(first["checkpoint"], 1)
            self.assertEqual(copy.read_bytes()[:4096], b"kept" * 1024)
            other.stop()

    def test_copied_together_they_keep_the_checkpoint(self):
        server = self.serve(self.image())
        number = tool("checkpoint", server.image)["checkpoint"]
        server.stop()
        copy = self.folder / "copy"
        run("cp", "-a", server.image, copy)
        run("cp", "-a", server.state, f"{copy}.ckpt")
        other = self.serve(copy)
        self.assertEqual(self.status(other)["last_checkpoint"]["checkpoint"], number)


if __name__ == "__main__":
    unittest.main()
