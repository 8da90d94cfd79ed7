#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""libguestfs and its virt tools on a volume, through QEMU's NBD client: they make a partition and a file system,
fill it as an installer does, look into it, and find it as it was after a rollback.

Needs Debian's guestfs-tools and libguestfs-tools. Their appliance, a small machine of their own, boots the kernel
of tests/guest/prepare.sh, in emulation."""

import contextlib
import hashlib
import os
import subprocess
import tarfile
import unittest
from pathlib import Path

from harness import MIB, Case, run, tool

CACHE = Path(os.environ.get("CKPT_GUEST_CACHE", "/var/cache/ckpt-guest"))
PREPARE = Path(__file__).resolve().parents[1] / "guest/prepare.sh"
MODULES = Path("/lib/modules")
SIZE = 512 * MIB
SOURCE = Path("/usr/share/perl")
ROOT = "/dev/sda1"


def environment():
    """The appliance, too, is kept where the guests' kernel is."""
    kernel = next((CACHE / "kernel/boot").glob("vmlinuz-*"))
    modules = next((CACHE / "kernel/lib/modules").iterdir())
    return {**os.environ, "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
            "LIBGUESTFS_CACHEDIR": str(CACHE), "SUPERMIN_KERNEL": str(kernel), "SUPERMIN_MODULES": str(modules)}


def content(tar):
    """What the files of a tar archive are."""
    with tarfile.open(tar) as archive:
        return {one.name.removeprefix("./"): hashlib.sha256(archive.extractfile(one).read()).hexdigest()
                for one in archive if one.isfile()}


class VirtTools(Case):
    @classmethod
    def setUpClass(cls):
        if not (CACHE / "kernel").exists():
            run(PREPARE)
        # Whoever builds the appliance (supermin) copies this folder's owner and mode, also where the modules
        # are elsewhere. A machine without a kernel of its own has none.
        if not MODULES.exists():
            MODULES.mkdir()
            cls.addClassCleanup(cls.remove_modules)

    @staticmethod
    def remove_modules():
        with contextlib.suppress(OSError):
            MODULES.rmdir()

    def setUp(self):
        super().setUp()
        self.server = self.serve(self.folder / "disk.img", f"size={SIZE}")
        self.uri = f"nbd://?socket={self.server.socket}"

    def virt(self, program, *words, script=None):
        """What a virt tool says of the disk."""
        done = subprocess.run([program, "--format=raw", "-a", self.uri, *words], input=script, text=True,
                              capture_output=True, env=environment(), timeout=600)
        self.assertEqual(done.returncode, 0, f"{program} {words}: {done.stdout}{done.stderr}")
        return done.stdout

    def fish(self, *commands, words=()):
        return self.virt("guestfish", *words, script="\n".join(("run", *commands)) + "\n")

    def install(self):
        """Returns what was put into /usr."""
        archive = self.folder / "files.tar"
        run("tar", "-C", SOURCE, "-cf", archive, ".")
        self.fish("part-disk /dev/sda mbr", f"mkfs ext4 {ROOT} label:root", f"mount {ROOT} /", "mkdir /usr",
                  f"tar-in {archive} /usr")
        return content(archive)

    def found(self):
        """What is in /usr of a file system that is whole."""
        archive = self.folder / "found.tar"
        self.fish(f"e2fsck-f {ROOT}", f"mount-ro {ROOT} /", f"tar-out /usr {archive}")
        return content(archive)

    def look(self):
        """With what says of itself that it does not write."""
        listed = self.virt("virt-filesystems", "--long", "--partitions", "--filesystems")
        self.assertRegex(listed, rf"{ROOT} +filesystem +ext4 +root")
        self.assertRegex(listed, rf"{ROOT} +partition")
        self.assertIn(ROOT, self.virt("virt-df", "--csv"))
        self.fish(f"mount {ROOT} /", "rm-rf /usr", words=["--ro"])

    def test_an_installer_then_those_who_look_then_a_rollback(self):
        installed = self.install()
        self.assertGreater(len(installed), 200)
        self.assertEqual(self.found(), installed)
        tool("checkpoint", self.server.image, "--name", "installed")
        self.look()
        self.assertEqual(self.status(self.server)["changed_bytes"], 0)
        self.fish(f"mount {ROOT} /", "rm-rf /usr", "mkdir /usr", "write /usr/other 'something else'")
        self.assertEqual(list(self.found()), ["other"])
        tool("rollback", self.server.image, "installed", "--yes")
        self.assertEqual(self.found(), installed)


if __name__ == "__main__":
    unittest.main()
