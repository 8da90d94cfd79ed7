# SPDX-License-Identifier: Apache-2.0
"""The back-up in another process: backupd on a loopback port, and what is asked about it."""

import os
import shutil
import time
from pathlib import Path

from servers import cpu_seconds
import harness  # noqa: E402  (of tests/integration, which `servers` makes known)

POLL_SECONDS = 0.005


class Backupd(harness.Backupd):
    """A backupd over a folder of a Place's; stop() and start() keep port and folder."""

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """Ends it for good."""
        self.cleanup()

    def remove(self):
        """Ends it for good, and what it keeps."""
        self.kill()
        shutil.rmtree(self.store, ignore_errors=True)

    def cpu_seconds(self):
        return cpu_seconds(self.process.pid)

    def memory(self):
        """Bytes of Rss, Pss and Anonymous (proc_pid_smaps(5), of all mappings together)."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
        return {name: int(fields[name].split()[0]) * 1024 for name in ("Rss", "Pss", "Anonymous")}

    def count_of(self, what):
        """How many threads ("task") or descriptors ("fd") it has."""
        return len(os.listdir(f"/proc/{self.process.pid}/{what}"))


def keep(place, *options, name="shelf"):
    """A started backupd at a port of 127.0.0.1."""
    os.environ["CKPT_BUILD"] = str(place.build)
    backupd = Backupd(place.folder / name, *options, folder=place.folder,
                      listen=f"127.0.0.1:{harness.free_port()}")
    return place.adopt(backupd).start()


def wait_for(server, condition, what, seconds=600):
    """Asks for the status until the condition holds of it; returns that."""
    deadline = time.monotonic() + seconds
    while not condition(status := server.ask("status")):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds} s: {what}: {status}")
        time.sleep(POLL_SECONDS)
    return status


def has_checkpoint(status):
    return status["last_checkpoint"] is not None


def is_applied(status):
    """The back-up has a checkpoint and has applied all that it confirmed."""
    backup = status["backup"]
    return (has_checkpoint(status) and backup["state"] == "connected"
            and backup["confirmed"] == backup["applied"] and backup["confirmed_bytes"] == 0)
