# SPDX-License-Identifier: Apache-2.0
"""A proxy between a primary and backupd that cuts or stalls connections at chosen frames, or changes
them (docs/wire-protocol.md). link_strikes.py has more that may happen to a frame."""

import collections
import socket
import struct
import threading
import time
from pathlib import Path

HEADER = 64
SESSION, READER = 1, 2
HELLO, BEGIN_SESSION, BATCH, CONFIRM, PING, PROMOTE = 1, 2, 4, 5, 12, 23
DONE, FAILED, WORKING, WELCOME, CONTENT, DIGESTS = 128, 129, 130, 131, 136, 140
OTHER_WAY = {"up": "down", "down": "up"}


class Fault:
    """What happens to one frame, the first time it comes: on connections of that role, in that
    direction ("up": to backupd), number `index` from 0, hello or welcome; or of those of that type. `part`: how much of it
    still goes through, "none", "byte", "most" (all but a byte) or "all". Then the connection is cut,
    or `stall`: nothing passes any more, in either direction, and it stays open."""

    def __init__(self, role, direction, index, part, stall=False, refuse=False,
                 type=None):
        self.role, self.direction, self.index = role, direction, index
        self.part, self.stall, self.refuse = part, stall, refuse
        self.type = type
        self.happened = threading.Event()

    def bytes_of(self, frame):
        return frame[:{"none": 0, "byte": 1, "most": len(frame) - 1, "all": len(frame)}[self.part]]

    def __str__(self):
        act = "stalls" if self.stall else "is cut"
        return f"role {self.role} {act} {self.direction} at frame {self.index}, {self.part} of it"


class Gone(OSError):
    """Who should have got it has closed the connection."""


class Connection:
    def __init__(self, proxy, client):
        self.proxy, self.client = proxy, client
        self.server = socket.socket(socket.AF_UNIX)
        self.server.connect(proxy.target)
        self.role = None
        self.stalled = False
        self.frames = {"up": 0, "down": 0}
        self.bytes = 0
        self.types = collections.Counter()
        self.pending = {}  # by direction: what strikes at the next frame, or where none comes any more
        self.done = None  # the last frame of that type
        self.heard = dict.fromkeys(OTHER_WAY, time.monotonic())  # when something was passed on
        self.is_cut = False
        self.gave_up = None  # who closed it: the direction it spoke in; it had heard nothing for so long
        self.ended = threading.Event()
        self.worked = threading.Event()  # "working" went down, or nothing will any more
        self.pumps = 2

    def run(self):
        for direction, source, sink in (("up", self.client, self.server),
                                        ("down", self.server, self.client)):
            threading.Thread(target=self.pump, args=(direction, source, sink), daemon=True).start()

    def cut(self):
        self.is_cut = True
        self.ended.set()
        self.worked.set()
        for end in (self.client, self.server):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @staticmethod
    def exactly(source, count):
        data = bytearray()
        while len(data) < count:
            part = source.recv(count - len(data))
            if not part:
                raise OSError("closed")
            data += part
        return bytes(data)

    def pump(self, direction, source, sink):
        try:
            while True:
                frame = self.exactly(source, HEADER)
                frame += self.exactly(source, struct.unpack_from("<I", frame, 24)[0])
                if self.role is None and direction == "up":
                    self.role = frame[HEADER + 4]
                if not self.pass_on(direction, frame, sink):
                    return
        except Gone:
            self.worked.set()  # what it has said before still comes, and its end
        except OSError:
            self.note_end(direction, sink)
            self.cut()
        finally:
            self.end_pump()

    def note_end(self, direction, sink):
        """One side says nothing any more: by itself, unless it is cut."""
        if not self.is_cut and self.gave_up is None:
            silent = time.monotonic() - self.heard[OTHER_WAY[direction]]
            self.gave_up = direction, silent
        pending = self.pending.pop(direction, None)
        if pending is not None:
            pending.at_the_end(self, sink)

    def end_pump(self):
        with self.proxy.lock:
            self.pumps -= 1
            if self.pumps == 0:
                self.client.close()
                self.server.close()

    def pass_on(self, direction, frame, sink):
        index = self.frames[direction]
        self.frames[direction] += 1
        self.bytes += len(frame)
        kind = struct.unpack_from("<H", frame, 6)[0]
        fault = self.proxy.fault_at(self.role, direction, index, kind, self.types[kind])
        self.types[kind] += 1
        strike = self.proxy.strike_at(direction, kind, frame)
        if self.stalled:
            return True
        if direction in self.pending:
            return self.pending.pop(direction).at_the_next(self, frame, sink)
        if strike:
            return strike.meet(self, frame, sink)
        self.send(direction, fault.bytes_of(frame) if fault else frame, sink)
        self.note(kind, frame)
        if fault:
            self.stalled = fault.stall
            if fault.refuse:
                self.proxy.refuse = True
                self.proxy.cut_all()
            elif not fault.stall:
                self.cut()
            fault.happened.set()
        return not fault or fault.stall

    def send(self, direction, data, sink):
        self.heard[direction] = time.monotonic()  # at the earliest
        try:
            sink.sendall(data)
        except OSError as error:
            raise Gone from error

    def note(self, kind, frame):
        """A frame went through as it was."""
        if kind == DONE:
            self.done = frame
        elif kind == WORKING:
            self.worked.set()


class LinkProxy:
    def __init__(self, folder, target):
        self.path = Path(folder) / "proxy.sock"
        self.address = f"unix:{self.path}"
        self.target = target.removeprefix("unix:")
        self.fault = None
        self.refuse = False
        self.strikes = []  # link_strikes.py
        self.trace = []  # of every frame that came: direction, type
        self.connections = []
        self.lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            try:
                connection = Connection(self, client)
            except OSError as error:  # nobody listens behind it
                print(f"proxy: {self.target}: {error}")
                client.close()
                continue
            self.connections.append(connection)
            connection.run()

    def fault_at(self, role, direction, index, kind, index_of_kind):
        with self.lock:
            fault = self.fault
            if fault and fault.type is not None:
                index = index_of_kind if fault.type == kind else None
            if fault and (fault.role, fault.direction, fault.index) == (role, direction, index):
                self.fault = None
                return fault
            return None

    def lay(self, *strikes):
        with self.lock:
            self.strikes += strikes

    def lift(self):
        """What is laid and has not struck does not strike any more."""
        with self.lock:
            self.strikes.clear()
            for connection in self.connections:
                connection.pending.clear()

    def strike_at(self, direction, kind, frame):
        with self.lock:
            self.trace.append((direction, kind))
            for strike in self.strikes:
                if strike.is_for(direction, kind, frame):
                    self.strikes.remove(strike)
                    return strike
            return None

    def cut_all(self):
        for connection in self.connections:
            connection.cut()
        self.connections.clear()

    def bytes_of(self, role):
        """How much went over all connections of that role."""
        return sum(c.bytes for c in self.connections if c.role == role)

    def frames_of(self, role):
        """How many frames went each way on the youngest connection of that role."""
        return next(c.frames for c in reversed(self.connections) if c.role == role)

    def close(self):
        """Nothing of it goes on: the number of its socket is soon another's."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self.cut_all()
