# SPDX-License-Identifier: Apache-2.0
"""kill -9 of backupd in the middle of what is done with a volume, and its start some time later."""

import contextlib
import threading
import time

UP = ("connected", "syncing")


def is_up(server):
    return server.control("status")["backup"]["state"] in UP


class StoreDeaths:
    """Those of one backupd. `count`: how many came before what they were meant for was over."""

    def __init__(self, backupd, draw):
        self.asked = 0
        self.count = 0
        self._backupd, self._random = backupd, draw

    @contextlib.contextmanager
    def when(self, begun):
        """One death while the block runs, as soon as begun() is true."""
        self.asked += 1
        with self._beside(lambda over: self._strike(begun, over)):
            yield

    def within(self, seconds):
        """One death while the block runs, at a random instant of that time."""
        instant = time.monotonic() + self._random.uniform(0, seconds)
        return self.when(lambda: time.monotonic() > instant)

    @contextlib.contextmanager
    def again_and_again(self, server, least):
        """A death at once, and some time after each return to the server; `least` in time."""
        before = self.count
        with self._beside(lambda over: self._strike_until(server, over)):
            yield
        if self.count - before < least:
            raise AssertionError(f"backupd died {self.count - before} times, and not {least}")

    def _strike_until(self, server, over):
        self._strike(lambda: True, over)
        while not over.wait(self._random.uniform(0, 0.3)):
            self._strike(lambda: is_up(server), over)

    def _strike(self, begun, over):
        while not begun():
            if over.is_set():
                return
            time.sleep(0)
        self.count += not over.is_set()
        self._backupd.kill9()
        over.wait(self._random.choice((0, 0.05, 0.5)))
        self._backupd.start()

    @contextlib.contextmanager
    def _beside(self, act):
        """Runs act(over) in a thread beside the block; over is set when the block has ended."""
        over = threading.Event()
        problems = []

        def shielded():
            try:
                act(over)
            except Exception as problem:  # raised in the test's own thread
                problems.append(problem)
        thread = threading.Thread(target=shielded)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if problems:
            raise problems[0]
