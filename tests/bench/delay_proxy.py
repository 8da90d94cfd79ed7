# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that delays what it passes on, in a process of its own: `delay_proxy.py HOST:PORT`.

It stands in for netem, which needs a kernel module that not every host has. Each chunk that
comes in is sent on a fixed time later, and any number of chunks may be under way, up to 64 MiB a
direction: so it is a link with a latency and (but for what the proxy costs in processor time)
without a limit to its bandwidth. It also makes a new connection take a round trip. What it does
not do: with netem the kernels' socket buffers, some MiB, bound what is in flight; here they are at
either side of the delay, and bound nothing. Nothing is lost or comes in another order.

The first line of output is {"port": of 127.0.0.1}. Then each line of input is an order:
{"delay_ms": MS}       delays what comes from now on so long, each way; answers {}
It ends when its input does."""

import collections
import json
import socket
import sys
import threading
import time

CHUNK = 256 << 10
MOST_UNDER_WAY = 64 << 20  # bytes a direction; 20 ms at 3 GB/s


class Delay:
    """How long, each way."""
    seconds = 0.0


class Direction:
    """One direction of a connection: receive() and send() run on a thread each. What comes before
    `open_at` counts as having come then: the connection was not open at that end."""

    def __init__(self, source, sink, open_at):
        self._source, self._sink = source, sink
        self._open_at = open_at
        self._chunks = collections.deque()  # (when due, bytes); no bytes: the end
        self._under_way = 0
        self._is_broken = False
        self._changed = threading.Condition()

    def receive(self):
        try:
            while data := self._source.recv(CHUNK):
                self._put(data)
        except OSError:
            pass
        self._put(b"")

    def send(self):
        try:
            while data := self._take():
                self._sink.sendall(data)
            self._sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._break()

    def _put(self, data):
        due = max(time.monotonic(), self._open_at) + Delay.seconds
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < MOST_UNDER_WAY or self._is_broken)
            self._chunks.append((due, data))
            self._under_way += len(data)
            self._changed.notify_all()

    def _take(self):
        """The next chunk, when it is due."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks)
            due, data = self._chunks.popleft()
        if (early := due - time.monotonic()) > 0:
            time.sleep(early)
        with self._changed:
            self._under_way -= len(data)
            self._changed.notify_all()
        return data

    def _break(self):
        """Nobody takes it any more: whoever sends is to notice."""
        with self._changed:
            self._is_broken = True
            self._changed.notify_all()
        try:
            self._source.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(client, target):
    """One connection until both directions have ended. A client has it after a round trip, a server
    after half a one more."""
    try:
        server = socket.create_connection(target, 10)
    except OSError:
        client.close()
        return
    server.settimeout(None)
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    now = time.monotonic()
    directions = (Direction(client, server, now + 2 * Delay.seconds),
                  Direction(server, client, now + 3 * Delay.seconds))
    threads = [threading.Thread(target=act, daemon=True)
               for one in directions for act in (one.receive, one.send)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    server.close()


def accept(listener, target):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, target), daemon=True).start()


def main():
    host, _, port = sys.argv[1].rpartition(":")
    sys.setswitchinterval(0.0005)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, args=(listener, (host, int(port))), daemon=True).start()
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    for line in sys.stdin:
        Delay.seconds = json.loads(line)["delay_ms"] / 1000
        print("{}", flush=True)


if __name__ == "__main__":
    main()
