# SPDX-License-Identifier: Apache-2.0
"""What the host tests stand on: the server, ckpt-tool and the hammer as objects, and a test case
that cleans up after itself. CKPT_BUILD is the build folder, CKPT_SCRATCH the work folder; both may
be left out."""

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

MIB = 1 << 20
BLOCK = 4096

OK, FAILED, USAGE, DEGRADED, UNKNOWN, BUSY, NEWER, TIMEOUT, MISMATCH, HALFWAY = range(10)


def build():
    default = Path(__file__).resolve().parents[2] / "build"
    return Path(os.environ.get("CKPT_BUILD", default)).resolve()


def plugin():
    return build() / "plugin" / "nbdkit-ckpt-plugin.so"


def run(*command, **options):
    """Runs a program that must succeed; returns its standard output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          **options)
    if done.returncode != 0:
        raise AssertionError(f"{command} exits with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def eventually(condition, what, seconds=60):
    """Waits for a condition; returns its first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return value


def share_over_link(usual):
    """What part of what is repeated with the embedded store is done with one in backupd."""
    return 1 if os.environ.get("CKPT_OVER_LINKS") == "all" else usual


def free_port():
    """A port of 127.0.0.1 that nobody listened at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServerFailed(AssertionError):
    """The server ended before it served."""

    def __init__(self, code, message):
        super().__init__(f"nbdkit exits with {code}: {message}")
        self.code = code
        self.message = message


# Client flags and NBD_OPT_ABORT (NBD proto.md): leaves again without opening the export.
_ABORT = struct.pack(">IQII", 1, 0x49484156454F5054, 2, 0)


def plugin_environment():
    """For a process that loads the plugin. CKPT_PRELOAD: libraries for it alone, such as a
    sanitizer's run time."""
    preload = os.environ.get("CKPT_PRELOAD")
    return {**os.environ, **({"LD_PRELOAD": preload} if preload else {})}


class Server:
    """One nbdkit over one image, with our plugin or the one that `words` name; may be started again
    after stop() or kill9(). `under`: a command that runs it, in the same process."""

    _count = 0

    def __init__(self, image, *parameters, folder, environment=None, words=None, under=()):
        Server._count += 1
        self.image = Path(image)
        self.parameters = parameters
        self.environment = environment or {}
        self.words = words or [str(plugin())]
        self.under = under
        self.log = Path(folder) / f"nbdkit-{Server._count}.log"
        self._short = Path(tempfile.mkdtemp(prefix="ck"))  # a socket's path has at most 107 bytes
        self.socket = self._short / "nbd.sock"
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.process = None
        self.killed = False  # since its start; true before anybody can notice it

    @property
    def state(self):
        named = [p[len("state="):] for p in self.parameters if p.startswith("state=")]
        return Path(named[0]) if named else Path(f"{self.image}.ckpt")

    @property
    def command(self):
        return [*self.under, "nbdkit", "-f", "-U", str(self.socket),
                "--pidfile", str(self._short / "pid"), *self.words, str(self.image),
                *map(str, self.parameters)]

    def _launch(self):
        """Starts the process; returns where its messages begin in the log."""
        for stale in (self.socket, self._short / "pid"):
            stale.unlink(missing_ok=True)
        begin = self.log.stat().st_size if self.log.exists() else 0
        self.killed = False
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log,
                                            env={**plugin_environment(), **self.environment})
        return begin

    def start_and_kill(self, seconds):
        """Kills it that soon after its start, ready or not."""
        self._launch()
        time.sleep(seconds)
        self.kill9()

    def start(self, seconds=120):
        begin = self._launch()
        deadline = time.monotonic() + seconds
        while not self._answers():
            if self.process.poll() is not None:
                message = self.log.read_bytes()[begin:].decode(errors="replace")
                raise ServerFailed(self.process.returncode, message)
            if time.monotonic() > deadline:
                self.kill9()
                raise AssertionError(f"nbdkit does not serve after {seconds} s: {self.said()}")
            time.sleep(0.005)
        return self

    def control(self, command, **fields):
        """One request on the control socket, without the time that ckpt-tool takes to start
        (docs/control-protocol.md); its result or error."""
        request = json.dumps({"schema": 1, "command": command, **fields}) + "\n"
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(60)
            folder = os.open(self.state, os.O_RDONLY | os.O_DIRECTORY)
            try:
                control.connect(f"/proc/self/fd/{folder}/control.sock")
            finally:
                os.close(folder)
            control.sendall(request.encode())
            lines = map(json.loads, control.makefile("r"))
            return next(line for line in lines if line["type"] != "progress")

    def _answers(self):
        """True once it takes connections. The pidfile comes before the plugin's threads start,
        and the greeting after; the export is not opened for it."""
        pidfile = self._short / "pid"
        if not (pidfile.exists() and pidfile.read_text().strip()):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            try:
                probe.connect(str(self.socket))
                if not probe.recv(18):
                    return self._lives_on()
                probe.sendall(_ABORT)
                return True
            except OSError:
                return False

    def _lives_on(self):
        """It closed the connection: because it ends, or because it refuses clients?"""
        try:
            self.process.wait(0.2)
            return False
        except subprocess.TimeoutExpired:
            return True

    def refusal(self):
        """Starts a server that must refuse; returns what it says."""
        try:
            self.start()
        except ServerFailed as failed:
            if failed.code < 0:
                raise AssertionError(f"the server crashed: {failed}") from failed
            return failed.message
        self.stop()
        raise AssertionError(f"served, though it had to refuse: {self.command}")

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, seconds=120):
        """Ends it in good order; the exit code must be 0."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        self.process = None
        if code != 0:
            raise AssertionError(f"nbdkit ends with {code}: {self.said()}")

    def kill9(self):
        """Whether it lived until then."""
        if self.process is None:
            return False
        self.killed = True
        self.process.kill()
        code = self.process.wait()
        self.process = None
        return code == -signal.SIGKILL

    def said(self, characters=4000):
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def cleanup(self):
        self.kill9()
        shutil.rmtree(self._short, ignore_errors=True)


class Backupd:
    """One backupd over one folder, at a Unix socket or another address; may be started again.
    `environment` and `under` as with Server."""

    _count = 0

    def __init__(self, store, *options, folder, listen=None, environment=None, under=()):
        Backupd._count += 1
        self.store = Path(store)
        self.options = options
        self.environment = environment or {}
        self.under = under
        self.log = Path(folder) / f"backupd-{Backupd._count}.log"
        self._short = Path(tempfile.mkdtemp(prefix="ckb"))
        self.pidfile = self._short / "pid"
        self.address = listen or f"unix:{self._short / 'backupd.sock'}"
        self.process = None

    @property
    def command(self):
        return [*self.under, str(build() / "backupd" / "backupd"), "-f", "-P", str(self.pidfile),
                "--listen", self.address, "--store", str(self.store), *map(str, self.options)]

    def start(self, seconds=60):
        self.pidfile.unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env={**os.environ, **self.environment})
        eventually(lambda: self.pidfile.exists() or self.process.poll() is not None,
                   "backupd listens", seconds)
        if self.process.poll() is not None:
            raise ServerFailed(self.process.returncode, self.said())
        return self

    def refusal(self):
        """Starts one that must not come to serve; returns what it says."""
        done = subprocess.run(self.command, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60)
        if done.returncode not in (1, 2):
            raise AssertionError(f"exit {done.returncode}: {done.stderr}")
        return done.stderr

    def stop(self, seconds=60):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        self.process = None
        if code != 0:
            raise AssertionError(f"backupd ends with {code}: {self.said()}")

    def kill9(self):
        """Whether it lived until then."""
        if self.process is None:
            return False
        self.process.kill()
        code = self.process.wait()
        self.process = None
        return code == -signal.SIGKILL

    def folders(self):
        """Of its volumes."""
        return [one for one in self.store.iterdir() if one.is_dir()] if self.store.exists() else []

    def folder_of(self, server):
        return self.store / tool("status", server.image)["volume"]

    def said(self, characters=4000):
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def cleanup(self):
        self.kill9()
        shutil.rmtree(self._short, ignore_errors=True)


def words_of(arguments):
    return " ".join(str(argument) for argument in arguments)


class ToolAnswer:
    """What one call of ckpt-tool gave: exit code, JSON lines, the last one's fields as items."""

    def __init__(self, arguments, done):
        self.arguments = arguments
        self.code = done.returncode
        self.stderr = done.stderr
        try:
            self.lines = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        except ValueError as bad:
            raise AssertionError(f"ckpt-tool {words_of(arguments)}: {bad}: {done.stdout}") from bad
        self.last = self.lines[-1] if self.lines else {}

    def __getitem__(self, field):
        if field not in self.last:
            raise AssertionError(f"no field {field!r} in {self}")
        return self.last[field]

    @property
    def message(self):
        return self.last.get("message", "") or self.stderr

    def __str__(self):
        words = words_of(self.arguments)
        return f"ckpt-tool {words}: exit {self.code}, {self.last}, {self.stderr.strip()}"


def tool(*arguments, expect=OK, timeout=180, under=()):
    """Runs ckpt-tool --json; the exit code must be `expect` (None: any). `under` as with Server."""
    words = [str(argument) for argument in arguments]
    done = subprocess.run([*under, str(build() / "tools" / "ckpt-tool"), "--json", *words],
                          stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout)
    answer = ToolAnswer(words, done)
    if expect is not None and answer.code != expect:
        raise AssertionError(f"expected exit {expect}: {answer}")
    if answer.code < 0:
        raise AssertionError(f"ckpt-tool crashed: {answer}")
    if answer.code == OK and answer.last.get("type") != "result":
        raise AssertionError(f"the last line is no result: {answer}")
    return answer


class Hammer:
    """The load generator with its oracle (hammer.cc has its commands)."""

    _count = 0

    def __init__(self, folder):
        Hammer._count += 1
        self.log = Path(folder) / f"hammer-{Hammer._count}.log"
        program = build() / "tests" / "integration" / "hammer"
        self._lock = threading.Lock()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(program)], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE,
                                            stderr=log, text=True, bufsize=1)

    def ask(self, *words, seconds=300):
        """One command, its answer."""
        line = words_of(words)
        with self._lock:
            self.process.stdin.write(line + "\n")
            ready, _, _ = select.select([self.process.stdout], [], [], seconds)
            if not ready:
                raise AssertionError(f"the hammer does not answer {line!r} within {seconds} s")
            answer = self.process.stdout.readline().strip()
        if not answer:
            raise AssertionError(f"the hammer died at {line!r}: {self.said()}")
        return answer

    def must(self, *words, **options):
        """One command whose answer must be ok; returns its KEY=VALUE pairs."""
        answer = self.ask(*words, **options)
        if answer.split()[0] != "ok":
            raise AssertionError(f"hammer {words_of(words)}: {answer}")
        return {key: int(value) for key, value in (pair.split("=") for pair in answer.split()[1:])}

    def checkpoint(self, server, name, **options):
        """A checkpoint of the server's volume with its window marked; its answer."""
        self.must("mark", name, "begin")
        answer = tool("checkpoint", server.image, "--name", name, **options)
        self.must("mark", name, "end" if answer.code == OK else "drop")
        return answer

    def said(self):
        return self.log.read_text(errors="replace")[-4000:]

    def cleanup(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Case(unittest.TestCase):
    """A test with a scratch folder, whose servers and hammers end with it. The logs of a failed
    test are shown."""

    io = "auto"
    extra = ()  # parameters of every server with our plugin
    backupd = None  # where every such server has its back-up, unless it is told otherwise

    def setUp(self):
        scratch = os.environ.get("CKPT_SCRATCH")
        if scratch:
            os.makedirs(scratch, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self._testMethodName}-", dir=scratch))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self._logged = []
        self.addCleanup(self._show_logs)

    def _show_logs(self):
        outcome = self._outcome
        result = outcome.result
        problems = [*getattr(result, "failures", []), *getattr(result, "errors", [])]
        if not outcome.success or any(test is self for test, _ in problems):
            for one in self._logged:
                print(f"--- {one.log.name} of {self.id()}\n{one.said()}", file=sys.stderr)

    def image(self, name="disk.img", size=64 * MIB, folder=None):
        path = (folder or self.folder) / name
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def serve(self, image, *parameters, start=True, **options):
        if not any(str(p).startswith("io=") for p in parameters) and self.io != "auto":
            parameters = (*parameters, f"io={self.io}")
        if "words" not in options:
            parameters = (*self.extra, *parameters)
            if self.backupd and not any(str(p).startswith("backup=") for p in parameters):
                parameters = (*parameters, f"backup={self.backupd.address}")
        server = Server(image, *parameters, folder=self.folder, **options)
        self._logged.append(server)
        self.addCleanup(server.cleanup)
        return server.start() if start else server

    def keep(self, *options, store=None, start=True, **more):
        """A backupd, over a folder of this test's."""
        backupd = Backupd(store or self.folder / "shelf", *options, folder=self.folder, **more)
        self._logged.append(backupd)
        self.addCleanup(backupd.cleanup)
        return backupd.start() if start else backupd

    def hammer(self, server=None, threads=4, mode="multi"):
        hammer = Hammer(self.folder)
        self._logged.append(hammer)
        self.addCleanup(hammer.cleanup)
        if server is not None:
            hammer.must("connect", server.uri, threads, mode)
        return hammer

    def status(self, server):
        return tool("status", server.image)

    def backup_image(self, server):
        """The image of its back-up, wherever that is."""
        if self.backupd:
            return self.backupd.folder_of(server) / "backup.img"
        images = list(server.state.glob("store/**/backup.img"))
        self.assertEqual(len(images), 1)
        return images[0]

    def is_applied(self, server):
        backup = self.status(server)["backup"]
        return backup["confirmed"] == backup["applied"] and backup["confirmed_bytes"] == 0

    def expect_same_backup(self, server):
        """Nothing was written since the checkpoint: primary and back-up are equal in every byte."""
        eventually(lambda: self.is_applied(server), "the store has applied it", 60)
        run("cmp", server.image, self.backup_image(server))


class LoopDevice:
    """A loop device over a sparse file, until cleanup. `link` is a symbolic link to it."""

    def __init__(self, case, name, size, folder):
        backing = Case.image(case, f"{name}.backing", size, folder)
        self.device = run("losetup", "-f", "--show", backing).strip()
        case.addCleanup(subprocess.run, ["losetup", "-d", self.device], check=False)
        self.link = folder / name
        self.link.symlink_to(self.device)


class Mount:
    """A file system in a sparse file, on a loop device, mounted until cleanup."""

    def __init__(self, case, kind, size, folder):
        self.path = folder / f"{kind}-mount"
        self.path.mkdir()
        backing = case.image(f"{kind}.fs", size, folder)
        run(f"mkfs.{kind}", "-q", backing)
        self.device = run("losetup", "-f", "--show", backing).strip()
        case.addCleanup(subprocess.run, ["losetup", "-d", self.device], check=False)
        run("mount", self.device, self.path)
        case.addCleanup(subprocess.run, ["umount", str(self.path)], check=False)


class Tmpfs:
    """A small tmpfs, mounted until cleanup."""

    def __init__(self, case, size, folder, name="tmpfs"):
        self.path = folder / name
        self.path.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.path)
        case.addCleanup(subprocess.run, ["umount", str(self.path)], check=False)
