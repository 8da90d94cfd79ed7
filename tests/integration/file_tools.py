# SPDX-License-Identifier: Apache-2.0
"""What people use on an NBD disk, tried on ours: nbdinfo, nbdcopy, QEMU's tools and fio. Afterwards
primary, back-up and what was written are the same, as whole disks."""

import contextlib
import json
import random

from harness import MIB, run, tool

SIZE = 64 * MIB
EXAMPLE = ("write -P 0xa5 1000448 300032", "write -P 0x5a 1M 64k", "write -z 1060864 4k", "flush")
CHECKS = ("read -P 0xa5 1000448 48128", "read -P 0x5a 1M 12288", "read -P 0 1060864 4096")
# A block is filled with its offset, so that the same job makes the same disk.
FIO_JOB = ("--name=v", "--rw=randwrite", "--bsrange=512-128k", "--blockalign=512", f"--size={SIZE}",
           "--io_size=96M", "--iodepth=8", "--serialize_overlap=1", "--randseed=7", "--fsync=64",
           "--verify=pattern", "--verify_pattern=%o", "--do_verify=1", "--verify_fatal=1")


class FileTools:
    """To be mixed into a Case. A subclass may make the disk, and do something while a tool runs."""

    def disk(self, *parameters, **options):
        return self.serve(self.image(size=SIZE), *parameters, **options)

    def meanwhile(self, _server, least=1):
        """`least`: for how many deaths there is time."""
        return contextlib.nullcontext()

    def take_checkpoint(self, server):
        tool("checkpoint", server.image)

    def pattern(self, size=SIZE, seed=1):
        path = self.folder / f"pattern-{seed}"
        path.write_bytes(random.Random(seed).randbytes(size // 2) + bytes(size - size // 2))
        return path

    def model(self):
        return self.image("model.img", size=SIZE)

    def qemu_io(self, disk, *commands):
        words = [word for command in commands for word in ("-c", command)]
        self.assertNotIn("Pattern verification failed", run("qemu-io", "-f", "raw", *words, disk))

    def expect_everywhere(self, server, written):
        self.take_checkpoint(server)
        run("cmp", written, server.image)
        self.expect_same_backup(server)
        exported = self.folder / "exported"
        tool("export", server.image, "last", exported)
        run("cmp", written, exported)

    def test_nbdinfo_shows_size_and_abilities(self):
        server = self.disk()
        with self.meanwhile(server):
            export = json.loads(run("nbdinfo", "--json", server.uri))["exports"][0]
        self.assertEqual(export["export-size"], SIZE)
        self.assertFalse(export["is_read_only"])
        for ability in ("can_flush", "can_fua", "can_trim", "can_zero"):
            self.assertTrue(export[ability], ability)
        self.expect_everywhere(server, self.model())

    def test_nbdcopy_in_and_out_is_equal(self):
        pattern, out = self.pattern(), self.folder / "out"
        server = self.disk("multi-conn=on")
        with self.meanwhile(server):
            run("nbdcopy", "--flush", pattern, server.uri)
        with self.meanwhile(server):
            run("nbdcopy", server.uri, out)
        run("cmp", pattern, out)
        self.expect_everywhere(server, pattern)
        server.stop()
        run("cmp", pattern, server.image)

    def test_qemu_img_compares_equal(self):
        pattern = self.pattern()
        server = self.disk()
        with self.meanwhile(server):
            run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", pattern, server.uri)
            self.assertIn("identical", run("qemu-img", "compare", "-f", "raw", "-F", "raw", pattern,
                                           server.uri))
        self.expect_everywhere(server, pattern)

    def test_qemu_io_patterns_read_back(self):
        server, model = self.disk(), self.model()
        with self.meanwhile(server):
            self.qemu_io(server.uri, *EXAMPLE, *CHECKS, "discard 1M 8k", "read -P 0 1M 8k")
        self.qemu_io(model, *EXAMPLE, "write -z 1M 8k")
        self.expect_everywhere(server, model)

    def test_fio_verifies_what_it_wrote(self):
        server, model = self.disk(), self.model()
        with self.meanwhile(server, 2):
            run("fio", *FIO_JOB, "--ioengine=nbd", f"--uri={server.uri}", cwd=self.folder)
        run("fio", *FIO_JOB, "--ioengine=psync", f"--filename={model}", cwd=self.folder)
        self.expect_everywhere(server, model)
