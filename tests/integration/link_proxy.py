# SPDX-License-Identifier: Apache-2.0
"""A proxy between a primary and backupd that cuts or stalls connections at chosen frames
(docs/wire-protocol.md)."""

import collections
import socket
import struct
import threading
from pathlib import Path

HEADER = 64
SESSION, READER = 1, 2
CONTENT = 136


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
        self.pumps = 2

    def run(self):
        for direction, source, sink in (("up", self.client, self.server),
                                        ("down", self.server, self.client)):
            threading.Thread(target=self.pump, args=(direction, source, sink), daemon=True).start()

    def cut(self):
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
        except OSError:
            self.cut()
        finally:
            self.end_pump()

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
        if self.stalled:
            return True
        sink.sendall(fault.bytes_of(frame) if fault else frame)
        if fault:
            self.stalled = fault.stall
            if fault.refuse:
                self.proxy.refuse = True
                self.proxy.cut_all()
            elif not fault.stall:
                self.cut()
            fault.happened.set()
        return not fault or fault.stall


class LinkProxy:
    def __init__(self, folder, target):
        self.path = Path(folder) / "proxy.sock"
        self.address = f"unix:{self.path}"
        self.target = target.removeprefix("unix:")
        self.fault = None
        self.refuse = False
        self.connections = []
        self.lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

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
            except OSError:  # nobody listens behind it
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
        self._listener.close()
        self.cut_all()
