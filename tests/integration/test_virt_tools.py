#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""libguestfs and its virt tools on a volume, through QEMU's NBD client in its appliance: they make a partition and a
file system, fill it as an installer does, look into it, and find it as it was after a rollback.

Needs Debian's guestfs-tools and libguestfs-tools, and the kernel of tests/guest/prepare.sh."""

import hashlib
import os
import subprocess
import tarfile
import unittest
from pathlib import Path

from harness import MIB, Case, run, tool

KERNELS = Path(os.environ.get("CKPT_GUEST_CACHE", "/var/cache/ckpt-guest")) / "kernel"
SIZE = 512 * MIB
SOURCE = Path("/usr/share/perl/5.36.0")
ROOT = "/dev/sda1"


def environment():
    """The appliance boots the guests' kernel, in emulation."""
    kernel = next((KERNELS / "boot").glob("vmlinuz-*"))
    modules = next((KERNELS / "lib/modules").iterdir())
    return {**os.environ, "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
            "SUPERMIN_KERNEL": str(kernel), "SUPERMIN_MODULES": str(modules)}


def content(tar):
    """What a tar archive's files are."""
    with tarfile.open(tar) as archive:
        return {one.name.removeprefix("./"): hashlib.sha1(archive.extractfile(one).read()).hexdigest()
                for one in archive if one.isfile()}


class VirtTools(Case):
    def setUp(self):
        super().setUp()
        self.server = self.serve(self.folder / "disk.img", f"size={SIZE}")
        self.uri = f"nbd://?socket={self.server.socket}"
        self.archive = self.folder / "files.tar"
        run("tar", "-C", SOURCE, "-cf", self.archive, ".")

    def run_on(self, program, *words, script=None):
        """What a virt tool says of the disk."""
        done = subprocess.run([program, "--format=raw", "-a", self.uri, *words], input=script, text=True,
                              capture_output=True, env=environment(), timeout=600)
        self.assertEqual(done.returncode, 0, f"{program} {words}: {done.stdout}{done.stderr}")
        return done.stdout

    def fish(self, *commands):
        return self.run_on("guestfish", script="\n".join(("run", *commands)) + "\n")

    def files(self):
        """Of the mounted file system, which is whole."""
        out = self.folder / "out.tar"
        self.fish(f"e2fsck-f {ROOT}", f"mount-ro {ROOT} /", f"tar-out /usr {out}")
        return content(out)

    def test_an_installer_and_those_who_look(self):
        self.fish("part-disk /dev/sda mbr", f"mkfs ext4 {ROOT} label:root", f"mount {ROOT} /", "mkdir /usr",
                  f"tar-in {self.archive} /usr", "sync")
        installed = content(self.archive)
        self.assertGreater(len(installed), 200)
        self.assertEqual(self.files(), installed)
        tool("checkpoint", self.server.image, "--name", "installed")
        listed = self.run_on("virt-filesystems", "--long", "--partitions", "--filesystems")
        self.assertRegex(listed, r"/dev/sda1 +filesystem +ext4 +root")
        self.assertIn("/dev/sda1", self.run_on("virt-df", "--csv"))
        self.fish(f"mount {ROOT} /", "rm-rf /usr", "mkdir /usr", "write /usr/other 'something else'", "sync")
        self.assertEqual(list(self.files()), ["other"])
        tool("rollback", self.server.image, "--yes")
        self.assertEqual(self.files(), installed)


if __name__ == "__main__":
    unittest.main()
