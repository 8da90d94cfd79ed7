# SPDX-License-Identifier: Apache-2.0
#
# What a disk may hold after a power cut at some instant of power_cut_states_load.py: the first so
# many lines of its log were written by then. The audits of the power-cut test do the comparing.

from power_cut_audit import audit_instant, name_content, report
from sector_log import ZEROES, Operation


def contents_after(ops):
    return {sector: op.content() for op in ops for sector in op.sectors}


class Model:
    """The operations that count, without those that a rollback took back, and what was answered."""

    def __init__(self, head, events):
        self.volume = bytes.fromhex(head[1])
        self.sector_count = int(head[2])
        self.ops = []
        self.checkpoints = {}  # number: (operations answered when asked for, issued by its end)
        self.last = None  # the number of the one that was answered last, or gone back to
        self.asked = None  # the operations answered when the one in flight was asked for
        self.going_back = False  # to last
        self.possible = {}  # contents that a sector ever written may have
        for event in events:
            getattr(self, "on_" + event[0])(*event[1:])

    def on_op(self, sequence, kind, first, count):
        op = Operation(int(sequence), kind, int(first), int(count))
        self.ops.append(op)
        for sector in op.sectors:
            self.possible.setdefault(sector, [ZEROES]).append(op.content())

    def on_done(self, _):
        for sector in self.ops[-1].sectors:
            self.possible[sector] = self.possible[sector][-1:]

    def on_flushed(self, _):
        self.possible = {sector: contents[-1:] for sector, contents in self.possible.items()}

    def on_cut(self, _):
        self.asked = len(self.ops)

    def on_exists(self, number, _):
        self.last = int(number)
        self.checkpoints[self.last] = (self.asked, len(self.ops))
        self.asked = None

    def on_void(self):
        self.asked = None

    def on_back(self, number):
        self.going_back = True
        assert int(number) == self.last

    def on_restored(self, _):
        self.going_back = False
        answered, issued = self.checkpoints[self.last]
        assert answered == issued, "only at a quiet one it is known what the disk was"
        self.ops = self.ops[:answered]
        contents = contents_after(self.ops)
        self.possible = {s: [contents.get(s, ZEROES)] for s in self.possible}

    def is_possible(self, number):
        """Whether the last checkpoint can be this one; None: there is none."""
        if number == self.last:
            return True
        return self.asked is not None and number is not None and number > (self.last or 0)

    def audit_checkpoint(self, contents, number):
        span = (self.asked, len(self.ops))
        return audit_instant(self, contents, *self.checkpoints.get(number, span))

    def audit_flushed(self, contents):
        wrong = []
        for sector in self.possible.keys() | contents.keys():
            allowed, found = self.possible.get(sector, [ZEROES]), contents.get(sector, ZEROES)
            if found not in allowed:
                wrong.append((sector, found, " or ".join(map(name_content, allowed))))
        return report(wrong)
