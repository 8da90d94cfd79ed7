# SPDX-License-Identifier: Apache-2.0
"""The servers that are measured, and the place where they and their images live."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
from nbd_client import NbdClient  # noqa: E402  (a folder of its own)

MIB = 1 << 20
GIB = 1 << 30
QUIET_SECONDS = 0.4  # longer than the plugin's batch-delay
_TICKS = os.sysconf("SC_CLK_TCK")


class Place:
    """A folder on the file system that is measured, with short-named sockets and a tmpfs of its own
    for the written maps. Leaving the context ends the servers and removes everything."""

    def __init__(self, folder, build):
        self.build = Path(build)
        self._on = folder
        self._servers = []

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ckpt-bench-", dir=self._on))
        self.sockets = Path(tempfile.mkdtemp(prefix="cb", dir="/tmp"))  # sun_path has 108 bytes
        self.runtime = Path(tempfile.mkdtemp(prefix="ckpt-bench-", dir="/dev/shm"))
        return self

    def __exit__(self, *_):
        for server in self._servers:
            server.kill()
        self._servers = []
        for folder in (self.folder, self.sockets, self.runtime):
            shutil.rmtree(folder, ignore_errors=True)

    def image(self, size, how="preallocated", name="disk.img"):
        """A new image: sparse, preallocated (fallocate) or written (random bytes, synced)."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        self.forget(path)
        with open(path, "wb") as file:
            file.truncate(size)
            if how == "preallocated":
                os.posix_fallocate(file.fileno(), 0, size)
            elif how == "written":
                _fill(file, size)
        return path

    def forget(self, image):
        """Removes the state of an image, and map files that killed servers left."""
        shutil.rmtree(f"{image}.ckpt", ignore_errors=True)
        if not any(isinstance(one, Server) and one.running for one in self._servers):
            shutil.rmtree(self.runtime / "ckpt", ignore_errors=True)

    def clear(self):
        """Removes all images with their state. No server runs."""
        for path in self.folder.glob("*.img"):
            path.unlink()
            self.forget(path)

    def serve(self, kind, image, *parameters, port=None):
        """A started nbdkit with that plugin ("ckpt": ours), on a Unix socket or that TCP port."""
        return self.adopt(Server(self, kind, image, parameters, port)).start()

    def adopt(self, server):
        """Ends that one, too, when the context is left."""
        self._servers.append(server)
        return server


def _fill(file, size):
    """Writes random bytes and syncs them."""
    pool = os.urandom(16 * MIB)
    for offset in range(0, size, len(pool)):
        file.write(pool[: size - offset])
    file.flush()
    os.fdatasync(file.fileno())


class Server:
    """One nbdkit on a Unix socket, or on a TCP port of 127.0.0.1."""

    def __init__(self, place, kind, image, parameters, port=None):
        self.kind = kind
        self.image = Path(image)
        self.port = port
        self.socket = str(place.sockets / self.image.stem)
        self.uri = f"nbd://127.0.0.1:{port}" if port else f"nbd+unix:///?socket={self.socket}"
        self.log = place.folder / "server.log"
        self.command = self.words(place, parameters)
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(place.runtime)}
        self.process = None
        self.start_seconds = None

    def words(self, place, parameters):
        """Its command line."""
        plugin = str(place.build / "plugin/nbdkit-ckpt-plugin.so") if self.kind == "ckpt" else self.kind
        what = [f"size={self.image.stat().st_size}"] if self.kind == "null" else [str(self.image)]
        listen = ["-i", "127.0.0.1", "-p", str(self.port)] if self.port else ["-U", self.socket]
        return ["nbdkit", "-f", "--exit-with-parent", *listen, plugin, *what, *parameters]

    def start(self):
        """Starts it; start_seconds is then the time from before fork and exec until a client that
        connects has its first read answered."""
        Path(self.socket).unlink(missing_ok=True)
        began = time.perf_counter()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=self.environment)
        while not self._answers():
            if not self.running or time.perf_counter() - began > 300:
                self.kill()
                raise RuntimeError(f"{self.command}: {self.log.read_text()[-2000:]}")
            time.sleep(0.0005)
        self.start_seconds = time.perf_counter() - began
        return self

    def _answers(self):
        try:
            if self.port:
                socket.create_connection(("127.0.0.1", self.port), 10).close()
                return True
            with NbdClient(self.socket) as client:
                client.read(0, 4096)
            return True
        except (ConnectionError, FileNotFoundError):
            return False

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """Ends it in good order; returns how long that took in seconds."""
        began = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(300)
        if code != 0:
            raise RuntimeError(f"{self.kind} exits with {code}: {self.log.read_text()[-2000:]}")
        return time.perf_counter() - began

    def kill(self):
        if self.running:
            self.process.kill()
            self.process.wait()

    def cpu_seconds(self):
        """Processor time of all its threads, user and system."""
        return cpu_seconds(self.process.pid)

    def memory(self):
        """Resident bytes by kind, as the kernel counts them."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return {name: int(fields[name].split()[0]) * 1024
                for name in ("VmRSS", "RssAnon", "RssShmem", "RssFile")}

    def ask(self, command, timeout=600, **fields):
        """One request on the control socket (docs/control-protocol.md); its result."""
        request = json.dumps({"schema": 1, "command": command, **fields}) + "\n"
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(timeout)
            connect_in(control, f"{self.image}.ckpt", "control.sock")
            control.sendall(request.encode())
            lines = map(json.loads, control.makefile("r"))
            answer = next((line for line in lines if line["type"] != "progress"), {})
        if answer.get("type") != "result":
            raise RuntimeError(f"{command}: {answer.get('message', 'the server is gone')}")
        return answer

    def settle(self, seconds=600):
        """Waits until the back-up has applied what it confirmed and no more is being shipped: what
        was written again after it had been shipped waits for the next checkpoint."""
        deadline = time.monotonic() + seconds
        quiet_since, unshipped = time.monotonic(), None
        while time.monotonic() - quiet_since < QUIET_SECONDS:
            status = self.ask("status")
            backup = status["backup"]
            working = not status["last_checkpoint"] or backup["confirmed_bytes"] > 0
            if working or backup["unshipped_bytes"] != unshipped:
                quiet_since, unshipped = time.monotonic(), backup["unshipped_bytes"]
            if time.monotonic() > deadline or status["problem"]:
                raise RuntimeError(f"the back-up does not catch up: {status}")
            time.sleep(0.02)


def cpu_seconds(pid):
    """Processor time of all threads of a process, user and system."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    words = stat[stat.rindex(")") + 2:].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def connect_in(client, folder, name):
    """Connects to a socket in a folder whose path may be too long for sun_path."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        client.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)
