# SPDX-License-Identifier: Apache-2.0
"""The back-up in another process, over loopback TCP: the sections about it, their options, and the
programs they need."""

from dataclasses import dataclass

import remote_copy
import remote_memory
import remote_rollback
import remote_throughput
from servers import MIB

NAME = "remote"  # all of them
SECTIONS = {module.SECTION: module
            for module in (remote_throughput, remote_copy, remote_rollback, remote_memory)}


@dataclass(frozen=True)
class Sizes:
    """What is not given on the command line."""
    disk: int
    changed: int
    delay: str
    volumes: int
    volume: int


FULL = Sizes(disk=1024, changed=256, delay="10,20", volumes=200, volume=16)
QUICK = Sizes(disk=512, changed=64, delay="10", volumes=50, volume=16)
SMOKE = Sizes(disk=64, changed=8, delay="10", volumes=6, volume=16)


def add_options(parser):
    group = parser.add_argument_group("the sections " + ", ".join(SECTIONS))
    group.add_argument("--smoke", action="store_true",
                       help="2 rounds of 3 s on tiny disks: shows only that it works")
    group.add_argument("--tls", action="store_true",
                       help="remote-throughput: also with TLS and keys, which psktool makes")
    group.add_argument("--disk-mib", type=int, metavar="N",
                       help="remote-copy, remote-rollback: size of the disk [1024]")
    group.add_argument("--changed-mib", type=int, metavar="N",
                       help="remote-copy, remote-rollback: how much is changed [256]")
    group.add_argument("--delay-ms", metavar="MS",
                       help="remote-rollback: delays each way, with commas [10,20]")
    group.add_argument("--volumes", type=int, metavar="N", help="remote-memory: how many [200]")
    group.add_argument("--volume-mib", type=int, metavar="N",
                       help="remote-memory: size of each [16]")


def complete(options, parser):
    """Sets what was not given, and refuses what cannot be."""
    sizes = SMOKE if options.smoke else QUICK if options.quick else FULL
    options.disk = (options.disk_mib or sizes.disk) * MIB
    options.changed = (options.changed_mib or sizes.changed) * MIB
    options.volumes = options.volumes or sizes.volumes
    options.volume = (options.volume_mib or sizes.volume) * MIB
    try:
        options.delays = [float(one) for one in (options.delay_ms or sizes.delay).split(",")]
    except ValueError:
        parser.error(f"--delay-ms {options.delay_ms}: not numbers with commas")
    least = min(options.disk, options.changed, options.volumes, options.volume, *options.delays)
    if least <= 0:
        parser.error("sizes, counts and delays must be more than 0")
    if options.changed > options.disk:
        parser.error("--changed-mib is more than --disk-mib")
    if options.volume < remote_memory.CONTENT:
        parser.error(f"--volume-mib must be at least {remote_memory.CONTENT // MIB}")
