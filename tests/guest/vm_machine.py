# SPDX-License-Identifier: Apache-2.0
"""The machine of vm_rounds.py: a small Linux whose root is a volume, in QEMU on this machine, and
the talk with both. It is installed by mkfs.ext4, which writes the whole tree into the image before
anybody serves it."""

import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("CKPT_GUEST_CACHE", "/var/cache/ckpt-guest"))
sys.path.insert(0, str(HERE.parent / "integration"))

from harness import MIB, eventually, run  # noqa: E402

IMAGE_SIZE = 128 * MIB
MEMORY_MIB = 128
FILES = 2 * MIB  # of real files, so that a check of the file system means something


def install(image):
    """A root file system with the counter in it; returns the number of its files."""
    tree = image.with_suffix(".tree")
    for name in ("bin", "sbin", "proc", "sys", "dev", "tmp", "var/log", "var/noise"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin/busybox")
    shutil.copy(HERE / "vm_counter_init.sh", tree / "sbin/init")
    run("gcc", "-std=c11", "-O2", "-static", "-pthread", HERE / "vm_counter.c", "-o",
        tree / "sbin/counter")
    copy_agent(tree)
    copy_files(Path(os.__file__).parent, tree / "usr/lib/files")
    count = list_files(tree)
    with open(image, "wb") as file:
        file.truncate(IMAGE_SIZE)
    run("mkfs.ext4", "-q", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", tree,
        image)
    shutil.rmtree(tree)
    return count


def copy_agent(tree):
    """QEMU's agent as Debian has it, and the libraries that it is linked to."""
    program = CACHE / "agent/usr/sbin/qemu-ga"
    shutil.copy(program, tree / "sbin/qemu-ga")
    for path in re.findall(r"(/\S+) \(0x", run("ldd", program)):
        place = tree / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)


def copy_files(source, target):
    copied = 0
    for path in sorted(source.rglob("*.py")):
        if copied > FILES:
            return
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
        copied += path.stat().st_size
    raise AssertionError(f"{source} has only {copied} bytes of files")


def list_files(tree):
    """Writes what `sha256sum -c` reads in the machine."""
    lines = []
    for path in sorted(p for p in tree.rglob("*") if p.is_file()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{digest}  /{path.relative_to(tree)}\n")
    (tree / "manifest").write_text("".join(lines))
    return len(lines)


class QmpError(AssertionError):
    """QEMU refused a command."""


class Qmp:
    """One connection to QEMU's monitor."""

    def __init__(self, path, seconds=10):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(seconds)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r", encoding="utf-8")
        greeting = json.loads(self._lines.readline())
        if "QMP" not in greeting:
            raise QmpError(f"no greeting: {greeting}")
        self.command("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._lines.close()
        self._socket.close()

    @property
    def pid(self):
        """Of the process that listens: QEMU."""
        got = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", got)[0]

    def command(self, name, **arguments):
        request = {"execute": name, **({"arguments": arguments} if arguments else {})}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            line = self._lines.readline()
            if not line:
                raise QmpError(f"{name}: QEMU has closed the connection")
            answer = json.loads(line)
            if "error" in answer:
                raise QmpError(f"{name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


class State:
    """What the counter says of itself."""

    def __init__(self, answer):
        self.answer = answer
        words = answer.split()
        pairs = dict(word.split("=", 1) for word in words[:7])
        self.memory, self.file, self.lines, self.bad_blocks, self.uptime, self.physical, \
            self.complaints = (int(pairs[name]) for name in (
                "memory", "file", "lines", "bad_blocks", "uptime", "physical", "complaints"))

    def __str__(self):
        return self.answer

    def check(self):
        """Memory and disk are of one instant, and always were."""
        if not self.memory == self.file == self.lines or self.bad_blocks or self.complaints:
            raise AssertionError(f"memory and disk do not agree: {self}")
        return self


def words_of_the_kernel():
    """And its first line, how long it may take to that, and how often it may be tried (boot.sh)."""
    script = f'. {HERE}/boot.sh; echo "$up_seconds $up_tries $up_line"; echo "$kernel_words"'
    first, kernel = run("bash", "-c", script).splitlines()
    seconds, tries, line = first.split(" ", 2)
    return kernel, line, int(seconds), int(tries)


def escaped(path):
    return str(path).replace(",", ",,")


class Machine:
    """The QEMU that has the volume; it may be another process after each start."""

    _count = 0

    def __init__(self, server, folder):
        Machine._count += 1
        self.server = server
        self.console = folder / f"console-machine-{Machine._count}.log"
        self.log = folder / f"qemu-{Machine._count}.log"
        short = server.socket.parent  # a socket's path has at most 107 bytes
        self.qmp_socket = short / "qmp"  # for ckpt-tool
        self._own_socket = short / "own"
        self._talk_socket = short / "talk"
        self.agent_socket = short / "agent"
        self._asked = 0
        self._child = None

    def words(self, memory=MEMORY_MIB, machine="pc"):
        kernel = words_of_the_kernel()[0]
        return ["qemu-system-x86_64", "-machine", machine, "-accel", "tcg,thread=multi", "-cpu",
                "max", "-smp", "2", "-m", str(memory), "-nodefaults", "-display", "none",
                "-no-reboot", "-nic", "none",
                "-kernel", f"{CACHE}/vmlinux", "-initrd", f"{CACHE}/initrd.img",
                "-append", f"{kernel} ckpt_root=/dev/vda",
                "-chardev", f"file,id=console,path={escaped(self.console)},append=on",
                "-serial", "chardev:console",
                "-chardev", f"socket,id=talk,path={self._talk_socket},server=on,wait=off",
                "-serial", "chardev:talk",
                "-chardev", f"socket,id=agent,path={self.agent_socket},server=on,wait=off",
                "-serial", "chardev:agent",
                "-qmp", f"unix:{self.qmp_socket},server=on,wait=off",
                "-qmp", f"unix:{self._own_socket},server=on,wait=off",
                "-blockdev", "driver=nbd,node-name=volume,server.type=unix,"
                f"server.path={self.server.socket},reconnect-delay=30,discard=unmap",
                "-device", "virtio-blk-pci,drive=volume,discard=on,write-zeroes=on"]

    def launch(self, words):
        """Starts a QEMU that ends with this process's cleanup."""
        with open(self.log, "ab") as log:
            self._child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self._child

    def boot(self):
        """Starts it and waits until it counts. A kernel that is stuck before /init is given another
        chance (boot.sh)."""
        _, line, seconds, tries = words_of_the_kernel()
        for _ in range(tries):
            self.console.unlink(missing_ok=True)
            self.launch(self.words())
            if self._says(line, seconds):
                eventually(lambda: self._says("vm: counting", 1), "the machine counts", 60)
                eventually(lambda: self.state().memory > 5, "the machine counts on", 60)
                return self
            self._child.kill()
            self._child.wait()
        raise AssertionError(f"the kernel did not come to /init: {self.said()}")

    def _says(self, line, seconds):
        deadline = time.monotonic() + seconds
        while line not in self.said():
            if self._child.poll() is not None:
                raise AssertionError(f"QEMU ended with {self._child.returncode}: {self.said()}"
                                     f"{self.log.read_text(errors='replace')}")
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def said(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    # The monitor.

    def monitor(self):
        return Qmp(self._own_socket)

    def status(self):
        with self.monitor() as monitor:
            return monitor.command("query-status")["status"]

    def pid(self):
        with self.monitor() as monitor:
            return monitor.pid

    def processes(self):
        """Every QEMU with sockets of this machine, whoever started it."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if b"qemu-system" in words[0] and any(
                    str(self._own_socket).encode() in word for word in words):
                found.append(int(path.parts[2]))
        return found

    def kill(self, pid=None):
        """As a power cut."""
        end_process(pid or self.pid())
        self._reap()

    def _reap(self):
        if self._child is not None:
            self._child.wait()
            self._child = None

    def cleanup(self):
        for pid in self.processes():
            end_process(pid)
        self._reap()

    def count_in_memory(self, state):
        """The count of a machine that is paused, read from outside; `state` says where it is."""
        target = self.log.with_suffix(".page")
        with self.monitor() as monitor:
            monitor.command("pmemsave", val=state.physical, size=24, filename=str(target))
        data = target.read_bytes()
        if data[:16] != b"ckpt vm counter\0":
            raise AssertionError(f"the counter is not in the page at {state.physical}: {data}")
        return int.from_bytes(data[16:], "little")

    # The counter.

    def ask(self, command, seconds=60):
        """One request to the counter; its answer."""
        self._asked += 1
        name = f"{os.getpid()}-{self._asked}"
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(str(self._talk_socket))
            talk.sendall(f"\n{name} {command}\n".encode())
            return self._answer(talk, name, command, time.monotonic() + seconds)

    @staticmethod
    def _answer(talk, name, command, deadline):
        got = b""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([talk], [], [], left)[0]:
                raise AssertionError(f"the machine does not answer '{command}': {got}")
            data = talk.recv(4096)
            if not data:
                raise AssertionError(f"QEMU has closed the serial port at '{command}': {got}")
            got += data
            for line in got.split(b"\n")[:-1]:
                if line.startswith(name.encode() + b" "):
                    return line.decode().split(" ", 1)[1]

    def state(self):
        return State(self.ask("state")).check()

    def must(self, command):
        answer = self.ask(command)
        if answer != "done":
            raise AssertionError(f"the machine does not {command}: {answer}")

    def power_off(self, seconds=60):
        """In good order; QEMU ends by itself."""
        pid = self.pid()
        with open_process(pid) as process, socket.socket(socket.AF_UNIX) as talk:
            talk.connect(str(self._talk_socket))
            talk.sendall(b"\noff off\n")
            if not select.select([process], [], [], seconds)[0]:
                raise AssertionError(f"the machine does not power off: {self.said()}")
        self._reap()

    def shell(self, words):
        answer = self.ask(f"run {words}", 120)
        if answer.endswith("(failed)"):
            raise AssertionError(f"in the machine: {words}: {answer}")
        return answer

    def counts_on(self, state, by=3):
        """Waits until it has counted that far since; the state then."""
        eventually(lambda: self.state().memory >= state.memory + by, "it counts on", 60)
        return self.state()


@contextlib.contextmanager
def open_process(pid):
    """A descriptor that is readable once it has ended, whosever child it is."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def end_process(pid):
    """SIGKILL, and waits until it is gone."""
    with contextlib.suppress(ProcessLookupError), open_process(pid) as process:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        if not select.select([process], [], [], 30)[0]:
            raise AssertionError(f"process {pid} does not end")
