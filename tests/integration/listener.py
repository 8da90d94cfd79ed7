# SPDX-License-Identifier: Apache-2.0
"""Somebody at a Unix socket, who has one client after the other."""

import socket
import threading


def listen(case, path, serve):
    """From now until the case ends; `serve(client)` in a thread of its own, which closes it."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    case.addCleanup(listening.close)
    threading.Thread(target=_serve_all, args=(listening, serve), daemon=True).start()


def _serve_all(listening, serve):
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        with client:
            serve(client)
