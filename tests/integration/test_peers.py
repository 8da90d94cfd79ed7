#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who connects to a Unix socket: root and the server's own user are let in, everybody else is turned
away, and told why, even where the modes of files and folders would let them. Needs root."""

import json
import os
import shutil
import subprocess
import unittest

from harness import MIB, OK, Case, build, eventually, tool

OWNER, STRANGER = 65533, 65534
UNREACHABLE = 10
# Says what it is told to, and prints what comes back until the other side has closed.
TALK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as peer:
    peer.settimeout(20)
    peer.connect(sys.argv[1])
    try:
        peer.sendall(sys.argv[2].encode())
    except BrokenPipeError:
        pass  # turned away already; what was said is there
    try:
        while part := peer.recv(4096):
            sys.stdout.write(part.decode())
    except ConnectionResetError:
        pass  # it was not heard
"""


def as_user(user):
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


class Peers(Case):
    def setUp(self):
        super().setUp()
        self.folder.chmod(0o755)
        self.program = shutil.copy(build() / "tools" / "ckpt-tool", self.folder)

    def ask(self, user, *words):
        """ckpt-tool, as that user; its exit code and what it says."""
        done = subprocess.run([*as_user(user), self.program, "--json", *map(str, words)],
                              capture_output=True, text=True, timeout=60, cwd="/")
        return done.returncode, done.stdout + done.stderr

    @staticmethod
    def talk(user, path, text):
        done = subprocess.run([*as_user(user), "/usr/bin/python3", "-c", TALK, str(path), text],
                              capture_output=True, text=True, timeout=60, cwd="/")
        return done.stdout + done.stderr

    def open_up(self, *paths):
        """As somebody does who wants it to work for everybody."""
        for path in paths:
            os.chmod(path, 0o777)

    def test_backupd_of_root(self):
        backupd = self.keep()
        path = backupd.address.removeprefix("unix:")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        os.chmod(os.path.dirname(path), 0o755)
        code, said = self.ask(STRANGER, "list", backupd.address)
        self.assertEqual(code, UNREACHABLE)
        self.assertIn(f"{backupd.address}: connect: Permission denied", said)
        self.open_up(path)
        code, said = self.ask(STRANGER, "list", backupd.address)
        self.assertEqual(code, UNREACHABLE, said)
        self.assertIn("only root and the user that backupd runs as are let in", said)
        eventually(lambda: f"of user {STRANGER}: only root and this server's own user may connect"
                   in backupd.said(), "the log says who it was")
        self.assertEqual(tool("list", backupd.address)["volumes"], [])

    def test_backupd_of_another_user(self):
        shelf = self.folder / "owned"
        shelf.mkdir()
        os.chown(shelf, OWNER, OWNER)
        backupd = self.keep(store=shelf, start=False, under=as_user(OWNER))
        folder = os.path.dirname(backupd.address.removeprefix("unix:"))
        os.chown(folder, OWNER, OWNER)
        backupd.start()
        path = backupd.address.removeprefix("unix:")
        for user in (0, OWNER):
            code, said = self.ask(user, "list", backupd.address)
            self.assertEqual(code, OK, said)
        self.open_up(folder, path)
        code, said = self.ask(STRANGER, "list", backupd.address)
        self.assertNotEqual(code, OK)
        self.assertIn(f"is served by user {OWNER}, not by you or root", said)
        self.talk(STRANGER, path, "x" * 64)  # who does not look whom it talks to
        eventually(lambda: f"of user {STRANGER}: only root and this server's own user may connect"
                   in backupd.said(), "the log says who it was")
        server = self.serve(self.image(size=4 * MIB), f"backup={backupd.address}")
        tool("checkpoint", server.image)

    def test_the_control_socket(self):
        server = self.serve(self.image(size=4 * MIB))
        tool("checkpoint", server.image)
        path = server.state / "control.sock"
        request = json.dumps({"schema": 1, "command": "status"}) + "\n"
        self.assertIn("Permission denied", self.talk(STRANGER, path, request))
        self.open_up(server.state, path, server.image)
        answer = json.loads(self.talk(STRANGER, path, request))
        self.assertEqual(answer["type"], "error")
        self.assertIn("only root and the server's own user may ask", answer["message"])
        for command in (["status"], ["checkpoint"], ["rollback", "--yes"]):
            code, said = self.ask(STRANGER, command[0], server.image, *command[1:])
            self.assertNotEqual(code, OK, command)
            self.assertIn("only root and the server's own user may ask", said, command)
        self.assertEqual(len(tool("list", server.image)["checkpoints"]), 1)


if __name__ == "__main__":
    unittest.main()
