# SPDX-License-Identifier: Apache-2.0
"""Whether the delaying proxy delays, and only delays: a ping-pong and a bulk transfer."""

import socket
import statistics
import threading
import time

from servers import MIB

PINGS = 50
PING_BYTES = 64


class Responder:
    """A server in this process: echoes what comes, or counts it. A connection's first byte says
    which: "e", or "c" with a number of bytes and a newline, which are answered with one byte."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        try:
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._respond, args=(client,), daemon=True).start()
        except OSError:
            return

    @staticmethod
    def _respond(client):
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if client.recv(1) == b"e":
                while data := client.recv(PING_BYTES):
                    client.sendall(data)
            else:
                left = int(client.recv(16).rstrip())
                while left > 0 and (data := client.recv(MIB)):
                    left -= len(data)
                client.sendall(b".")


def _connect(address):
    host, _, port = address.rpartition(":")
    client = socket.create_connection((host, int(port)), 60)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def ping_ms(address):
    """The median round trip of a small message."""
    taken = []
    with _connect(address) as client:
        client.sendall(b"e")
        for _ in range(PINGS):
            began = time.perf_counter()
            client.sendall(b"p" * PING_BYTES)
            left = PING_BYTES
            while left:
                left -= len(client.recv(left))
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


def bulk_rate(address, size):
    """Bytes a second of one transfer, from its first byte to the answer to its last."""
    data = bytes(MIB)
    with _connect(address) as client:
        client.sendall(b"c" + b"%15d\n" % size)
        time.sleep(0.3)  # the connection is open at both ends
        began = time.perf_counter()
        for _ in range(size // MIB):
            client.sendall(data)
        if client.recv(1) != b".":
            raise RuntimeError("the transfer was cut")
        return size / (time.perf_counter() - began)
