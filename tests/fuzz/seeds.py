#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The first inputs of every target, out of golden files and the examples of the format pages. What
fuzzing found lies beside them, under names of its own.

Usage: seeds.py [CORPUS]"""

import re
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "unit/golden"
DOCS = HERE.parents[1] / "docs"
FRAME_BYTES = 64  # before the body of each message of the wire

# By their place in wire.cc's list of bodies.
MESSAGES = ["hello", "welcome", "greeting", "accept", "batch", "confirm", "roll-back", "read",
            "read-ranges", "digests", "digest-list", "attach", "read-attachment", "next-data",
            "data-range", "export", "export-begins", "content", "hole", "checkpoints",
            "checkpoint-list", "store-status", "failed", "piece", "name", "volumes", "volume-list",
            "begin-session", "stale", "stale-list", "confirm-copy", "forks", "release", "promote"]


def golden(name):
    return (GOLDEN / name).read_bytes()


def examples(page, start='{"'):
    """The lines of a page that are an object."""
    lines = re.sub(r"^[CS] ", "", (DOCS / page).read_text(), flags=re.M).splitlines()
    return [line.encode() for line in lines if line.startswith(start)]


def numbered(name, inputs):
    return {f"{name}/{number}": content for number, content in enumerate(inputs, 1)}


def payload_of_slot(content):
    """Of the newest generation of a `volume` file (docs/volume-format.md)."""
    slots = [content[at:at + (64 << 10)] for at in range(0, len(content), 64 << 10)]
    newest = max((slot for slot in slots if any(slot)),
                 key=lambda slot: struct.unpack_from("<Q", slot, 8)[0])
    return newest[64:64 + struct.unpack_from("<I", newest, 16)[0]]


def confirm_records(journal):
    """The bodies of the confirm records of a journal file (docs/journal-format.md)."""
    at, found = 128, []
    while at + 64 <= len(journal):
        kind, _, length = struct.unpack_from("<HHQ", journal, at + 4)
        if kind == 2:
            found.append(journal[at + 64:at + 64 + length])
        at += 64 + length
    return found


def binary():
    journals = [golden(f"store/journal-{number:020}") for number in (2, 3)]
    yield from {f"message/{name}": bytes([index]) + golden(f"wire/{name}")[FRAME_BYTES:]
                for index, name in enumerate(MESSAGES)}.items()
    yield from {f"frame/{name}": golden(f"wire/{name}") for name in MESSAGES}.items()
    yield from {f"batch/{name}": golden(f"batch/{name}") for name in ("plain", "zstd")}.items()
    yield "piece/plain", golden("attachment/piece")
    yield from numbered("journal", journals).items()
    yield from numbered("confirm", [one for journal in journals
                                    for one in confirm_records(journal)]).items()
    yield "store-record/example", payload_of_slot(golden("store/volume"))
    yield "volume-record/example", payload_of_slot(golden("volume/volume"))
    yield "saved-map/example", golden("volume/saved-map")


def lines():
    control = examples("control-protocol.md", '{"schema"')
    requests = [line for line in control if b'"command"' in line]
    requests += [b'{"schema":1,"command":"%s"}' % word
                 for word in (b"status", b"list", b"verify", b"accept", b"export")]
    requests += [b'{"schema":1,"command":"attachment","checkpoint":"last","name":"vm"}',
                 b'{"schema":1,"command":"checkpoint","attachments":["a","b c"],"timeout_ms":5}']
    yield from numbered("request", requests).items()
    yield from numbered("answer", [line for line in control if b'"type"' in line]).items()
    yield "piece-line/piece", b'{"schema":1,"type":"piece","index":1,"length":4096}'
    yield "piece-line/end", b'{"schema":1,"type":"end"}'
    yield from numbered("event", examples("events-format.md")).items()
    yield from numbered("process-record", examples("process-format.md")).items()
    yield from numbered("vm-record", examples("vm-format.md")).items()


def texts():
    yield "parameters/local", (b"file=/a\nsize=1G\nstate=/b\nbackup=embedded:/c\n"
                               b"batch-bytes=4M\nbatch-delay=100\ncompress=zstd:3\nio=sync\n"
                               b"direct=on\ncheckpoint-interval=30\nmulti-conn=on\n"
                               b"takeover=refuse\nformat=raw")
    yield "parameters/certificates", (b"backup=[::1]:7000\ntls=require\ntls-certificates=/e\n"
                                      b"tls-verify-peer=on\ncompress=none")
    yield "parameters/keys", b"backup=host:7000\ntls=require\ntls-psk=/f"
    yield "configuration/all", (
        b'listen = ["tcp:[::]:7000", "unix:/a"]\nstore = "/b"\npidfile = "/c"\nsilence = 9\n'
        b'tls = "require"\ntls-certificates = "/d"\ntls-psk = "/e"\ntls-verify-peer = true\n'
        b'[[allow]]\nidentity = "web1"\nvolume = "2063e5af-f7c0-4935-8d96-6b9e95fde9cc"\n'
        b'operations = ["status", "read", "write", "create"]\n'
        b'[[allow]]\nidentity = ["a", "*"]\nvolume = "*"\noperations = ["status"]\n')
    yield "configuration/nobody", b"allow = []\n"
    yield from {f"address/{name}": text for name, text in (
        ("unix", b"unix:/run/a b"), ("host", b"example.org:7000"), ("v6", b"[::1]:7000"))}.items()
    yield "mounts/three", (
        b"36 35 43:0 / /mnt\\040a rw,noatime shared:1 - ext4 /dev/nbd0 rw,errors=continue\n"
        b"37 35 0:21 / /proc rw - proc proc rw\n38 35 7:0 /sub /b ro master:2 - xfs /dev/loop0 ro\n")
    yield "printable/mixed", b"a\tb\x1b[31m \xc3\xa4 \xff\xed\xa0\x80"


def machines():
    disks = (b'[{"device":"","qdev":"/machine/a","inserted":{"drv":"nbd","ro":false,"file":'
             b'"nbd+unix://?socket=/run/a%20b"}},{"device":"cd0"},{"device":"z","inserted":{"drv":'
             b'"raw","ro":false,"file":"json:{\\"driver\\":\\"nbd\\",\\"server\\":{\\"type\\":'
             b'\\"inet\\",\\"host\\":\\"::1\\",\\"port\\":\\"7\\"}}"}}]')
    facts = [b'{"qemu":{"major":7,"minor":2,"micro":22}}', b'"pc-i440fx-7.2-machine"',
             b'{"base-memory":134217728}', b'[{"qom-type":"max-x86_64-cpu"}]',
             b'[{"name":"a","type":"child<virtio-blk-pci>"}]', b'[]']
    agent = [b'[{"name":"b","type":"child<virtserialport>"}]', b'[]', b'"org.qemu.guest_agent.0"',
             b'"c"', b'[{"label":"c","filename":"disconnected:unix:/run/d,server=on"}]']
    yield "machine/all", b"\n".join([disks, *facts, *agent, b'{"status":"running"}'])
    yield "machine/disks", disks
    # A snapshot's entry at 128, its L1 table at 256, an L2 table at 512 (QEMU's qcow2.txt).
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 21, 1 << 20, 0, 1, 192, 0, 0, 1, 128)
    entry = struct.pack(">QIHHIIQIIQ", 256, 2, 1, 4, 0, 0, 0, 0, 16, 3000)
    image = bytearray(4096)
    image[:len(header)] = header
    image[128:128 + len(entry)] = entry
    struct.pack_into(">QQ", image, 256, 0, 512)
    struct.pack_into(">Q", image, 512, 1024)
    yield "side-image/small", bytes(image)


def main(corpus):
    for name, content in [*binary(), *lines(), *texts(), *machines()]:
        path = Path(corpus) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else HERE / "corpus")
