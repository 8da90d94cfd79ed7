#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`status --watch`: a view that fills a terminal, keeps to its size, says what is wrong and goes
on, and leaves the terminal as it was, however it ends. Without a terminal: one result after the
other."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unittest

from harness import Case, USAGE, build, tool

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME = "\x1b[H"
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[@-~]")


class Watch:
    """The tool on a terminal of its own."""

    def __init__(self, case, image, columns=80, rows=24, words=(), **environment):
        self.ours, theirs = pty.openpty()
        self.resize(columns, rows)
        self.text = ""
        self.process = subprocess.Popen(
            [str(build() / "tools/ckpt-tool"), *words, "status", "--watch=0.2", str(image)],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": "xterm", **environment})
        os.close(theirs)
        case.addCleanup(self.close)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def resize(self, columns, rows):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        """What it writes in that time."""
        text, ends = b"", time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            if not select.select([self.ours], [], [], left)[0]:
                break
            try:
                text += os.read(self.ours, 65536)
            except OSError:
                break  # the other end is closed
        self.text += text.decode()
        return text.decode()

    def until(self, condition, seconds=60):
        """The first whole view that is as wanted."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.read(0.3)
            for view in self.text.split(HOME)[1:-1]:
                if condition(view):
                    return view
            if self.process.poll() is not None:
                break
        raise AssertionError(f"no such view in {self.text!r}")

    def end(self, by=signal.SIGINT):
        self.process.send_signal(by)
        self.process.wait(30)
        self.read(1)
        return self.process.returncode


def lines_of(view):
    return [SEQUENCE.sub("", line) for line in re.split(r"\r*\n", view)]


class WatchTest(Case):
    def test_fills_the_terminal_and_leaves_it_as_it_was(self):
        server = self.serve(self.image())
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            watch = Watch(self, server.image)
            view = watch.until(lambda view: "running" in view)
            self.assertIn("Ctrl-C ends", view)
            self.assertEqual(watch.end(ending), -ending)
            self.assertTrue(watch.text.startswith(ENTER), watch.text[:40])
            self.assertTrue(watch.text.endswith(LEAVE), watch.text[-40:])
            self.assertEqual(watch.text.count("\x1b[2J"), 0, "erased as a whole: it flickers")

    def test_says_what_is_wrong_and_goes_on(self):
        server = self.serve(self.image())
        watch = Watch(self, server.image)
        watch.until(lambda view: "running" in view)
        server.stop()
        watch.until(lambda view: "stopped" in view)
        state = server.image.with_name("disk.img.ckpt")
        state.rename(self.folder / "elsewhere")
        watch.until(lambda view: "no such state directory" in "".join(lines_of(view)))
        (self.folder / "elsewhere").rename(state)
        watch.text = ""
        watch.until(lambda view: "stopped" in view)
        watch.end()

    def test_keeps_to_a_small_terminal(self):
        server = self.serve(self.image())
        watch = Watch(self, server.image, columns=20, rows=5)
        view = watch.until(lambda view: "image" in view)
        self.assertEqual(len(lines_of(view)), 5)
        self.assertLessEqual(max(map(len, lines_of(view))), 20)
        watch.resize(80, 24)
        view = watch.until(lambda view: "unshipped" in view)
        self.assertGreater(max(map(len, lines_of(view))), 20)
        self.assertLessEqual(max(map(len, lines_of(view))), 80)
        watch.end()

    def test_a_stop_gives_the_terminal_back_for_its_time(self):
        watch = Watch(self, self.serve(self.image()).image)
        watch.until(lambda view: "running" in view)
        watch.process.send_signal(signal.SIGTSTP)
        self.assertTrue(watch.read(1).endswith(LEAVE))
        watch.process.send_signal(signal.SIGCONT)
        watch.text = ""
        watch.until(lambda view: "running" in view)
        self.assertIn(ENTER, watch.text)
        watch.end()

    def test_no_colours_against_the_users_will(self):
        image = self.serve(self.image()).image
        self.assertIn("\x1b[32m", Watch(self, image).until(lambda view: "running" in view))
        plain = Watch(self, image, NO_COLOR="1").until(lambda view: "running" in view)
        self.assertIsNone(re.search(r"\x1b\[[0-9;]*m", plain))

    def test_lines_where_nothing_can_be_drawn_over(self):
        image = self.serve(self.image()).image
        for watch in (Watch(self, image, TERM="dumb"), Watch(self, image, words=["-q"]),
                      Watch(self, image, words=["--json"])):
            text = watch.read(3)
            self.assertGreater(text.count("running"), 1, text)
            self.assertNotIn(HOME, text)
            self.assertNotIn(ENTER, text)
            watch.end()

    def test_times_that_are_none(self):
        image = self.image()
        for text in ("0", "-1", "1e9", "inf", "nan", "0x1p1", "2s", "two"):
            answer = tool("status", f"--watch={text}", image, expect=USAGE)
            self.assertIn("not a number of seconds from 0.1 to 86400", answer.message)
            answer = tool("checkpoint", f"--timeout={text}", image, expect=USAGE)
            self.assertIn("not a number of seconds from 0.001 to 604800", answer.message)


if __name__ == "__main__":
    unittest.main()
