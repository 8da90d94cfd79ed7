#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A write of an old connection that was under way for so long that its client has come again over a
new one, and has written what is newer: it must not land over that. Nor may it land on a disk that was
rolled back meanwhile."""

import errno
import socket
import struct
import tempfile
import threading
import unittest
from pathlib import Path

from harness import MIB, Case, eventually, tool
from nbd_client import TRIM, WRITE, ZERO, NbdClient, NbdError

REQUEST_MAGIC = 0x25609513
REQUEST = struct.Struct(">IHHQQI")
PLACE, LENGTH = 5 * 4096 + 512, 32768
OLD, NEW = b"o" * LENGTH, b"n" * LENGTH


class HoldingProxy:
    """Between NBD clients and nbdkit's socket. The request of that type that comes next is held: nothing
    of it goes on but its first `part` bytes, nor what its connection sends after it, until let_go()."""

    def __init__(self, target):
        self.folder = tempfile.TemporaryDirectory(prefix="ckh")  # a socket's path is short
        self.path = str(Path(self.folder.name) / "nbd.sock")
        self.target = str(target)
        self.command, self.part = None, 0
        self.held = threading.Event()
        self.free = threading.Event()
        self.over = threading.Event()  # all that was held is there, or its connection is not
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def hold(self, command, part):
        self.command, self.part = command, part

    def begin_anew(self):
        for event in (self.held, self.free, self.over):
            event.clear()

    def let_go(self):
        self.free.set()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.target)
            for pump, ends in ((self.requests, (client, server)), (self.bytes, (server, client))):
                threading.Thread(target=self.run, args=(pump, *ends), daemon=True).start()

    @staticmethod
    def run(pump, source, sink):
        try:
            pump(source, sink)
        except OSError:
            pass
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    @staticmethod
    def bytes(source, sink):
        while data := source.recv(65536):
            sink.sendall(data)

    def requests(self, source, sink):
        """Passes what a client sends on. A request begins a message of its own, since our client sends
        each at once and waits."""
        while data := source.recv(1 << 20):
            if self.is_meant(data):
                self.hold_back(data, source, sink)
            else:
                sink.sendall(data)

    def is_meant(self, data):
        if self.command is None or len(data) < REQUEST.size:
            return False
        magic, _, command, *_ = REQUEST.unpack_from(data)
        return (magic, command) == (REQUEST_MAGIC, self.command)

    def hold_back(self, data, source, sink):
        command, self.command = self.command, None
        length = REQUEST.size + (LENGTH if command == WRITE else 0)
        while len(data) < length:
            part = source.recv(length - len(data))
            if not part:
                raise OSError("closed")
            data += part
        sink.sendall(data[:self.part])
        self.held.set()
        try:
            self.free.wait()
            sink.sendall(data[self.part:])
        finally:
            self.over.set()

    def close(self):
        self.free.set()
        self.listener.shutdown(socket.SHUT_RDWR)  # ends accept(), which close() alone does not
        self.listener.close()
        self.folder.cleanup()


class HeldWrites(Case):
    parameters = ()

    def setUp(self):
        super().setUp()
        self.server = self.serve(self.image(size=4 * MIB), *self.parameters)
        self.proxy = HoldingProxy(self.server.socket)
        self.addCleanup(self.proxy.close)
        self.addCleanup(self.stop_clients)
        self.clients = []

    def stop_clients(self):
        self.proxy.let_go()
        for client in self.clients:
            client.close()

    def connect(self, path=None):
        client = NbdClient(path or self.proxy.path)
        self.clients.append(client)
        return client

    def held(self, command, part):
        """A connection that writes, and whose next request is held back after so many bytes."""
        old = self.connect()
        old.write(PLACE, b"before" * 100)
        self.proxy.hold(command, part)
        cookie = old.send(command, offset=PLACE, length=LENGTH,
                          data=OLD if command == WRITE else b"")
        self.assertTrue(self.proxy.held.wait(60))
        return old, cookie

    def outcome(self, old, cookie):
        """What the old connection is told when its request has come: an errno, or 0."""
        self.proxy.let_go()
        try:
            old.receive(cookie)
        except NbdError as refused:
            return refused.errno
        return 0

    def on_disk(self):
        with open(self.server.image, "rb") as image:
            image.seek(PLACE)
            return image.read(LENGTH)

    def variants(self):
        """What is held, and how much of it has arrived: nothing, half of the header, the header, half of
        the data."""
        for command in (WRITE, ZERO, TRIM):
            for part in (0, 14, *((REQUEST.size, REQUEST.size + LENGTH // 2)
                                  if command == WRITE else ())):
                yield command, part

    def each(self, check):
        for command, part in self.variants():
            with self.subTest(command=command, part=part):
                self.proxy.begin_anew()
                check(command, part)
                for client in self.clients:
                    client.close()
                self.clients.clear()
                eventually(lambda: self.status(self.server)["connections"] == 0, "all are gone")


class Fenced(HeldWrites):
    """takeover=fence, which is the default."""

    def test_a_held_request_does_not_land_over_newer_data(self):
        def check(command, part):
            old, cookie = self.held(command, part)
            new = self.connect()
            new.write(PLACE, NEW)
            self.assertEqual(self.outcome(old, cookie), errno.ESHUTDOWN)
            self.assertEqual(new.read(PLACE, LENGTH), NEW)
            self.assertEqual(self.on_disk(), NEW)
        self.each(check)

    def test_nor_after_its_client_has_gone(self):
        """What nobody waits for any more is let go when the connection that it came on has ended."""
        def check(command, part):
            old, _ = self.held(command, part)
            old._socket.close()
            new = self.connect()
            new.write(PLACE, NEW)
            self.proxy.let_go()
            self.assertTrue(self.proxy.over.wait(60))
            eventually(lambda: self.status(self.server)["connections"] == 1, "it is gone")
            self.assertEqual(new.read(PLACE, LENGTH), NEW)
            self.assertEqual(self.on_disk(), NEW)
        self.each(check)

    def test_newer_zeroes_stay_zeroes(self):
        for newer in (ZERO, TRIM):
            with self.subTest(newer=newer):
                self.proxy.begin_anew()
                old, cookie = self.held(WRITE, REQUEST.size + LENGTH // 2)
                new = self.connect()
                new.call(newer, offset=PLACE, length=LENGTH)
                self.assertEqual(self.outcome(old, cookie), errno.ESHUTDOWN)
                self.assertEqual(new.read(PLACE, LENGTH), bytes(LENGTH))
                self.assertEqual(self.on_disk(), bytes(LENGTH))

    def test_who_only_reads_fences_nobody(self):
        """The tests can fail: a request that is held and not fenced lands."""
        old, cookie = self.held(WRITE, REQUEST.size)
        self.connect().read(PLACE, LENGTH)
        self.assertEqual(self.outcome(old, cookie), 0)
        self.assertEqual(self.on_disk(), OLD)


class Refused(HeldWrites):
    parameters = ("takeover=refuse",)

    def test_the_new_writer_is_refused_and_the_held_request_lands(self):
        def check(command, part):
            old, cookie = self.held(command, part)
            new = self.connect()
            for write in (lambda: new.write(PLACE, NEW), lambda: new.zero(PLACE, LENGTH),
                          lambda: new.trim(PLACE, LENGTH)):
                with self.assertRaises(NbdError) as refused:
                    write()
                self.assertNotEqual(refused.exception.errno, errno.ESHUTDOWN)
            self.assertEqual(self.on_disk()[:600], b"before" * 100)
            self.assertEqual(self.outcome(old, cookie), 0)
            self.assertEqual(self.on_disk(), OLD if command == WRITE else bytes(LENGTH))
        self.each(check)


class RolledBack(HeldWrites):
    def test_a_held_request_does_not_land_on_a_disk_that_was_rolled_back(self):
        def check(command, part):
            with NbdClient(str(self.server.socket)) as first:
                first.write(PLACE, NEW)
            tool("checkpoint", self.server.image)
            good = self.server.image.read_bytes()
            old, cookie = self.held(command, part)
            tool("rollback", self.server.image, "--yes", "--clients=fence")
            self.assertEqual(self.server.image.read_bytes(), good)
            self.assertEqual(self.outcome(old, cookie), errno.ESHUTDOWN)
            self.assertEqual(self.server.image.read_bytes(), good)
            self.expect_nobody(old)
            tool("accept", self.server.image)
            self.expect_fenced(old)
            new = self.connect()
            self.assertEqual(new.read(PLACE, LENGTH), NEW)
            new.write(PLACE, b"after")
            self.assertEqual(self.on_disk()[:5], b"after")
        self.each(check)

    def expect_nobody(self, old):
        """No client gets in, by either way, and the old one writes nothing."""
        for path in (self.proxy.path, str(self.server.socket)):
            with self.assertRaises(ConnectionError):
                self.connect(path)
        self.expect_fenced(old)

    def expect_fenced(self, old):
        for command, data in ((WRITE, OLD), (ZERO, b""), (TRIM, b"")):
            with self.assertRaises((NbdError, OSError)):
                old.call(command, offset=PLACE, length=LENGTH, data=data)


if __name__ == "__main__":
    unittest.main()
