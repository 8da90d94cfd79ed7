# SPDX-License-Identifier: Apache-2.0
"""A client that writes at a pace and says how long each write took. A process of its own, so that
nothing else disturbs it: `paced.py SOCKET`, then a JSON line of arguments for each line of answer.

{"fill": BYTES}             writes so many bytes from the start of the disk, 8 requests of 1 MiB at
                            once; answers {}
{"pace": SECONDS, "bytes"}  1000 times a second writes 4 KiB to a random place in the first `bytes`;
                            answers [[sent_ns, taken_ns, late_ns], ...]: wall clock when the request
                            was sent, time until its answer was there, time it was sent too late
It ends when its input does."""

import gc
import json
import os
import random
import sys
import time
from collections import deque

from servers import MIB, NbdClient
from nbd_client import WRITE

RATE = 1000
BLOCK = 4096
IN_FLIGHT = 8


def fill(client, size):
    """Writes a range from the start of the disk as fast as it can."""
    pool = os.urandom(16 * MIB)
    pieces = [pool[at:at + MIB] for at in range(0, len(pool), MIB)]
    write_all(client, ((offset, pieces[random.randrange(len(pieces))])
                       for offset in range(0, size, MIB)))
    return {}


def write_all(client, writes):
    """Does these writes, (offset, data) each, several at once."""
    cookies = deque()
    for offset, data in writes:
        if len(cookies) == IN_FLIGHT:
            client.receive(cookies.popleft())
        cookies.append(client.send(WRITE, offset, data=data))
    while cookies:
        client.receive(cookies.popleft())


def pace(client, seconds, size):
    """Writes at the rate. One request at a time: a stall delays those that come after it, and the
    longest time is that of the first one it met."""
    block = os.urandom(BLOCK)
    places = [random.randrange(size // BLOCK) * BLOCK for _ in range(int(seconds * RATE))]
    samples = []
    begin = time.perf_counter_ns()
    for number, offset in enumerate(places):
        due = begin + number * 10**9 // RATE
        while (early := due - time.perf_counter_ns()) > 0:
            time.sleep(early / 1e9)
        wall = time.time_ns()
        sent = time.perf_counter_ns()
        client.write(offset, block)
        samples.append((wall, time.perf_counter_ns() - sent, sent - due))
    return samples


def main():
    gc.disable()
    with NbdClient(sys.argv[1], timeout=300) as client:
        for line in sys.stdin:
            order = json.loads(line)
            answer = (fill(client, order["fill"]) if "fill" in order
                      else pace(client, order["pace"], order["bytes"]))
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
