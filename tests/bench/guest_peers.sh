#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What protection costs a mounted file system: dm-snapshot, DRBD and ckpt, each against the same disk without it.
# In a guest with Debian's kernel, in emulation, where a round trip to a server is dear: so each is compared
# with its own base, and only within one run.
#
# Usage: guest_peers.sh [--build DIR] [--rounds N] [--seconds S] [--out FILE]
#   --build     [build, of this tree]
#   --rounds    of all, in turn [7]
#   --seconds   of each load [5]
#   --out       the figures as JSON
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
build=$here/../../build
rounds=7
seconds=5
out=

while (($# > 0)); do
    case $1 in
    --build | --rounds | --seconds | --out) (($# >= 2)) || { sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 2; } ;;&
    --build) build=$2; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    *) sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 2 ;;
    esac
done

# The guest sees this machine's programs.
for package in drbd-utils fio dmsetup; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed' ||
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "$package" >&2
done
"$here/../guest/prepare.sh" >&2
folder=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-guest-peers.XXXXXX")
trap 'rm -rf "$folder"' EXIT
truncate -s 4G "$folder/drive"
"$here/../guest/run-in-guest.sh" --drive "$folder/drive" --timeout $((300 + rounds * (120 + seconds * 40))) \
    "$here/guest_peers_guest.sh" "$folder" "$(realpath -e "$build")" "$rounds" "$seconds" || {
    tail -n 30 "$folder/console.log" >&2
    exit 1
}
cat "$folder/peers.txt"
[[ -z $out ]] || cp "$folder/peers.json" "$out"
