#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The part of guest_peers.sh that runs in the guest.
#
# Usage: guest_peers_guest.sh BUILD ROUNDS SECONDS; /dev/vda is a scratch disk; leaves /out/peers.{json,txt}.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
modprobe nbd
modprobe brd rd_nr=2 rd_size=196608
modprobe dm_snapshot
modprobe drbd
ip link set lo up
mkdir -p /run/scratch /run/mnt /run/lock /var/lib/drbd
mkfs.ext4 -q /dev/vda
mount /dev/vda /run/scratch
exec /usr/bin/python3 -S "$here/guest_peers.py" "$1" "$2" "$3" /out/peers.json /out/peers.txt
