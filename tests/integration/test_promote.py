#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Fail-over: a back-up whose primary is lost becomes the primary; the old one is refused."""

import os
import shutil
import subprocess
import threading
import unittest
from pathlib import Path

from harness import (BUSY, DEGRADED, HALFWAY, MIB, OK, UNKNOWN, USAGE, Server, build, eventually,
                     free_port, plugin, plugin_environment, run, tool)
from nbd_client import NbdClient
from promotions import INTERRUPTIONS, SIZE, PromoteCase, digest, write_some
from steps import PAUSE, Steps
from tls_files import Secrets

FENCED = 11


class Promote(PromoteCase):
    def test_of_a_backupd(self):
        server, folder = self.lost_at(self.keep())
        old = tool("status", server.image)
        answer = tool("promote", folder, "--yes")
        self.assertEqual(answer["checkpoint"], self.checkpoint)
        self.assertEqual(answer["volume"], old["volume"])
        self.assertNotEqual(answer["timeline"], old["timeline"])
        self.assertEqual(answer["command"], f"nbdkit ckpt {folder}/backup.img backup=HOST:PORT")
        self.assertFalse(answer["was_promoted"])
        self.assertEqual(digest(answer["image"]), digest(self.truth))
        self.assertEqual(tool("status", folder)["state"], "promoted")
        self.assertEqual(tool("status", answer["image"]).last.get("backup"), None)
        promoted = self.serve_promoted(answer)
        self.assertEqual(tool("status", promoted.image)["timeline"], answer["timeline"])
        self.assert_works(promoted)

    def test_it_becomes_the_server(self):
        server, folder = self.lost_at(self.keep())
        answer = tool("promote", folder, "--yes", "--", "backup=none", expect=USAGE)
        self.assertIn("--serve", answer.message)
        self.assertEqual(tool("status", folder)["state"], "stopped")
        socket = self.folder / "s"
        words = ["-f", "-U", socket, f"--pidfile={self.folder / 'pid'}", "backup=none"]
        # Of nbdkit's own folder the plugin need not be this build's.
        paths = self.folder / "bin"
        paths.mkdir()
        (paths / "nbdkit").write_text(f"#!/bin/sh\nshift\nexec {shutil.which('nbdkit')} {plugin()} \"$@\"\n")
        (paths / "nbdkit").chmod(0o755)
        with subprocess.Popen([build() / "tools" / "ckpt-tool", "promote", folder, "--yes", "--serve", "--", *words],
                              env={**plugin_environment(), "PATH": f"{paths}:{os.environ['PATH']}"}) as process:
            self.addCleanup(process.kill)
            eventually((self.folder / "pid").exists, "it serves")
            self.assertEqual(int((self.folder / "pid").read_text()), process.pid)
            with NbdClient(str(socket)) as client:
                self.assertEqual(client.read(0, SIZE), self.truth.read_bytes())
            process.terminate()

    def test_the_new_primary_chooses_its_back_up(self):
        _, folder = self.lost_at(self.keep())
        answer = tool("promote", folder, "--yes")
        other = self.keep(store=self.folder / "other")
        promoted = self.serve_promoted(answer, f"backup={other.address}")
        self.assert_works(promoted)
        promoted.stop()
        again = self.serve(Path(answer["image"]))  # it is on record now
        self.assertEqual(tool("status", again.image)["backup"]["address"], other.address)
        again.stop()
        third = self.serve_promoted(answer, "backup=embedded", start=False)
        self.assertIn(other.address, third.refusal())

    def test_a_back_up_over_tls(self):
        _, folder = self.lost_at(self.keep())
        answer = tool("promote", folder, "--yes")
        secrets, address = Secrets.get(), f"127.0.0.1:{free_port()}"
        self.keep(f"--tls-psk={secrets.keys}", store=self.folder / "other", listen=address)
        promoted = self.serve_promoted(answer, f"backup={address}",
                                       f"tls-psk={secrets.psk['carol']}")
        self.assert_works(promoted)
        promoted.stop()
        again = self.serve(Path(answer["image"]))
        self.assertEqual(tool("status", again.image)["backup"]["state"], "connected")

    def test_where_its_back_up_is_must_be_said(self):
        _, folder = self.lost_at(self.keep())
        answer = tool("promote", folder, "--yes")
        promoted = self.serve(Path(answer["image"]), start=False)
        self.assertIn("backup=HOST:PORT", promoted.refusal())
        for words in (["rollback", "--yes"], ["checkpoint"], ["verify"]):
            tool(words[0], answer["image"], *words[1:], expect=None)
            self.assertFalse((promoted.state / "store").exists(), words)
        self.assert_works(self.serve_promoted(answer))

    def test_it_is_no_back_up_of_itself(self):
        backupd = self.keep()
        _, folder = self.lost_at(backupd)
        answer = tool("promote", folder, "--yes")
        backupd.start()
        mistaken = self.serve_promoted(answer, f"backup={backupd.address}", start=False)
        self.assertIn("itself", mistaken.refusal())
        self.assert_works(self.serve_promoted(answer))

    def test_backupd_leaves_it_alone(self):
        """The image may be grown, or go elsewhere: the old primary is refused all the same."""
        backupd = self.keep()
        server, folder = self.lost_at(backupd)
        answer = tool("promote", folder, "--yes")
        self.assertFalse((folder / "reserve").exists())
        Path(answer["image"]).rename(self.folder / "elsewhere.img")
        backupd.start()
        self.assertIn("was promoted", server.refusal())
        self.assertFalse((folder / "reserve").exists())
        self.assertFalse((folder / "backup.img").exists())

    def test_one_that_cannot_be_completed(self):
        _, folder = self.lost_at(self.keep())
        in_the_way = folder / "backup.img.ckpt"
        in_the_way.write_text("not a folder")
        answer = tool("promote", folder, "--yes", expect=HALFWAY)
        self.assertIn("promote it again", answer.message)
        in_the_way.unlink()
        self.assert_works(self.serve_promoted(tool("promote", folder, "--yes")))

    def test_without_a_back_up_first(self):
        _, folder = self.lost_at(self.keep())
        answer = tool("promote", folder, "--yes")
        promoted = self.serve_promoted(answer, "backup=none")
        self.assertEqual(digest(promoted.image), digest(self.truth))
        write_some(promoted, self.draw)
        promoted.stop()
        shutil.copyfile(answer["image"], self.truth)
        self.assert_works(self.serve_promoted(answer, "backup=embedded"))

    def test_again(self):
        _, folder = self.lost_at(self.keep())
        first = tool("promote", folder, "--yes")
        promoted = self.serve_promoted(first)
        write_some(promoted, self.draw)
        second = tool("promote", folder, "--yes")
        self.assertTrue(second["was_promoted"])
        for field in ("checkpoint", "timeline", "image", "command"):
            self.assertEqual(second[field], first[field])
        promoted.stop()
        self.assertEqual(tool("promote", folder, "--yes")["timeline"], first["timeline"])

    def test_killed_at_any_moment(self):
        server, folder = self.lost_at(self.keep())
        kept = self.folder / "kept"
        shutil.copytree(folder, kept)
        command = [build() / "tools" / "ckpt-tool", "promote", folder, "--yes"]
        seen = set()
        for n in range(INTERRUPTIONS):
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
            subprocess.run(["timeout", "-s", "KILL", str(0.004 * n + 0.001), *command],
                           capture_output=True, check=False)
            seen.add((tool("status", folder)["state"], (folder / "backup.img.ckpt").exists()))
            answer = tool("promote", folder, "--yes")
            self.assertEqual(digest(answer["image"]), digest(self.truth))
            self.assertEqual(answer["checkpoint"], self.checkpoint)
        self.assertIn(("stopped", False), seen)
        self.assertIn(("promoted", True), seen)
        self.assert_works(self.serve_promoted(answer))
        self.assertFalse(server.running)


class OldPrimary(PromoteCase):
    def promoted_behind(self):
        self.keeper = backupd = self.keep()
        server, folder = self.lost_at(backupd)
        tool("promote", folder, "--yes")
        backupd.start()
        return server, folder

    def running_unaware(self, **options):
        """A primary that runs, whose back-up was promoted and cannot be reached."""
        backupd = self.keep()
        server = self.serve(self.image(size=SIZE), f"backup={backupd.address}", **options)
        write_some(server, self.draw)
        tool("checkpoint", server.image)
        folder = backupd.folder_of(server)
        backupd.kill9()
        tool("promote", folder, "--yes")
        return server, backupd

    def assert_diverged(self, server, *more):
        status = tool("status", server.image)
        self.assertEqual(status["state"], "diverged")
        for command in (["checkpoint"], ["rollback", "--yes"], *more):
            answer = tool(command[0], server.image, *command[1:], expect=FENCED)
            self.assertIn("promoted", answer.message)

    def assert_both_lines(self, server, folder, checkpoint):
        """Each side says where its line is, and the old one what can be done."""
        old, new = tool("status", server.image), tool("status", folder)
        fork = {"timeline": old["timeline"], "checkpoint": checkpoint}
        self.assertEqual((old["lineage"], new["lineage"]), ([], [fork]))
        self.assertNotEqual(old["timeline"], new["timeline"])
        self.assertEqual(old["backup"]["timeline"], new["timeline"])
        for word in "ckpt-tool rejoin", "ckpt-tool forget":
            self.assertIn(word, old["problem"])
        for place in server.image, folder:
            text = run(build() / "tools" / "ckpt-tool", "status", place)
            self.assertRegex(text, rf"(?m)timeline +{tool('status', place)['timeline']}$")
        self.assertRegex(text, rf"(?m)^lineage +{fork['timeline']} to checkpoint {checkpoint}$")

    def test_does_not_start(self):
        server, folder = self.promoted_behind()
        self.assertIn("was promoted", server.refusal())
        self.assert_diverged(server, ["rollback", "--rebuild", "--yes"])
        self.assert_both_lines(server, folder, self.checkpoint)

    def test_is_not_rebuilt(self):
        """Where it is gone, and has heard of nothing yet."""
        server, _ = self.promoted_behind()
        server.image.unlink()
        tool("rollback", server.image, "--rebuild", "--yes", expect=FENCED)
        self.assertFalse(server.image.exists())

    def test_does_not_start_without_the_back_up_either(self):
        server, _ = self.promoted_behind()
        server.refusal()
        self.keeper.kill9()
        self.assertIn("was promoted", server.refusal())

    def test_that_is_cut_off_serves_unless_it_is_told_not_to(self):
        backupd = self.keep()
        server, folder = self.lost_at(backupd)
        tool("promote", folder, "--yes")
        server.start()
        server.stop()
        server.parameters = (*server.parameters, "start=contact")
        self.assertIn(backupd.address, server.refusal())
        backupd.start()
        self.assertIn("was promoted", server.refusal())

    def test_that_runs_stops_its_clients(self):
        """From the moment on that it says so, though its record takes a while to be durable."""
        steps = Steps(self.folder, "server", self.folder)
        server, backupd = self.running_unaware(environment=steps.environment)
        with NbdClient(str(server.socket)) as client:
            client.write(0, b"nobody knows yet")
            steps.arm("fdatasync disk.img.ckpt/volume", 1, PAUSE, 500, for_good=True)
            backupd.start()
            eventually(lambda: tool("status", server.image)["state"] == "diverged", "it hears of it")
            for act in (lambda: client.write(0, b"x"), lambda: client.read(0, 1), client.flush):
                with self.assertRaises(OSError):
                    act()
        self.assertGreater(steps.fired, 0)
        steps.disarm()
        with self.assertRaises(OSError):
            NbdClient(str(server.socket))
        self.assert_diverged(server)
        folder = backupd.folder_of(server)
        self.assert_both_lines(server, folder, tool("status", folder)["last_checkpoint"]["checkpoint"])
        server.stop()
        self.assertIn("was promoted", server.refusal())

    def test_a_rollback_is_the_first_to_hear_of_it(self):
        """It shuts the gate, and leaves it so."""
        server, backupd = self.running_unaware()
        backupd.start()
        for words in (["rollback", "--yes"], ["accept"]):
            tool(words[0], server.image, *words[1:], expect=FENCED)
            with self.assertRaises(OSError):
                NbdClient(str(server.socket))
        self.assert_diverged(server)

    def test_an_embedded_one_is_forgotten_and_its_back_up_stays(self):
        server = self.lost()
        answer = tool("promote", server.state / "store", "--yes", "--force")
        promoted = self.serve_promoted(answer)
        forgotten = tool("forget", server.image, "--yes", expect=DEGRADED)
        self.assertIn(str(server.state / "store"), forgotten["left"])
        self.assert_works(promoted)
        promoted.stop()
        promoted.start()

    def test_its_back_up_stays_though_its_record_is_damaged(self):
        server = self.lost()
        store = server.state / "store"
        answer = tool("promote", store, "--yes", "--force")
        (store / "volume").write_bytes(b"rot" * 100000)
        forgotten = tool("forget", server.image, "--yes", expect=DEGRADED)
        self.assertIn(str(store), forgotten["left"])
        self.assertEqual(digest(answer["image"]), digest(self.truth))

    def test_becomes_a_plain_image(self):
        server, _ = self.promoted_behind()
        before = digest(server.image)
        server.refusal()
        tool("forget", server.image, "--yes")
        self.assertEqual(digest(server.image), before)
        server.parameters = ()
        server.start()
        tool("checkpoint", server.image)

    def test_the_back_up_is_none_any_more(self):
        """backupd has it: a copy is asked."""
        _, folder = self.promoted_behind()
        copy = self.folder / folder.name
        shutil.copytree(folder, copy)
        answer = tool("export", copy, "last", self.folder / "out.raw", expect=FENCED)
        self.assertIn("promoted", answer.message)
        self.assertFalse((self.folder / "out.raw").exists())


class WithItsBackUp(PromoteCase):
    def test_contact(self):
        backupd = self.keep()
        server = self.serve(self.image(size=SIZE), f"backup={backupd.address}", "start=contact")
        write_some(server, self.draw)
        tool("checkpoint", server.image)
        backupd.kill9()
        write_some(server, self.draw)  # it is asked for at the start
        server.stop()
        server.refusal()
        tool("status", server.image)
        backupd.start()
        server.start()
        tool("checkpoint", server.image)

    def test_no_write_without_it(self):
        backupd = self.keep()
        server = self.serve(self.image(size=SIZE), f"backup={backupd.address}", "require-backup=on")
        write_some(server, self.draw)
        backupd.kill9()
        eventually(lambda: tool("status", server.image)["backup"]["state"] == "detached", "it sees")
        with NbdClient(str(server.socket)) as client:
            for act in (lambda: client.write(0, b"x"), lambda: client.zero(0, 4096)):
                with self.assertRaises(OSError):
                    act()
            client.read(0, 4096)
            client.flush()
            backupd.start()
            eventually(lambda: tool("status", server.image)["protected"], "it has a session again")
            client.write(0, b"x")
        tool("checkpoint", server.image)
        self.assertEqual(tool("verify", server.image)["mismatched_bytes"], 0)

    def test_a_rollback_holds_writes_and_fails_none(self):
        backupd = self.keep()
        server = self.serve(self.image(size=SIZE), f"backup={backupd.address}", "require-backup=on")
        tool("checkpoint", server.image)
        over, failures = threading.Event(), []

        def write_on():
            with NbdClient(str(server.socket)) as client:
                while not over.is_set():
                    try:
                        client.write(0, b"x" * 4096)
                    except OSError as failure:
                        failures.append(failure)

        writer = threading.Thread(target=write_on)
        writer.start()
        for _ in range(10):
            tool("rollback", server.image, "--yes", "--clients=keep", expect=None)
        over.set()
        writer.join()
        self.assertEqual(failures, [])

    def test_needs_one(self):
        server = self.serve(self.image(size=SIZE), "backup=none", "require-backup=on", start=False)
        self.assertIn("leave out backup=none", server.refusal())


class Refusals(PromoteCase):
    def test_to_serve_a_back_up(self):
        """It would be written over."""
        server, folder = self.lost_at(self.keep())
        before = digest(folder / "backup.img")
        for parameters in ((), ("backup=none",), (f"state={self.folder}/elsewhere",)):
            told = self.serve(folder / "backup.img", *parameters, start=False).refusal()
            self.assertIn("ckpt-tool promote", told)
        self.assertEqual(digest(folder / "backup.img"), before)
        self.assertFalse((folder / "backup.img.ckpt").exists())
        self.assertFalse(server.running)

    def test_without_a_checkpoint(self):
        folder = self.unfinished()
        answer = tool("promote", folder, "--yes", expect=UNKNOWN)
        self.assertIn("no checkpoint", answer.message)

    def unfinished(self):
        """A back-up whose first copy never came to its end."""
        image = self.image(size=256 * MIB)
        image.write_bytes(self.draw.randbytes(64 * MIB) * 4)
        for seconds in (0.3, 0.2, 0.4, 0.1, 0.6):
            backupd = self.keep(store=self.folder / f"shelf-{seconds}")
            self.serve(image, f"backup={backupd.address}", f"state={self.folder}/state-{seconds}",
                       start=False).start_and_kill(seconds)
            backupd.kill9()
            for folder in backupd.store.iterdir():
                if (folder / "volume").exists() and tool("list", folder)["checkpoints"] == []:
                    return folder
        raise AssertionError("the first copy ended, or did not begin, each time")

    def test_what_is_no_back_up(self):
        server = self.lost()
        for name in (server.image, server.state, self.folder, self.folder / "nothing"):
            answer = tool("promote", name, "--yes", expect=None)
            self.assertIn(answer.code, (USAGE, UNKNOWN), answer)

    def test_unasked(self):
        _, folder = self.lost_at(self.keep())
        self.assertIn("--yes", tool("promote", folder, expect=USAGE).message)

    def test_a_fence_that_fails(self):
        backupd = self.keep()
        server, folder = self.lost_at(backupd)
        for command in ("false", "/no/such/program"):
            answer = tool("promote", folder, "--yes", "--fence", command, expect=None)
            self.assertNotEqual(answer.code, OK)
            self.assertIn("nothing was promoted", answer.message)
        backupd.start()
        server.start()
        tool("checkpoint", server.image)

    def test_a_fence_comes_first(self):
        _, folder = self.lost_at(self.keep())
        seen = self.folder / "seen"
        tool("promote", folder, "--yes", "--fence",
             f"{build()}/tools/ckpt-tool --json status {folder} >{seen}")
        self.assertIn('"state":"stopped"', seen.read_text())

    def test_an_embedded_one_whose_image_is_there(self):
        server = self.lost()
        store = server.state / "store"
        answer = tool("promote", store, "--yes", expect=USAGE)
        self.assertIn("rollback", answer.message)
        server.image.unlink()
        promoted = self.serve_promoted(tool("promote", store, "--yes"))
        self.assert_works(promoted)

    def test_an_embedded_one_in_use(self):
        server = self.serve(self.image(size=SIZE))
        tool("promote", server.state / "store", "--yes", "--force", expect=BUSY)
        tool("checkpoint", server.image)

    def test_an_embedded_one_by_force(self):
        server = self.lost()
        answer = tool("promote", server.state / "store", "--yes", "--force")
        self.assert_works(self.serve_promoted(answer))
        old = Server(server.image, folder=self.folder)
        self.addCleanup(old.cleanup)
        self.assertIn("was promoted", old.refusal())


if __name__ == "__main__":
    unittest.main()
