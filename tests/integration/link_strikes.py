# SPDX-License-Identifier: Apache-2.0
"""What may happen to one frame on its way through the proxy (link_proxy.py): the connection is cut
near its end or stalls, a bit of it is flipped, it is held back, or answered by a liar."""

import struct
import threading

from harness import eventually
from link_proxy import BEGIN_SESSION, CONFIRM, FAILED, HEADER

_MAGIC = b"CKPW"


class Strike:
    """Strikes one frame, on whatever connection it comes: of those in that direction ("up": to backupd)
    and of that type that come from when it was laid, number `nth` from 0."""

    def __init__(self, direction, kind, nth=0):
        self.direction, self.kind, self.left = direction, kind, nth
        self.connection = None
        self.happened = threading.Event()

    def is_for(self, direction, kind, _frame):
        """Counts the frame."""
        if (direction, kind) != (self.direction, self.kind):
            return False
        self.left -= 1
        return self.left < 0

    def meet(self, connection, frame, sink):
        """Passes the frame on, or what is left of it; False: nothing else will be, that way. If it does
        not arrive, the next of its kind is struck. It has happened before anybody can notice it."""
        self.connection = connection
        try:
            return self.act(connection, frame, sink)
        except OSError:
            self.miss()
            raise

    def miss(self):
        """Its connection was closed before all of the frame had arrived."""
        self.lay_again()

    def lay_again(self):
        self.happened.clear()
        self.left = 0
        self.connection.proxy.lay(self)

    def __str__(self):
        return f"{type(self).__name__} {self.direction} at type {self.kind}"


class Cut(Strike):
    """The connection is cut: `beyond` -1, before the last byte of the frame; 0, after it; 1, after one
    byte of the next frame, or of one that its sender, who has closed the connection, did not live to
    send."""

    def __init__(self, direction, kind, beyond, nth=0):
        super().__init__(direction, kind, nth)
        self.beyond = beyond

    def act(self, connection, frame, sink):
        connection.send(self.direction, frame[:-1] if self.beyond < 0 else frame, sink)
        if self.beyond > 0:
            connection.note(self.kind, frame)
            connection.pending[self.direction] = self
            return True
        return self.sever(connection)

    def sever(self, connection):
        self.happened.set()
        connection.cut()
        return False

    def at_the_next(self, connection, frame, sink):
        try:
            connection.send(self.direction, frame[:1], sink)
        except OSError:
            self.lay_again()
            raise
        return self.sever(connection)

    def at_the_end(self, connection, sink):
        try:
            connection.send(self.direction, _MAGIC[:1], sink)
        except OSError:
            self.lay_again()
        else:
            self.sever(connection)

    def __str__(self):
        return f"{super().__str__()}, {self.beyond:+d} byte"


class Flip(Strike):
    """One bit is flipped: of the header, of the body, or of the payload of a batch, which is what comes
    after the header of its own. Frames that have no such part are left alone."""

    first = {"header": 0, "body": HEADER, "payload": HEADER + 128}

    def __init__(self, direction, kind, draw, part, nth=0):
        super().__init__(direction, kind, nth)
        self.draw, self.part = draw, part
        self.bit = None
        self.before = None  # frames of each type on that connection
        self.asked_before = 0
        self.was_over = False

    def is_for(self, direction, kind, frame):
        return len(frame) > self.first[self.part] and super().is_for(direction, kind, frame)

    def act(self, connection, frame, sink):
        self.was_over = connection.is_cut
        self.before = connection.types.copy()
        self.asked_before = connection.frames["up"]
        end = HEADER if self.part == "header" else len(frame)
        self.bit = self.draw.randrange(self.first[self.part] * 8, end * 8)
        flipped = bytearray(frame)
        flipped[self.bit // 8] ^= 1 << self.bit % 8
        self.happened.set()
        connection.send(self.direction, flipped, sink)
        return True

    def _since(self, kind):
        return self.connection.types[kind] - self.before[kind]

    def miss(self):
        """Who closed the connection has seen enough of it, unless nobody was there any more."""
        if self.was_over:
            self.lay_again()

    @property
    def was_refused(self):
        """Its connection has ended, or a session begins anew on it."""
        return self.connection.ended.is_set() or self._since(BEGIN_SESSION) > 0

    @property
    def asked_since(self):
        return self.connection.frames["up"] - self.asked_before

    @property
    def was_told(self):
        """backupd said "failed" on its connection."""
        return self._since(FAILED) > 0

    def __str__(self):
        return f"{super().__str__()}, bit {self.bit} ({self.part})"


class Stall(Strike):
    """All but the last byte of it goes through, and then nothing any more, in either direction."""

    def act(self, connection, frame, sink):
        self.happened.set()
        connection.stalled = True
        connection.send(self.direction, frame[:-1], sink)
        return True


class HalfOpen(Strike):
    """All but the last byte of it goes through, and then nothing any more in its direction; not even that
    its sender has closed the connection."""

    def act(self, connection, frame, sink):
        self.happened.set()
        connection.send(self.direction, frame[:-1], sink)
        return False


class Hold(Strike):
    """Its body is held back until backupd has said "working"."""

    def act(self, connection, frame, sink):
        self.happened.set()
        connection.send(self.direction, frame[:HEADER], sink)
        connection.worked.clear()
        if not connection.is_cut:
            connection.worked.wait(60)
        connection.send(self.direction, frame[HEADER:], sink)
        return True


class Swallow(Strike):
    """For tests of the tests: a confirm that does not arrive, and is answered as if it had."""

    def __init__(self):
        super().__init__("up", CONFIRM)

    def act(self, connection, frame, _sink):
        before = struct.unpack_from("<Q", frame, 8)[0] - 1
        eventually(lambda: struct.unpack_from("<Q", connection.done, 8)[0] == before,
                   "what was asked before is answered")
        lie = bytearray(connection.done)
        lie[8:16] = frame[8:16]
        lie[60:64] = struct.pack("<I", crc32c(lie[:60]))
        self.happened.set()
        connection.client.sendall(lie)
        connection.cut()
        return False


def crc32c(data):
    """Castagnoli's, as iSCSI has it (RFC 3720, B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
