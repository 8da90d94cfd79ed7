#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""doctor on this machine, as it is and with things taken away from it."""

import ctypes
import json
import mmap
import os
import pty
import signal
import struct
import subprocess
import sys
import time
import unittest
from pathlib import Path

from harness import (DEGRADED, MIB, OK, UNKNOWN, USAGE, Case, LoopDevice, Tmpfs, build, eventually,
                     plugin, plugin_environment, run, tool)

MACHINE = ["nbdkit", "plugin", "written-maps", "io_uring", "open-files", "file-size", "nbd-module",
           "nbd-client", "qemu", "qemu-background", "criu", "soft-dirty", "pid-namespace"]
VOLUME = ["image", "image-holes", "direct-io", "state-directory", "control-socket", "backup",
          "backup-holes", "backup-space", "map-space", "server"]


def without_io_uring():
    """Makes io_uring_setup (425 on every architecture) fail with EPERM from here on, as the
    profiles of containers do (seccomp(2))."""
    instructions = ((0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x50001),
                    (0x06, 0, 0, 0x7fff0000))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in instructions))
    program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, seccomp, by_filter = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(seccomp, by_filter, program):
        raise OSError(ctypes.get_errno(), "prctl")


class DoctorCase(Case):
    """An nbdkit stands first on PATH for which `ckpt` is the plugin that was built, not one that
    may be installed."""

    def setUp(self):
        super().setUp()
        self.environment = dict(os.environ)
        self.real = run("sh", "-c", "command -v nbdkit").strip()
        preload = plugin_environment().get("LD_PRELOAD", "")
        self.fake_nbdkit(f'[ "$1" != ckpt ] || {{ shift; set -- "{plugin()}" "$@"; }}\n'
                         f'exec env LD_PRELOAD="{preload}" {self.real} "$@"')

    def fake_nbdkit(self, script):
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "nbdkit"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        self.environment["PATH"] = f"{folder}:{os.environ['PATH']}"

    def call(self, *words, under=(), **options):
        return subprocess.run([*under, str(build() / "tools/ckpt-tool"), *map(str, words)],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                              env=self.environment, **options)

    def doctor(self, *words, expect=OK, **options):
        """The checks by their names."""
        done = self.call("--json", "doctor", *words, **options)
        self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 1, done.stdout)
        result = json.loads(lines[0])
        self.assertEqual((result["schema"], result["type"]), (1, "result"))
        for check in result["checks"]:
            self.assertEqual(set(check), {"name", "ok", "detail", "advice"})
            self.assertIs(type(check["ok"]), bool)
            self.assertNotEqual(check["detail"], "")
            self.assertTrue(check["ok"] or check["advice"], check)
        self.assertEqual([check["name"] for check in result["checks"]],
                         MACHINE + VOLUME if words else MACHINE)
        checks = {check["name"]: check for check in result["checks"]}
        self.assertEqual(expect == DEGRADED, not all(check["ok"] for check in checks.values()))
        return checks

    def failing(self, *words):
        checks = self.doctor(*words, expect=DEGRADED)
        return {name: check for name, check in checks.items() if not check["ok"]}


class Doctor(DoctorCase):
    def test_this_machine(self):
        checks = self.doctor()
        self.assertIn(self.real.rsplit("/", 1)[1], checks["nbdkit"]["detail"])
        self.assertRegex(checks["nbdkit"]["detail"], r"nbdkit 1\.\d+")
        self.assertIn(str(plugin().resolve()), checks["plugin"]["detail"])
        self.assertEqual(checks["plugin"]["advice"], "")

    def test_for_people(self):
        done = self.call("doctor", self.image())
        self.assertEqual((done.returncode, done.stderr), (OK, ""))
        self.assertRegex(done.stdout, r"(?m)^nbdkit +ok +nbdkit 1\.\d+")
        self.assertRegex(done.stdout, r"(?m)^server +ok +never served")
        self.assertNotIn("\x1b", done.stdout)
        quiet = self.call("-q", "doctor")
        self.assertEqual((quiet.returncode, quiet.stdout, quiet.stderr), (OK, "", ""))

    def on_terminal(self, *words, **variables):
        """What a terminal would show."""
        ours, theirs = pty.openpty()
        subprocess.run([str(build() / "tools/ckpt-tool"), *words], stdin=theirs, stdout=theirs,
                       stderr=theirs, env={**self.environment, "TERM": "xterm", **variables},
                       timeout=120, check=True)
        os.close(theirs)
        text = b""
        try:
            while chunk := os.read(ours, 65536):
                text += chunk
        except OSError:
            pass  # the other end is closed
        os.close(ours)
        return text.decode()

    def test_colours_on_a_terminal_only_and_not_against_the_users_will(self):
        self.assertIn("\x1b[32mok\x1b[0m", self.on_terminal("doctor"))
        plain = self.on_terminal("doctor", NO_COLOR="1")
        self.assertIn("nbdkit", plain)
        self.assertNotIn("\x1b", plain)

    def test_no_nbdkit(self):
        self.environment["PATH"] = str(self.folder)
        failed = self.failing()
        self.assertEqual(set(failed), {"nbdkit", "plugin"})
        self.assertIn("not found on PATH", failed["nbdkit"]["detail"])
        self.assertIn("install nbdkit", failed["nbdkit"]["advice"])
        quiet = self.call("-q", "doctor")
        self.assertEqual(quiet.returncode, DEGRADED)
        self.assertEqual(len(quiet.stdout.splitlines()), 4, quiet.stdout)

    def test_nbdkit_without_the_plugin(self):
        self.fake_nbdkit(f'[ "$1" != ckpt ] || {{ shift; set -- /nonexistent/ckpt.so "$@"; }}\n'
                         f'exec {self.real} "$@"')
        failed = self.failing()
        self.assertEqual(set(failed), {"plugin"})
        self.assertIn("/nonexistent/ckpt.so", failed["plugin"]["detail"])
        self.assertIn("meson install", failed["plugin"]["advice"])

    def test_old_nbdkit_and_another_plugin(self):
        self.fake_nbdkit('[ "$1" = ckpt ] && echo ckpt_version=0.0.1 || echo nbdkit 1.24.0')
        failed = self.failing()
        self.assertEqual(set(failed), {"nbdkit", "plugin"})
        self.assertIn("too old", failed["nbdkit"]["detail"])
        self.assertIn("0.0.1", failed["plugin"]["detail"])

    def test_nbdkit_that_hangs(self):
        self.fake_nbdkit('[ "$1" = --version ] && exec sleep 600; echo ckpt_version=0.0.1')
        began = time.monotonic()
        self.assertIn("does not end", self.failing()["nbdkit"]["detail"])
        self.assertLess(time.monotonic() - began, 60)

    def test_runtime_directory_on_no_tmpfs(self):
        self.environment["XDG_RUNTIME_DIR"] = str(self.folder)
        maps = self.doctor()["written-maps"]
        self.assertIn(f"XDG_RUNTIME_DIR ({self.folder}) is no tmpfs", maps["detail"])
        self.assertIn("XDG_RUNTIME_DIR", maps["advice"])

    def test_runtime_directory_with_little_room(self):
        tmpfs = Tmpfs(self, "1M", self.folder)
        self.environment["XDG_RUNTIME_DIR"] = str(tmpfs.path)
        maps = self.doctor()["written-maps"]
        self.assertRegex(maps["detail"], rf"^{tmpfs.path}/ckpt, .* free: little")
        big = self.image(size=64 << 30)
        space = self.doctor(big)["map-space"]
        self.assertIn("a killed server no longer knows", space["detail"])

    def test_io_uring_that_is_not_allowed(self):
        check = self.doctor(preexec_fn=without_io_uring)["io_uring"]
        self.assertIn("Operation not permitted", check["detail"])
        self.assertIn("seccomp", check["advice"])

    def test_qemu_and_whether_it_can_save_a_memory_while_a_machine_runs(self):
        """Its user must be privileged, unless a sysctl allows it to all."""
        checks = self.doctor()
        self.assertRegex(checks["qemu"]["detail"], r"QEMU emulator version \d.*, /.*/qemu-system-")
        self.assertIn("runs on", checks["qemu-background"]["detail"])
        sysctl = Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip()
        check = self.doctor(under=["setpriv", "--bounding-set=-sys_ptrace"])["qemu-background"]
        self.assertIn("runs on" if sysctl == "1" else "standing still", check["detail"])
        self.assertIn("" if sysctl == "1" else "sysctl vm.unprivileged_userfaultfd=1",
                      check["advice"])
        fake = self.folder / "bin" / f"qemu-system-{os.uname().machine}"
        fake.write_text("#!/bin/sh\necho QEMU emulator version 5.2.0\n")
        fake.chmod(0o755)
        check = self.doctor()["qemu"]
        self.assertIn(f"{fake}: too old", check["detail"])
        self.assertIn("6.0 or later", check["advice"])

    def test_what_criu_wants_of_the_kernel(self):
        """As the kernel itself shows it: a page just written is marked in the page map."""
        page = mmap.mmap(-1, mmap.PAGESIZE)
        page[0] = 1
        at = ctypes.addressof(ctypes.c_char.from_buffer(page)) // mmap.PAGESIZE * 8
        with open("/proc/self/pagemap", "rb") as pagemap:
            entry = os.pread(pagemap.fileno(), 8, at)
        is_marked = bool(int.from_bytes(entry, sys.byteorder) & 1 << 55)
        check = self.doctor()["soft-dirty"]
        self.assertEqual(check["advice"] == "", is_marked, check)
        self.assertIn("" if is_marked else "CONFIG_MEM_SOFT_DIRTY", check["advice"])

    def test_namespaces_for_run(self):
        self.assertEqual(self.doctor()["pid-namespace"]["advice"], "")
        check = self.doctor(under=["setpriv", "--bounding-set=-sys_admin"])["pid-namespace"]
        self.assertIn("Operation not permitted: `ckpt-tool run` cannot", check["detail"])
        self.assertIn("CAP_SYS_ADMIN", check["advice"])

    def test_limits_are_those_of_the_process(self):
        words = [str(build() / "tools/ckpt-tool"), "--json", "doctor"]
        done = subprocess.run(["prlimit", "--nofile=100", "--fsize=1048576", *words],
                              env=self.environment, capture_output=True, text=True, check=True)
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        self.assertIn("limited to 100", checks["open-files"]["detail"])
        self.assertIn("limited to 1.0 MiB", checks["file-size"]["detail"])

    def test_wrong_use(self):
        for words in (("a", "b"), ("--state", "s"), (self.image(), "--backup=elsewhere")):
            done = self.call("doctor", *words)
            self.assertEqual(done.returncode, USAGE, done)
            self.assertEqual(done.stdout, "")
            self.assertIn("ckpt-tool: ", done.stderr)


class DoctorVolume(DoctorCase):
    def test_an_image_that_was_never_served(self):
        image = self.image()
        before = image.stat()
        checks = self.doctor(image)
        self.assertIn("never served", checks["server"]["detail"])
        self.assertIn("will be made", checks["state-directory"]["detail"])
        self.assertIn(str(image), checks["image"]["detail"])
        self.assertEqual(sorted(os.listdir(self.folder)), ["bin", "disk.img"])
        after = image.stat()
        self.assertEqual((before.st_mtime_ns, before.st_ctime_ns, before.st_blocks),
                         (after.st_mtime_ns, after.st_ctime_ns, after.st_blocks))

    def test_a_served_volume_and_a_stopped_one(self):
        server = self.serve(self.image())
        number = tool("checkpoint", server.image)["checkpoint"]
        for name in (server.image, server.state):
            checks = self.doctor(name)
            self.assertEqual(checks["server"]["detail"], "running")
            self.assertIn(f"{server.state}/store on ", checks["backup"]["detail"])
            self.assertIn("takes both", checks["backup"]["detail"])
        self.assertEqual(tool("list", server.image)["checkpoints"][0]["checkpoint"], number)
        server.stop()
        before = (server.state / "volume").read_bytes()
        self.assertEqual(self.doctor(server.image)["server"]["detail"], "none runs")
        self.assertEqual((server.state / "volume").read_bytes(), before)
        server.start()
        server.kill9()
        self.assertIn("did not stop cleanly", self.doctor(server.image)["server"]["detail"])

    def test_state_and_backup_elsewhere(self):
        other = Tmpfs(self, "64M", self.folder)
        server = self.serve(self.image(size=8 * MIB), f"state={self.folder}/there",
                            f"backup=embedded:{other.path}/store")
        for words in ((server.image, "--state", server.state), (server.state,)):
            checks = self.doctor(*words)
            self.assertIn("gone after a reboot", checks["backup"]["detail"])
            self.assertIn(f"{self.folder}/there on ", checks["state-directory"]["detail"])
        server.stop()
        self.assertEqual(self.call("doctor", server.state).returncode, USAGE)
        checks = self.doctor(server.image, "--state", server.state)
        self.assertIn(f"{other.path}/store", checks["backup"]["detail"])

    def test_a_backup_by_itself(self):
        server = self.serve(self.image())
        tool("checkpoint", server.image)
        for _ in range(2):
            done = self.call("doctor", server.state / "store")
            self.assertEqual((done.returncode, done.stdout), (USAGE, ""))
            self.assertIn(f"{server.state}/store is a back-up by itself: give the primary image",
                          done.stderr)
            server.stop()

    def test_no_backup(self):
        server = self.serve(self.image(), "backup=none")
        self.assertIn("backup=none", self.doctor(server.image)["backup"]["detail"])
        server.stop()
        self.assertIn("cannot be read", self.doctor(server.image)["server"]["detail"])

    def test_a_backup_that_is_gone(self):
        server = self.serve(self.image())
        tool("checkpoint", server.image)
        server.stop()
        (server.state / "store").rename(self.folder / "away")
        self.assertEqual(set(self.failing(server.image)), {"server"})

    def test_a_fenced_volume(self):
        server = self.serve(self.image())
        tool("checkpoint", server.image)
        tool("rollback", server.image, "--yes", "--clients=fence")
        failed = self.failing(server.image)
        self.assertIn("ckpt-tool accept", failed["server"]["advice"])
        tool("accept", server.image)
        self.doctor(server.image)

    def test_a_server_that_is_stopped_does_not_hang_it(self):
        server = self.serve(self.image())
        server.process.send_signal(signal.SIGSTOP)
        try:
            failed = self.failing(server.image)
        finally:
            server.process.send_signal(signal.SIGCONT)
        self.assertEqual(set(failed), {"server"})

    def test_a_missing_image(self):
        for words in (("doctor",), ("--json", "doctor")):
            done = self.call(*words, self.folder / "nothing.img")
            self.assertEqual(done.returncode, UNKNOWN)
            self.assertIn("nothing.img: there is no such image", done.stderr)
        error = json.loads(done.stdout)
        self.assertEqual((error["type"], error["exit_code"]), ("error", UNKNOWN))
        server = self.serve(self.image())
        server.stop()
        server.image.unlink()
        done = self.call("doctor", server.image)
        self.assertEqual(done.returncode, UNKNOWN)
        self.assertIn("the image is gone", done.stderr)

    def test_images_that_cannot_be_served(self):
        run("qemu-img", "create", "-q", "-f", "qcow2", self.folder / "q.img", "8M")
        failed = self.failing(self.folder / "q.img")
        self.assertIn("qcow2", failed["image"]["detail"])
        failed = self.failing(self.image("empty.img", size=0))
        self.assertIn("0 bytes", failed["image"]["detail"])
        os.mkfifo(self.folder / "pipe")
        self.assertIn("image", self.failing(self.folder / "pipe"))

    def test_a_backup_that_does_not_fit(self):
        small = Tmpfs(self, "4M", self.folder)
        image = self.image(size=8 * MIB)
        checks = self.doctor(image, f"--backup=embedded:{small.path}/store")
        self.assertIn("may grow to 8388608 bytes", checks["backup-space"]["detail"])
        server = self.serve(self.image("served.img", 8 * MIB), f"backup=embedded:{small.path}/s")
        self.assertRegex(server.said(), r"note: the back-up in .* may grow to 8388608 bytes")
        server.stop()
        image.write_bytes(os.urandom(8 * MIB))
        run("sync", image)
        failed = self.failing(image, f"--backup=embedded:{small.path}/store")
        self.assertIn("the first copy takes up to", failed["backup-space"]["detail"])

    def test_a_state_directory_that_cannot_be_made(self):
        tmpfs = Tmpfs(self, "1M", self.folder)
        run("mount", "-o", "remount,ro", tmpfs.path)
        failed = self.failing(self.image(), "--state", tmpfs.path / "state")
        self.assertEqual(set(failed), {"state-directory", "backup"})
        self.assertIn("state=DIR", failed["state-directory"]["advice"])

    def test_a_file_system_that_can_do_little(self):
        path = self.folder / "ramfs"
        path.mkdir()
        run("mount", "-t", "ramfs", "ramfs", path)
        self.addCleanup(run, "umount", path)
        checks = self.doctor(self.image(folder=path))
        for name in ("image-holes", "backup-holes"):
            self.assertIn("ramfs: its files cannot have holes made", checks[name]["detail"])
        self.assertIn("no direct I/O here", checks["direct-io"]["detail"])
        self.assertIn("gone after a reboot", checks["state-directory"]["detail"])

    def mounted_export(self, server):
        """The server's disk with a file system, mounted by nbdfuse and a loop device."""
        served, mount = self.folder / "nbd", self.folder / "mount"
        served.touch()
        mount.mkdir()
        fuse = subprocess.Popen(["nbdfuse", str(served), "--unix", str(server.socket)])
        self.addCleanup(fuse.wait)
        self.addCleanup(run, "fusermount3", "-u", served)
        eventually(lambda: served.stat().st_size > 0, "nbdfuse serves")
        device = run("losetup", "-f", "--show", served).strip()
        self.addCleanup(run, "losetup", "-d", device)
        run("mkfs.ext4", "-q", device)
        run("mount", device, mount)
        self.addCleanup(run, "umount", mount)
        return mount

    def test_state_and_backup_on_the_export_itself(self):
        server = self.serve(self.image())
        mount = self.mounted_export(server)
        failed = self.failing(server.image, "--state", mount / "state")
        self.assertEqual(set(failed), {"state-directory", "backup"})
        self.assertIn("would wait for itself", failed["state-directory"]["detail"])
        self.assertIn("state=DIR", failed["state-directory"]["advice"])
        other = self.image("other.img", size=8 * MIB)
        self.doctor(other, "--state", mount / "other")

    def test_a_block_device(self):
        loop = LoopDevice(self, "device", 8 * MIB, self.folder)
        failed = self.failing(loop.device)
        self.assertIn("is a block device", failed["state-directory"]["detail"])
        checks = self.doctor(loop.device, "--state", self.folder / "state")
        self.assertIn("a block device", checks["image"]["detail"])

    def test_a_deep_state_directory(self):
        deep = self.folder / ("d" * 100)
        deep.mkdir()
        server = self.serve(self.image(folder=deep))
        checks = self.doctor(server.image)
        self.assertIn("/proc/self/fd", checks["control-socket"]["detail"])
        self.assertEqual(checks["server"]["detail"], "running")


if __name__ == "__main__":
    unittest.main()
