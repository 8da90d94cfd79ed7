# SPDX-License-Identifier: Apache-2.0
"""A minimal NBD client (fixed newstyle, simple replies) that shows the server's own error codes and
lets a test hold several requests in flight. Source of the numbers: NBD proto.md."""

import socket
import struct

READ, WRITE, DISCONNECT, FLUSH, TRIM, ZERO = 0, 1, 2, 3, 4, 6
FUA, NO_HOLE = 1, 2

_OPTION_MAGIC = 0x49484156454F5054
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST_MAGIC = 0x25609513
_REPLY_MAGIC = 0x67446698
_OPT_GO, _REP_ACK, _REP_INFO, _INFO_EXPORT = 7, 1, 3, 0
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2


class NbdError(OSError):
    """The server answered a request with this errno."""


class NbdClient:
    def __init__(self, path, timeout=60):
        self.size = 0
        self.flags = 0
        self._cookie = 0
        self._pending = {}
        self._answers = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
            self._handshake()
        except OSError:
            self._socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self._socket.sendall(struct.pack(">IHHQQI", _REQUEST_MAGIC, 0, DISCONNECT, 0, 0, 0))
        except OSError:
            pass
        self._socket.close()

    def send(self, command, offset=0, length=0, data=b"", flags=0):
        """Sends a request; its answer is collected with receive(cookie)."""
        self._cookie += 1
        length = len(data) or length
        self._pending[self._cookie] = length if command == READ else 0
        header = struct.pack(">IHHQQI", _REQUEST_MAGIC, flags, command, self._cookie, offset,
                             length)
        self._socket.sendall(header + data)
        return self._cookie

    def receive(self, cookie):
        """The data of the answer to that request; NbdError when it is an error."""
        while cookie not in self._answers:
            self._receive_one()
        error, data = self._answers.pop(cookie)
        if error:
            raise NbdError(error, f"NBD request {cookie}")
        return data

    def call(self, command, **arguments):
        return self.receive(self.send(command, **arguments))

    def read(self, offset, length):
        return self.call(READ, offset=offset, length=length)

    def write(self, offset, data, flags=0):
        return self.call(WRITE, offset=offset, data=data, flags=flags)

    def zero(self, offset, length, flags=0):
        return self.call(ZERO, offset=offset, length=length, flags=flags)

    def trim(self, offset, length, flags=0):
        return self.call(TRIM, offset=offset, length=length, flags=flags)

    def flush(self):
        return self.call(FLUSH)

    def _receive_one(self):
        magic, error, cookie = struct.unpack(">IIQ", self._exactly(16))
        if magic != _REPLY_MAGIC:
            raise ConnectionError(f"bad reply magic {magic:#x}")
        length = self._pending.pop(cookie)
        self._answers[cookie] = (error, b"" if error else self._exactly(length))

    def _exactly(self, length):
        parts = bytearray()
        while len(parts) < length:
            part = self._socket.recv(length - len(parts))
            if not part:
                raise ConnectionError("the server closed the connection")
            parts += part
        return bytes(parts)

    def _handshake(self):
        if self._exactly(8) != b"NBDMAGIC":
            raise ConnectionError("not an NBD server")
        magic, _ = struct.unpack(">QH", self._exactly(10))
        if magic != _OPTION_MAGIC:
            raise ConnectionError("not a newstyle server")
        go = struct.pack(">IH", 0, 0)
        self._socket.sendall(struct.pack(">I", _FIXED_NEWSTYLE | _NO_ZEROES)
                             + struct.pack(">QII", _OPTION_MAGIC, _OPT_GO, len(go)) + go)
        kind = _REP_INFO
        while kind != _REP_ACK:
            magic, _, kind, length = struct.unpack(">QIII", self._exactly(20))
            data = self._exactly(length)
            if magic != _OPTION_REPLY_MAGIC or kind & 0x80000000:
                reason = data.decode(errors="replace")
                raise ConnectionError(f"export refused ({kind:#x}): {reason}")
            if kind == _REP_INFO and struct.unpack(">H", data[:2])[0] == _INFO_EXPORT:
                self.size, self.flags = struct.unpack(">QH", data[2:12])
