# SPDX-License-Identifier: Apache-2.0
"""Rollbacks of scattered blocks over a link with a latency, in turn with the same ones without it.

The link is a proxy (delay_proxy.py) that stands in for netem. One volume has its back-up behind
the proxy, whose delay changes from run to run, another one at the same backupd without it: that
shows what the proxy itself costs. The proxy is measured first."""

import os
import time

from backup import is_applied, keep, wait_for
from child import Child
from link_check import Responder, bulk_rate, ping_ms
from report import Row, in_turn, peer_row, rounds, spread
from scatter import write_scattered
from servers import MIB

SECTION = "remote-rollback"
BAR = 1.3
BULK = 512 * MIB


def needs(_):
    """The programs that are run."""
    return ()


class Link(Child):
    """The proxy, and its address."""

    def __init__(self, target):
        super().__init__("delay_proxy.py", target)
        self.address = f"127.0.0.1:{self.answer()['port']}"

    def delay(self, milliseconds):
        """Each way, from now on."""
        self.order(delay_ms=milliseconds)
        self.answer()


def title_of(delay):
    return f"{delay:g} ms each way" if delay else "no delay"


def link_rows(options):
    """The proxy itself: what it adds to a round trip, and how fast it is."""
    delays = [0.0, *options.delays]
    pings, rates = {delay: [] for delay in delays}, {delay: [] for delay in delays}
    bulk = 32 * MIB if options.smoke else BULK
    with Responder() as responder, Link(responder.address) as link:
        direct = spread([bulk_rate(responder.address, bulk) for _ in range(options.rounds)])
        for _ in range(options.rounds):
            for delay in delays:
                link.delay(delay)
                pings[delay].append(ping_ms(link.address))
                rates[delay].append(bulk_rate(link.address, bulk))
    rows = [Row(SECTION, "without the proxy: bulk transfer", direct, "B/s")]
    for delay in delays:
        rows += link_rows_at(delay, spread(pings[delay]), spread(rates[delay]))
    return rows


def link_rows_at(delay, ping, rate):
    """A round trip shorter than the delay would make the rest worthless."""
    if ping["min"] < 2 * delay:
        raise RuntimeError(f"the proxy delays by {ping['min']:.3f} ms a round trip: {delay} twice")
    return [Row(SECTION, f"the proxy, {title_of(delay)}: round trip", ping, "ms"),
            Row(SECTION, f"the proxy, {title_of(delay)}: bulk transfer", rate, "B/s")]


class Volume:
    """A disk at a checkpoint, changed and rolled back again and again."""

    def __init__(self, place, name, address, options):
        self._disk, self._changed = options.disk, options.changed
        self._server = place.serve("ckpt", place.image(options.disk, "written", name),
                                   f"backup={address}")
        wait_for(self._server, is_applied, "the first copy")

    def change(self, seed):
        """Writes that the back-up has seen as much of as it will; the client is gone then."""
        write_scattered(self._server, self._disk, self._changed, seed)
        self._server.settle()
        wait_for(self._server, lambda status: status["connections"] == 0, "the client is gone")
        os.sync()

    def roll_back(self):
        """Seconds until the answer, and what it says."""
        began = time.perf_counter()
        answer = self._server.ask("rollback", checkpoint="last", clients="refuse")
        taken = time.perf_counter() - began
        if answer["restored_bytes"] != self._changed:
            raise RuntimeError(f"not {self._changed} bytes rolled back: {answer}")
        return taken, answer

    def stop(self):
        self._server.stop()


class Contender:
    """Rollbacks of a volume, at a delay of the link if it is behind it."""

    def __init__(self, title, volume, link=None, delay=0.0):
        self.title = title
        self._volume, self._link, self._delay = volume, link, delay
        self.seconds, self.answers = [], []

    def run(self, seed):
        self._volume.change(seed)
        if self._link:
            self._link.delay(self._delay)
        taken, answer = self._volume.roll_back()
        if self._link:
            self._link.delay(0)
        self.seconds.append(taken)
        self.answers.append(answer)


def row_of(ours, theirs, options, is_judged=False):
    bar = {"bar": BAR, "sign": "<="} if is_judged and not options.smoke else {}
    name = f"rollback of {options.changed // MIB} MiB in pieces of 4 to 64 KiB, {ours.title}"
    return peer_row(SECTION, name, theirs.title, theirs.seconds, ours.seconds, "s", **bar,
                    answers=ours.answers)


def run_all(place, options, say, link, address):
    """The rows of all contenders."""
    direct = Volume(place, "direct.img", address, options)
    behind = Volume(place, "behind.img", link.address, options)
    without = Contender("without the proxy", direct)
    passed_on = Contender("the proxy, no delay", behind, link)
    delayed = [Contender(f"the proxy, {title_of(delay)}", behind, link, delay)
               for delay in options.delays]
    for number in rounds(options, SECTION, say):
        for contender in in_turn([without, passed_on, *delayed], number):
            contender.run(number)
    direct.stop()
    behind.stop()
    return [*(row_of(one, passed_on, options, is_judged=True) for one in delayed),
            *(row_of(one, without, options) for one in (passed_on, *delayed))]


def measure(place, options, say):
    """Yields the rows of the proxy, and of rollbacks."""
    yield link_rows(options)
    say(f"{SECTION}: the proxy")
    backupd = keep(place)
    with Link(backupd.address) as link:
        yield run_all(place, options, say, link, backupd.address)
    backupd.remove()
