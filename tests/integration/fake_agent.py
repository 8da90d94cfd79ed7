# SPDX-License-Identifier: Apache-2.0
"""Somebody behind a channel of a machine who answers as QEMU's agent in a guest does (QEMU's
docs/interop/qemu-ga.rst)."""

import json
import socket
import threading


class FakeAgent:
    """One client after the other. `note()`: what is noted with each command."""

    def __init__(self, case, note):
        self.path = case.folder / "agent"
        self.note = note
        self.asked = []  # (command, note)
        self.answers = {"guest-fsfreeze-freeze": {"return": 3}, "guest-fsfreeze-thaw": {"return": 3}}
        self._acts = {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        case.addCleanup(self._socket.close)
        threading.Thread(target=self._serve, daemon=True).start()

    def at(self, command, act):
        """Happens before that is answered."""
        self._acts[command] = act

    def _serve(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines:
                for line in lines:
                    client.sendall(self._answer(json.loads(line.lstrip(b"\xff"))))

    def _answer(self, request):
        command = request["execute"]
        if command == "guest-sync-delimited":
            return b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode() + b"\n"
        self.asked.append((command, self.note()))
        self._acts.pop(command, lambda: None)()
        return json.dumps(self.answers[command]).encode() + b"\n"
