# SPDX-License-Identifier: Apache-2.0
#
# The audit of the power-cut test: does a disk hold in every sector what the load's log says?
#
# Usage: power_cut_audit.py LOG DISK flushed | power_cut_audit.py LOG DISK checkpoint N
#
# DISK is a file or an NBD URI. "flushed": what was flushed or written with FUA is there, and
# nothing that never was written. "checkpoint N": the disk is exactly checkpoint N, and N is the
# last one that was answered, or the one in flight when the power went. Exit code 0 if so, 1 if not.

import sys

from sector_log import BLOCK_SECTORS, FOREIGN, SECTOR_BYTES, ZERO_SECTOR, ZEROES
from sector_log import Operation, decode_sector, read_log

CHUNK_BYTES = 1 << 20
SHOWN_MISMATCHES = 10


class History:
    """The log, read: the operations in order, and what was answered."""

    def __init__(self, path):
        head, events = read_log(path)
        self.volume = bytes.fromhex(head[1])
        self.sector_count = int(head[2])
        self.events = events
        self.ops = [
            Operation(int(e[1]), e[2], int(e[3]), int(e[4])) for e in events if e[0] == "op"
        ]

    def last_exists(self):
        """(number, ops answered when it was asked for, ops issued when it was answered)."""
        answered, asked = None, 0
        for event in self.events:
            if event[0] == "cut":
                asked = int(event[1])
            elif event[0] == "exists":
                answered = (int(event[1]), asked, int(event[2]))
        return answered

    def in_flight(self):
        """The same for the checkpoint that was never answered, without a number; or None."""
        last = [event for event in self.events if event[0] in ("cut", "exists")][-1]
        return (int(last[1]), len(self.ops)) if last[0] == "cut" else None


def read_chunks(disk):
    """The disk's bytes in order."""
    if "://" not in disk:
        with open(disk, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        return
    import nbd

    handle = nbd.NBD()
    handle.connect_uri(disk)
    size = handle.get_size()
    for offset in range(0, size, CHUNK_BYTES):
        yield handle.pread(min(CHUNK_BYTES, size - offset), offset)
    handle.shutdown()


def read_contents(disk, history):
    """What each sector holds, as a number; a sector that is not listed is all zeroes."""
    contents, sector = {}, 0
    for chunk in read_chunks(disk):
        if chunk.count(0) == len(chunk):
            sector += len(chunk) // SECTOR_BYTES
            continue
        for start in range(0, len(chunk), SECTOR_BYTES):
            data = chunk[start : start + SECTOR_BYTES]
            if data != ZERO_SECTOR:
                contents[sector] = decode_sector(history.volume, sector, data)
            sector += 1
    if sector != history.sector_count:
        sys.exit(f"not ok - the disk has {sector} sectors, it had {history.sector_count}")
    return contents


def name_content(content):
    return {ZEROES: "zeroes", FOREIGN: "torn or foreign data"}.get(content, f"write {content}")


def report(mismatches):
    """Prints (sector, found, expected) triples and returns whether there were none."""
    for sector, found, expected in mismatches[:SHOWN_MISMATCHES]:
        print(f"# sector {sector}: {name_content(found)}, expected {expected}")
    if mismatches:
        print(f"# {len(mismatches)} sectors are wrong")
    return not mismatches


def possible_after_power_cut(history):
    """For each sector ever written: the contents that a power cut may leave."""
    possible, ops = {}, iter(history.ops)
    for event in history.events:
        if event[0] == "op":
            op = next(ops)
            for sector in op.sectors:
                possible.setdefault(sector, [ZEROES]).append(op.content())
        elif event[0] == "flushed":
            possible = {sector: contents[-1:] for sector, contents in possible.items()}
        elif event[0] == "done":
            for sector in op.sectors:
                possible[sector] = possible[sector][-1:]
    return possible


def audit_flushed(history, contents):
    possible = possible_after_power_cut(history)
    wrong = []
    for sector in possible.keys() | contents.keys():
        allowed, found = possible.get(sector, [ZEROES]), contents.get(sector, ZEROES)
        if found not in allowed:
            wrong.append((sector, found, " or ".join(map(name_content, allowed))))
    return report(wrong)


class Replay:
    """The disk as it was after the first so many operations, compared with the contents found."""

    def __init__(self, contents):
        self.contents = contents
        self.expected = {}
        self.wrong = set(contents)  # with no operation done, all that is not zero is wrong

    def do(self, op):
        for sector in op.sectors:
            self.expected[sector] = op.content()
            if self.contents.get(sector, ZEROES) == op.content():
                self.wrong.discard(sector)
            else:
                self.wrong.add(sector)

    def right_but_for(self, op):
        """Whether each block is as it is now or as after op, the one operation in flight."""
        if not self.wrong <= set(op.sectors):
            return False
        for block in {sector // BLOCK_SECTORS for sector in self.wrong}:
            first = block * BLOCK_SECTORS
            inside = [s for s in range(first, first + BLOCK_SECTORS) if s in op.sectors]
            if any(self.contents.get(s, ZEROES) != op.content() for s in inside):
                return False
        return True

    def mismatches(self):
        return [
            (s, self.contents.get(s, ZEROES), name_content(self.expected.get(s, ZEROES)))
            for s in sorted(self.wrong)
        ]


def audit_instant(history, contents, earliest, latest):
    """Whether the disk is as at one instant after op earliest was answered and before op
    latest + 1 was issued."""
    replay, closest = Replay(contents), None
    for op in history.ops[:earliest]:
        replay.do(op)
    for done in range(earliest, latest + 1):
        if not replay.wrong:
            print(f"# the disk is as it was after write {done}")
            return True
        if closest is None or len(replay.wrong) < len(closest):
            closest = replay.mismatches()
        if done < latest:
            if replay.right_but_for(history.ops[done]):
                print(f"# the disk is as it was during write {done + 1}")
                return True
            replay.do(history.ops[done])
    print(f"# no instant from write {earliest} to {latest} matches; the closest does not:")
    return report(closest)


def audit_checkpoint(history, contents, number):
    last, earliest, latest = history.last_exists()
    in_flight = history.in_flight()
    print(f"# checkpoint {number}; {last} was answered last, in flight: {in_flight is not None}")
    if number != last:
        if number < last or in_flight is None:
            print(f"# {number} is not the last checkpoint")
            return False
        earliest, latest = in_flight
    return audit_instant(history, contents, earliest, latest)


def main():
    log, disk, what = sys.argv[1:4]
    history = History(log)
    contents = read_contents(disk, history)
    if what == "flushed":
        right = audit_flushed(history, contents)
    else:
        right = audit_checkpoint(history, contents, int(sys.argv[4]))
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
