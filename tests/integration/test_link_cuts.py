#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The link is cut a byte before the end of a frame, at it, and a byte after, at frames of every type
that there is; bits of them are flipped; and they stall. What was answered is kept, what was not can be
asked for again, and no byte of either disk is wrong at any time.

CKPT_LINK_CUTS=all: at every frame of a trace of some hundreds, and not at a sample of them."""

import collections
import unittest

from harness import eventually, tool
from link_proxy import BATCH, CONFIRM, CONTENT, DIGESTS, DONE, HELLO, READER, WELCOME
from link_scenario import SOAK, Scenario, frame_types
from link_strikes import Cut, Flip, HalfOpen, Stall, Swallow, crc32c

TYPES = frame_types()
VOLUME_LIST = next(kind for kind, (_, name, _) in TYPES.items() if name == "volume list")
Place = collections.namedtuple("Place", "step direction kind nth")


class Struck(Scenario):
    """Steps with a strike at a chosen frame."""

    def trace(self):
        """The places of every frame that goes by while nothing strikes."""
        places = []
        for step in self.steps:
            begin = len(self.proxy.trace)
            self.run_step(step)
            seen = collections.Counter()
            for frame in self.proxy.trace[begin:]:
                places.append(Place(step, *frame, seen[frame]))
                seen[frame] += 1
        self.found = self.places_of(places)
        return places

    def strike(self, place, blow):
        """Does the steps in which such a frame comes until it is struck: what comes beside them, such as a
        question for the status, comes when it likes, and not after every frame comes another. False: it
        never was."""
        others = sorted({one.step for one in self.found[place.direction, place.kind]})
        self.random.shuffle(others)
        for step in [place.step, *others, *others]:
            try:
                self.run_step(step, blow)
            except Exception as failure:
                failure.add_note(f"{step}: {blow}")
                raise
            # A byte of the next frame goes when there is one.
            happened = blow.happened.wait(self.silence if blow.connection else 0)
            self.proxy.lift()
            if happened:
                return True
            blow.left, blow.connection = 0, None
        return False

    def places_of(self, places):
        """By direction and type; all that the page knows. None of a first copy: it takes longest, and what
        comes there comes elsewhere."""
        found = collections.defaultdict(list)
        for place in places:
            if place.step != "first_copy":
                found[place.direction, place.kind].append(place)
        wanted = {(direction, kind) for kind, (direction, _, _) in TYPES.items()}
        self.assertEqual({name_of(one) for one in wanted}, {name_of(one) for one in found})
        return found


def name_of(frame):
    direction, kind = frame
    return f"{direction} {TYPES[kind][1] if kind in TYPES else kind}"


def boundaries(kind):
    """Bytes beyond the end of a frame. After a list of volumes nothing comes on its connection."""
    return (-1, 0) if kind == VOLUME_LIST else (-1, 0, 1)


class Cuts(Struck):
    count = 132

    def chosen(self, places):
        """One of each kind of boundary, and others up to the number that is wanted; or all."""
        every = [(place, beyond) for place in places for beyond in boundaries(place.kind)]
        if SOAK:
            return every
        some = [(self.random.choice(self.found[frame]), beyond) for frame in sorted(self.found)
                for beyond in boundaries(frame[1])]
        some += self.random.sample(every, self.count - len(some))
        self.random.shuffle(some)
        return some

    def test_around_the_end_of_frames_of_every_type(self):
        places = self.trace()
        self.assertGreaterEqual(len(places), 500)
        cuts, missed = collections.Counter(), []
        for place, beyond in self.chosen(places):
            if self.strike(place, Cut(place.direction, place.kind, beyond, place.nth)):
                cuts[place.direction, place.kind, beyond] += 1
            else:
                missed.append((place, beyond))
        self.report(places, cuts, missed)
        for kind, (direction, name, _) in TYPES.items():
            for beyond in boundaries(kind):
                self.assertGreater(cuts[direction, kind, beyond], 0, f"{name}, {beyond:+d}")
        self.assertLess(len(missed), 0.05 * cuts.total())

    def report(self, places, cuts, missed):
        print(f"{cuts.total()} cuts in a trace of {len(places)} frames, {len(missed)} missed")
        for kind, (direction, name, _) in TYPES.items():
            print(f"  {direction:4} {name:16}",
                  *(f"{beyond:+d}: {cuts[direction, kind, beyond]:<4}" for beyond in boundaries(kind)))


class InTheMagic:
    """Draws a bit of what each frame begins with."""

    @staticmethod
    def randrange(first, end):
        return min(first + 11, end)


class Flips(Struck):
    def test_a_bit_of_frames_of_every_type(self):
        self.trace()
        flips = collections.Counter()
        for frame in sorted(self.found):
            parts = ("header", "body") if TYPES[frame[1]][2] else ("header",)
            for part in parts:
                place = self.random.choice(self.found[frame])
                flip = Flip(*frame, self.random, part, place.nth)
                self.assertTrue(self.strike(place, flip), f"{place}, {part}")
                self.expect_refused(flip)
                flips[part] += 1
        print(f"flips: {dict(flips)}")
        self.assertGreater(flips.total(), 50)

    def test_what_is_no_frame_is_waited_out_half_way_through_a_rollback(self):
        """Nor is it one of another version, with which no rollback could go on."""
        for direction, kind in ("up", HELLO), ("down", WELCOME):
            cut, flip = Cut("down", CONTENT, -1), Flip(direction, kind, InTheMagic, "header")
            self.run_step("rollback", cut, flip)
            self.assertTrue(cut.happened.is_set() and flip.happened.is_set(), direction)

    def test_what_is_no_frame_where_a_connection_begins(self):
        for step in self.steps:
            for direction, kind in ("up", HELLO), ("down", WELCOME):
                try:
                    self.run_step(step, Flip(direction, kind, InTheMagic, "header"))
                except Exception as failure:
                    failure.add_note(f"{step}, {direction}")
                    raise
                self.proxy.lift()

    def expect_refused(self, flip):
        """Whoever got the frame did not take it."""
        eventually(lambda: flip.was_refused, f"its connection ends: {flip}", 60)
        if flip.direction == "up":
            eventually(lambda: flip.was_told, f"backupd says that it failed: {flip}", 60)
        elif flip.connection.role == READER:
            self.assertEqual(flip.asked_since, 0, f"it was taken: {flip}")


class Stalls(Struck):
    """Who stalls is given up, when nothing was heard for the silence and not before."""

    silence = 2

    def test_in_the_middle_of_a_frame(self):
        self.trace()
        for frame, kind in self.chosen():
            place = self.random.choice(self.found[frame])
            stall = kind(*frame, place.nth)
            self.assertTrue(self.strike(place, stall), str(place))
            eventually(stall.connection.ended.is_set, f"it is given up: {stall}", 60)
            direction, silent = stall.connection.gave_up
            self.assertGreaterEqual(silent, self.silence, f"{stall}, by who sends {direction}")

    def chosen(self):
        """In both directions, and in one alone."""
        frames = sorted(self.found) if SOAK else (("up", BATCH), ("down", DONE), ("down", CONTENT))
        some = [(frame, kind) for frame in frames for kind in (Stall, HalfOpen)]
        return some if SOAK else [*some, (("up", CONFIRM), Stall), (("down", DIGESTS), Stall)]


class Sabotage(Scenario):
    """These tests can fail."""

    def test_a_checkpoint_that_is_answered_and_lost_is_found(self):
        swallow = Swallow()
        with self.assertRaisesRegex(AssertionError, "answered is lost"):
            self.run_step("checkpoint", swallow)
        self.assertTrue(swallow.happened.is_set())

    def test_a_wrong_byte_is_found(self):
        for path in (self.server.image, self.backupd.store / self.volume / "backup.img"):
            with open(path, "r+b") as file:
                file.seek(123456)
                byte = file.read(1)
                for value in (byte[0] ^ 1, byte[0]):
                    file.seek(123456)
                    file.write(bytes([value]))
                    file.flush()
                    if value != byte[0]:
                        with self.assertRaisesRegex(AssertionError, "differ at 123456"):
                            self.expect_all()
        self.expect_all()

    def test_a_refusal_without_a_reason_is_found(self):
        self.backupd.stop()
        with self.assertRaisesRegex(AssertionError, "without a reason"):
            self.insist(lambda: tool("checkpoint", self.server.image, "--timeout", 1, expect=None))

    def test_the_checksum_of_the_liar(self):
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)


if __name__ == "__main__":
    unittest.main()
