# SPDX-License-Identifier: Apache-2.0
"""A proxy between ckpt-tool and QEMU's monitor, where things happen just before a command."""

import json
import os
import socket
import threading


class QmpProxy:
    """Clients come one after the other, as to the monitor. What `at()` names happens once, in the
    thread of the proxy, before QEMU gets that command."""

    def __init__(self, case, machine, name="proxy"):
        self.path = machine.folder / name
        self.machine = machine
        self.commands = []  # of the last client
        self._acts = {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        case.addCleanup(self.close)
        threading.Thread(target=self._serve, daemon=True).start()

    def at(self, command, act, count=1):
        """Before the count-th such command of a client. Returns what tells whether it has happened."""
        happened = threading.Event()
        self._acts[command, count] = act, happened
        return happened

    def close(self):
        self._socket.close()

    def _serve(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, socket.socket(socket.AF_UNIX) as monitor:
                try:
                    monitor.connect(str(self.machine.qmp))
                    self._pass_on(client, monitor)
                except OSError:
                    pass  # one of them is gone, and so is the other

    def _pass_on(self, client, monitor):
        self.commands = []
        down = threading.Thread(target=self._answers, args=(monitor, client), daemon=True)
        down.start()
        waiting, passed = b"", []
        while True:
            data, fds, _, _ = socket.recv_fds(client, 65536, 4)
            passed += fds
            if not data:
                break
            waiting += data
            while b"\n" in waiting:
                line, waiting = waiting.split(b"\n", 1)
                self._happen(json.loads(line)["execute"])
                socket.send_fds(monitor, [line + b"\n"], passed)
                for fd in passed:
                    os.close(fd)
                passed = []
        monitor.shutdown(socket.SHUT_RDWR)
        down.join()

    def _happen(self, command):
        self.commands.append(command)
        act, happened = self._acts.pop((command, self.commands.count(command)), (None, None))
        if act:
            act()
            happened.set()

    @staticmethod
    def _answers(monitor, client):
        try:
            while data := monitor.recv(65536):
                client.sendall(data)
        except OSError:
            pass
        try:
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
