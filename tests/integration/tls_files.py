# SPDX-License-Identifier: Apache-2.0
"""Certificates and keys, made by certtool(1) and psktool(1) as a user would."""

import os
import tempfile
from pathlib import Path

from harness import free_port, run


class Authority:
    """A certificate authority, and folders of what it has signed, in nbdkit's names
    (nbdkit-tls(1))."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self._key("ca-key.pem")
        self._write("ca.info", "cn = a test's authority\nca\ncert_signing_key\n")
        self._certtool("--generate-self-signed", "--load-privkey", "ca-key.pem", "--template",
                       "ca.info", "--outfile", "ca-cert.pem")

    def server(self, name, *hosts):
        """A folder for backupd, whose certificate is for these hosts."""
        names = "".join(f"{'ip_address' if host[0].isdigit() or ':' in host else 'dns_name'} = "
                        f"{host}\n" for host in hosts)
        return self._issue(name, "server", f"cn = {hosts[0]}\n{names}tls_www_server\n")

    def client(self, name, is_expired=False):
        """A folder for a primary or a tool; the name is whom it proves to be."""
        return self._issue(name, "client", f"cn = {name}\ntls_www_client\n", is_expired)

    def revoke(self, folder, *clients):
        """Puts a list of revoked certificates into a server's folder."""
        self._write("crl.info", "crl_next_update = 2\ncrl_number = 1\n")
        revoked = self.folder / "revoked.pem"
        revoked.write_text("".join((client / "client-cert.pem").read_text() for client in clients))
        self._certtool("--generate-crl", "--load-ca-privkey", "ca-key.pem", "--load-ca-certificate",
                       "ca-cert.pem", "--load-certificate", revoked, "--template", "crl.info",
                       "--outfile", folder / "ca-crl.pem")

    def _issue(self, name, role, template, is_expired=False):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        dates = ('activation_date = "2020-01-01 00:00:00"\nexpiration_date = "2020-02-01 00:00:00"'
                 if is_expired else "expiration_days = 2")
        self._write("issue.info", f"{template}signing_key\n{dates}\n")
        self._key(folder / f"{role}-key.pem")
        self._certtool("--generate-certificate", "--load-privkey", folder / f"{role}-key.pem",
                       "--template", "issue.info", "--load-ca-certificate", "ca-cert.pem",
                       "--load-ca-privkey", "ca-key.pem", "--outfile", folder / f"{role}-cert.pem")
        (folder / "ca-cert.pem").write_bytes((self.folder / "ca-cert.pem").read_bytes())
        return folder

    def _key(self, name):
        self._certtool("--generate-privkey", "--key-type", "ecdsa", "--outfile", name)
        os.chmod(self.folder / name, 0o600)

    def _write(self, name, text):
        (self.folder / name).write_text(text)

    def _certtool(self, *words):
        run("certtool", *words, cwd=self.folder)


def make_keys(path, *users):
    """A server's file of keys, and one for each user: {user: file}."""
    files = {}
    for user in users:
        run("psktool", "-u", user, "-p", path)
        line = next(line for line in path.read_text().splitlines() if line.startswith(f"{user}:"))
        files[user] = path.with_name(f"{user}.psk")
        files[user].write_text(line + "\n")
        files[user].chmod(0o600)
    path.chmod(0o600)
    return files


class Secrets:
    """Made once: keys take their time."""

    _folder = None

    @classmethod
    def get(cls):
        if cls._folder is None:
            cls._folder = tempfile.TemporaryDirectory(prefix="ckpt-tls-")
            folder = Path(cls._folder.name)
            cls.ours = Authority(folder / "ours")
            cls.server = cls.ours.server("server", "localhost", "127.0.0.1")
            cls.alice = cls.ours.client("alice")
            cls.bob = cls.ours.client("bob")
            cls.eve = cls.ours.client("eve")
            cls.theirs = Authority(folder / "theirs")
            cls.stranger = cls.theirs.client("alice")
            cls.keys = folder / "keys.psk"
            cls.psk = make_keys(cls.keys, "carol", "dave")
            (folder / "foreign").mkdir()
            cls.foreign_keys = make_keys(folder / "foreign" / "keys.psk", "carol")
        return cls


def keep_with_keys(case, *options, **more):
    """Gives a Case a backupd at TCP and TLS, and its servers carol's key."""
    secrets = Secrets.get()
    case.backupd = case.keep(*options, f"--tls-psk={secrets.keys}",
                             listen=f"127.0.0.1:{free_port()}", **more)
    case.extra = (f"tls-psk={secrets.psk['carol']}",)
