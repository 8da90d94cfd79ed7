#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A back-up behind TLS: what holds for a plain link holds for it, strangers are turned away, and the
access list says who may do what."""

import re
import signal
import socket
import subprocess
import unittest

import test_rollback
from harness import (FAILED, MIB, OK, UNKNOWN, USAGE, Backupd, Case, eventually, free_port, run,
                     tool)
from nbd_client import NbdClient
from test_remote import StoreDies
from tls_files import Secrets, keep_with_keys

DENIED = 12
UNREACHABLE = 10


class TlsCase(Case):
    """A disk whose back-up takes certificates; alice may connect."""

    def setUp(self):
        super().setUp()
        self.secrets = Secrets.get()
        self.backupd = self.keep_tls()
        self.extra = (f"tls-certificates={self.secrets.alice}",)

    def keep_tls(self, *options, **more):
        return self.keep("--silence=3", f"--tls-certificates={self.secrets.server}", *options,
                         listen=f"localhost:{free_port()}", **more)

    def name_of(self, server):
        return f"{self.backupd.address}/{self.status(server)['volume']}"

    def written(self, server):
        with NbdClient(str(server.socket)) as client:
            client.write(4096, b"x" * 100000)
        return server


class RollbackWithCertificates(test_rollback.RollbackExact):
    """Whole-disk comparisons with the model."""

    def setUp(self):
        super().setUp()
        secrets = Secrets.get()
        self.backupd = self.keep(f"--tls-certificates={secrets.server}",
                                 listen=f"localhost:{free_port()}")
        self.extra = (f"tls-certificates={secrets.alice}",)


class RollbackWithKeys(test_rollback.RollbackExact):
    def setUp(self):
        super().setUp()
        keep_with_keys(self)


def keep_at_same_port(case, *options, **more):
    """The life of a store at one address with keys, for the tests that are inherited."""
    secrets = Secrets.get()
    return Case.keep(case, *options, f"--tls-psk={secrets.keys}",
                     **{"listen": f"127.0.0.1:{free_port()}", **more})


class StoreDiesWithKeys(StoreDies):
    """Killed, stopped, hung and full, with keys."""

    extra = ()
    keep = keep_at_same_port

    def setUp(self):
        super().setUp()
        self.extra = (f"tls-psk={Secrets.get().psk['carol']}",)


class Link(TlsCase):
    def test_the_volume_remembers_how(self):
        """The tool and a later start need not be told; what is said anew is what holds."""
        server = self.written(self.serve(self.image(size=8 * MIB)))
        made = tool("checkpoint", server.image)
        self.assertIn("(alice), volume", self.backupd.said())
        server.stop()
        self.assertEqual(tool("list", server.image)["checkpoints"][-1]["checkpoint"],
                         made["checkpoint"])
        with open(server.image, "r+b") as image:
            image.write(b"y" * 4096)
        tool("rollback", server.image, "--yes")
        self.assertEqual(server.image.read_bytes()[:4096], bytes(4096))
        server.parameters = ()
        server.start()
        tool("checkpoint", server.image)
        server.stop()
        server.parameters = (f"tls-certificates={self.secrets.bob}",)
        server.start()
        tool("checkpoint", server.image)
        self.assertIn("(bob), volume", self.backupd.said())

    def test_the_tool_asks_the_store(self):
        server = self.written(self.serve(self.image(size=8 * MIB)))
        tool("checkpoint", server.image, "--name", "one")
        name = self.name_of(server)
        proof = ("--tls-certificates", self.secrets.bob)
        self.assertEqual(tool("list", name, *proof)["checkpoints"][0]["name"], "one")
        self.assertEqual(tool("status", name, *proof)["backup"]["state"], "connected")
        tool("export", name, "one", self.folder / "copy.img", *proof)
        self.assertEqual((self.folder / "copy.img").read_bytes(), server.image.read_bytes())
        answer = tool("list", name, expect=UNREACHABLE)
        self.assertIn("tls-certificates", answer.message)
        stranger = tool("list", name, "--tls-certificates", self.secrets.stranger, expect=DENIED)
        self.assertIn("TLS", stranger.message)
        self.assertIn("/nowhere/ca-cert.pem",
                      tool("list", name, "--tls-certificates=/nowhere", expect=DENIED).message)
        for wrong in (("--tls=require",), ("--tls=off", *proof), (*proof, "--tls-psk=/x"),
                      ("--tls-verify-peer=off",)):
            tool("list", name, *wrong, expect=USAGE)

    def test_a_server_of_another_name_is_not_believed(self):
        other = self.secrets.ours.server("elsewhere", "elsewhere.test")
        self.backupd.stop()
        self.backupd = self.keep(f"--tls-certificates={other}", listen=self.backupd.address)
        server = self.written(self.serve(self.image(size=4 * MIB)))
        problem = eventually(lambda: self.status(server)["problem"], "it says so")
        self.assertIn("name in the certificate does not match", problem)
        self.assertEqual(self.status(server)["backup"]["state"], "failed")
        self.assertIn("does not match", tool("checkpoint", server.image, expect=DENIED).message)
        server.stop()
        server.parameters = (*self.extra, "tls-verify-peer=off")
        server.start()
        tool("checkpoint", server.image)

    def test_who_is_not_believed_still_serves(self):
        """Clients do not notice; and once the proof is right, so is the back-up."""
        image = self.image(size=8 * MIB)
        folder = self.folder / "proof"
        run("cp", "-a", self.secrets.stranger, folder)
        (folder / "ca-cert.pem").write_bytes((self.secrets.alice / "ca-cert.pem").read_bytes())
        self.extra = (f"tls-certificates={folder}",)
        server = self.written(self.serve(image))
        answer = tool("checkpoint", image, expect=DENIED)
        self.assertRegex(answer.message, "it refuses this side|closed the connection")
        self.written(server)
        for name in ("client-cert.pem", "client-key.pem"):
            (folder / name).write_bytes((self.secrets.alice / name).read_bytes())
        eventually(lambda: tool("checkpoint", image, expect=None).code == OK, "a checkpoint")
        self.assertEqual(tool("verify", image)["mismatched_bytes"], 0)

    def test_expired_and_revoked_certificates(self):
        ours = self.secrets.ours
        expired = ours.client("expired", is_expired=True)
        server = self.serve(self.image(size=4 * MIB), start=False)
        name = f"{self.backupd.address}/2063e5af-f7c0-4935-8d96-6b9e95fde9cc"

        def code_of(folder):
            return tool("list", name, "--tls-certificates", folder, expect=None).code
        self.assertEqual(code_of(self.secrets.bob), 4)  # believed; there is no such volume
        self.assertEqual(code_of(expired), DENIED)
        revoking = self.folder / "server"
        run("cp", "-a", self.secrets.server, revoking)
        ours.revoke(revoking, self.secrets.bob)
        self.backupd.stop()
        self.backupd = self.keep("--silence=3", f"--tls-certificates={revoking}",
                                 listen=self.backupd.address)
        self.assertEqual(code_of(self.secrets.bob), DENIED)
        self.assertEqual(code_of(self.secrets.alice), 4)
        server.start()
        tool("checkpoint", server.image)

    def test_what_does_not_fit_is_refused_at_the_start(self):
        proof = self.extra[0]
        for words, said in (
                (("tls=require",), "needs tls-certificates"),
                ((proof, "tls=off"), "leave out"),
                ((proof, "tls-psk=/k"), "one of them"),
                (("tls-certificates=/nowhere",), "/nowhere/ca-cert.pem"),
                (("tls-psk=/nowhere",), "/nowhere"),
                (("tls=maybe",), "off or require"),
                ((proof, "backup=embedded"), "backup=HOST:PORT"),
                ((proof, f"backup=unix:{self.folder}/s"), "needs no TLS"),
                ((proof, "backup=none"), "backup=HOST:PORT")):
            with self.subTest(words=words):
                self.extra = ()
                server = self.serve(self.image(f"{said[:4]}.img".replace("/", "_")), *words,
                                    start=False)
                self.assertIn(said, server.refusal())


class Strangers(TlsCase):
    """Who does not speak TLS 1.3, or cannot prove anything, gets nothing."""

    def stranger(self, *words, given=b""):
        host, port = self.backupd.address.rsplit(":", 1)
        words = [word.replace("HOST", host).replace("PORT", port) for word in map(str, words)]
        done = subprocess.run(words, input=given, capture_output=True, timeout=60)
        return done.stdout + done.stderr

    def still_serves(self):
        server = self.written(self.serve(self.image(size=4 * MIB)))
        tool("checkpoint", server.image)

    def test_without_tls(self):
        host, port = self.backupd.address.rsplit(":", 1)
        for junk in (b"", b"CKPW" + bytes(60), b"GET / HTTP/1.1\r\n\r\n", bytes(1 << 16),
                     b"\x16\x03\x01\x02\x00\x01"):
            with socket.create_connection((host, int(port)), timeout=20) as stranger:
                try:
                    stranger.sendall(junk)
                    answer = b"".join(iter(lambda: stranger.recv(4096), b""))
                except ConnectionError:
                    answer = b""
            self.assertNotIn(b"CKPW", answer)
        eventually(lambda: "does not speak TLS" in self.backupd.said(), "it says so")
        self.still_serves()

    def test_without_a_certificate(self):
        said = self.stranger("gnutls-cli", "--insecure", "-p", "PORT", "HOST",
                             given=b"CKPW" + bytes(60))
        self.assertRegex(said, rb"(?i)certificate is required|fatal alert|closed|error")
        said = self.stranger("openssl", "s_client", "-connect", "HOST:PORT",
                             given=b"CKPW" + bytes(60))
        self.assertNotIn(b"CKPW", said.split(b"---")[-1])
        eventually(lambda: re.search("(?i)certificate (is|was) required|no certificate",
                                     self.backupd.said()), "it says so")
        self.still_serves()

    def test_with_an_older_tls(self):
        proof = ("-cert", self.secrets.alice / "client-cert.pem", "-key",
                 self.secrets.alice / "client-key.pem")
        old = self.stranger("openssl", "s_client", "-tls1_2", *proof, "-connect", "HOST:PORT")
        self.assertIn(b"Cipher is (NONE)", old)
        new = self.stranger("openssl", "s_client", "-tls1_3", *proof, "-connect", "HOST:PORT",
                            "-CAfile", self.secrets.alice / "ca-cert.pem")
        self.assertIn(b"Verify return code: 0", new)
        self.still_serves()

    def test_with_a_key_of_somebody_else(self):
        self.backupd.stop()
        self.backupd = self.keep("--silence=3", f"--tls-psk={self.secrets.keys}",
                                 listen=self.backupd.address)
        name = f"{self.backupd.address}/2063e5af-f7c0-4935-8d96-6b9e95fde9cc"
        self.assertEqual(tool("list", name, "--tls-psk", self.secrets.psk["dave"],
                              expect=None).code, 4)
        answer = tool("list", name, "--tls-psk", self.secrets.foreign_keys["carol"], expect=DENIED)
        self.assertIn("the same key", answer.message)
        eventually(lambda: "the same key" in self.backupd.said(), "it says so")
        tool("list", name, "--tls-certificates", self.secrets.alice, expect=DENIED)
        said = self.stranger("gnutls-cli", "--priority",
                             "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK", "--pskusername",
                             "carol", "--pskkey", "00" * 32, "--insecure", "-p", "PORT", "HOST")
        self.assertRegex(said, rb"(?i)fatal|error|closed")
        self.extra = (f"tls-psk={self.secrets.psk['carol']}",)
        self.still_serves()

    def test_silent_ones_do_not_keep_others_waiting(self):
        host, port = self.backupd.address.rsplit(":", 1)
        silent = [socket.create_connection((host, int(port))) for _ in range(50)]
        self.still_serves()
        for one in silent:
            one.settimeout(20)
            self.assertEqual(one.recv(1), b"")
            one.close()


class Access(TlsCase):
    """A configuration file, and what it lets whom do."""

    def setUp(self):
        super().setUp()
        self.backupd.stop()
        self.config = self.folder / "backupd.toml"
        self.address = self.backupd.address
        self.socket = f"{self.backupd._short}/local.sock"

    def configure(self, *rules):
        lines = [f'listen = ["{self.address}", "unix:{self.socket}"]',
                 f'store = "{self.folder}/shelf"', "silence = 3",
                 f'tls-certificates = "{self.secrets.server}"']
        for identity, volume, operations in rules:
            words = ", ".join(f'"{word}"' for word in operations.split())
            lines += ["[[allow]]", f'identity = "{identity}"', f'volume = "{volume}"',
                      f"operations = [{words}]"]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self, *rules):
        self.configure(*rules)
        self.backupd = Configured(self, self.config, self.address)
        self._logged.append(self.backupd)
        self.addCleanup(self.backupd.cleanup)
        return self.backupd.start()

    def reload(self):
        before = self.backupd.said().count("reloaded")
        self.backupd.process.send_signal(signal.SIGHUP)
        eventually(lambda: self.backupd.said().count("reloaded") > before, "it has read it")

    def proof(self, name):
        return "--tls-certificates", getattr(self.secrets, name)

    def test_each_may_do_what_it_may(self):
        self.start(("alice", "*", "write create read status"), ("bob", "*", "status"))
        server = self.written(self.serve(self.image(size=4 * MIB)))
        tool("checkpoint", server.image)
        name = self.name_of(server)
        self.assertEqual(len(tool("list", name, *self.proof("bob"))["checkpoints"]), 1)
        answer = tool("export", name, "last", self.folder / "x", *self.proof("bob"), expect=DENIED)
        self.assertIn('does not allow bob the operation "read"', answer.message)
        tool("export", name, "last", self.folder / "x", *self.proof("alice"))
        address, volume = name.rsplit("/", 1)
        for who, seen in (("alice", [volume]), ("bob", [volume])):
            listed = tool("list", address, *self.proof(who))["volumes"]
            self.assertEqual([one["volume"] for one in listed], seen)
        answer = tool("list", address, *self.proof("eve"), expect=DENIED)
        self.assertIn("lets eve look at no volume", answer.message)
        # Root at a Unix socket may do all.
        local = f"unix:{self.socket}/{self.status(server)['volume']}"
        tool("export", local, "last", self.folder / "y")
        self.assertIn('operation "read"', self.backupd.said())

    def test_who_may_not_create_is_told(self):
        self.start(("alice", "*", "write read status"))
        server = self.written(self.serve(self.image(size=4 * MIB)))
        answer = tool("checkpoint", server.image, expect=DENIED)
        self.assertIn('"create"', answer.message)
        self.assertEqual(self.status(server)["backup"]["state"], "failed")
        self.assertEqual(self.backupd.folders(), [])
        self.configure(("alice", "*", "write read status create"))
        self.reload()
        eventually(lambda: tool("checkpoint", server.image, expect=None).code == OK, "a checkpoint")

    def test_a_right_that_is_taken_away(self):
        self.start(("alice", "*", "write create read status"))
        server = self.written(self.serve(self.image(size=4 * MIB)))
        tool("checkpoint", server.image)
        volume = self.status(server)["volume"]
        self.configure(("alice", "2063e5af-f7c0-4935-8d96-6b9e95fde9cc", "write"),
                       ("bob", volume, "write read status"))
        self.reload()
        tool("list", f"{self.address}/{volume}", *self.proof("alice"), expect=DENIED)
        server.stop()
        server.start()
        self.assertIn("alice", tool("checkpoint", server.image, expect=DENIED).message)
        server.stop()
        server.parameters = (f"tls-certificates={self.secrets.bob}",)
        server.start()
        tool("checkpoint", server.image)

    def test_a_wrong_file_changes_nothing(self):
        self.start(("alice", "*", "write create read status"))
        server = self.written(self.serve(self.image(size=4 * MIB)))
        self.config.write_text("store = 7\n")
        self.reload_fails("store: must be a text")
        self.configure(("alice", "*", "everything"))
        self.reload_fails("an operation is")
        self.config.unlink()
        self.reload_fails(str(self.config))
        tool("checkpoint", server.image)
        tool("list", self.name_of(server), *self.proof("alice"))

    def test_tls_is_not_lost_by_a_reload(self):
        """Beyond this machine it would be a door without a lock."""
        self.address = f"0.0.0.0:{free_port()}"
        self.start()
        self.config.write_text(re.sub("tls-cert.*", "", self.config.read_text()))
        self.reload_fails("not reloaded.*beyond this machine")
        port = self.address.rsplit(":", 1)[1]
        name = f"localhost:{port}/2063e5af-f7c0-4935-8d96-6b9e95fde9cc"
        self.assertEqual(tool("list", name, expect=None).code, UNREACHABLE)
        self.assertEqual(tool("list", name, *self.proof("alice"), expect=None).code, UNKNOWN)

    def test_a_tool_s_own_key_is_not_the_volume_s(self):
        """What it was told once is not what later starts go by."""
        self.start(("alice", "*", "write create read status"), ("bob", "*", "write read status"))
        server = self.written(self.serve(self.image(size=4 * MIB)))
        tool("checkpoint", server.image)
        server.stop()
        tool("rollback", server.image, "--yes", *self.proof("bob"))
        self.assertIn("(bob), volume", self.backupd.said())
        server.start()
        eventually(lambda: self.backupd.said().rfind("(alice)") > self.backupd.said().rfind("(bob)"),
                   "it is alice again")

    def reload_fails(self, why):
        self.backupd.process.send_signal(signal.SIGHUP)
        eventually(lambda: re.search(why, self.backupd.said()), "it says so")

    def test_the_configuration_is_checked(self):
        self.configure(("alice", "*", "read"))
        program = self.backupd.command[0]

        def check():
            return subprocess.run([program, "--check-config", "--config", self.config],
                                  capture_output=True, text=True, timeout=30)
        self.assertEqual(check().returncode, OK)
        self.assertIn("right", check().stdout)
        self.config.write_text(self.config.read_text().replace(str(self.secrets.server), "/no"))
        self.assertEqual(check().returncode, FAILED)
        self.assertIn("/no/ca-cert.pem", check().stderr)
        self.config.write_text("nonsense\n")
        self.assertEqual(check().returncode, USAGE)
        self.assertIn(f"{self.config}:1", check().stderr)
        self.assertEqual(self.backupd.folders(), [])

    def test_new_certificates_without_a_restart(self):
        self.start(("alice", "*", "write create read status"))
        server = self.written(self.serve(self.image(size=4 * MIB)))
        tool("checkpoint", server.image)
        name = self.name_of(server)
        renewed = self.secrets.theirs.server("renewed", "localhost")
        config = self.config.read_text().replace(str(self.secrets.server), str(renewed))
        self.config.write_text(config)
        self.reload()
        tool("list", name, *self.proof("alice"), expect=DENIED)
        tool("list", name, "--tls-certificates", self.secrets.stranger)  # theirs, now ours
        tool("checkpoint", server.image)  # its connection goes on


class Configured(Backupd):
    """One that is told all by its configuration file."""

    def __init__(self, case, config, address):
        super().__init__(case.folder / "shelf", folder=case.folder, listen=address)
        self.config = config

    @property
    def command(self):
        return [super().command[0], "-f", "-P", str(self.pidfile), "--config", str(self.config)]


del StoreDies  # they run where they are written

if __name__ == "__main__":
    unittest.main()
