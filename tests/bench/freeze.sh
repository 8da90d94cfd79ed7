#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# How long a process stands still for a checkpoint with its disk, against a dump by CRIU alone: with
# little and with much changed on the disk since the last checkpoint, all in turn. In a guest with
# Debian's kernel, in emulation: so times are for comparison within one run only.
#
# Usage: freeze.sh [--build DIR] [--rounds N] [--out FILE]
#   --build    [build, of this tree]
#   --rounds   of all three, in turn [7]
#   --out      the figures as JSON
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
build=$here/../../build
rounds=7
out=

while (($# > 0)); do
    case $1 in
    --build | --rounds | --out) (($# >= 2)) || { sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 2; } ;;&
    --build) build=$2; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    *) sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 2 ;;
    esac
done

"$here/../guest/prepare.sh"
folder=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-freeze.XXXXXX")
trap 'rm -rf "$folder"' EXIT
truncate -s 4G "$folder/drive"
"$here/../guest/run-in-guest.sh" --drive "$folder/drive" --timeout $((300 + rounds * 180)) \
    "$here/freeze_guest.sh" "$folder" "$(realpath -e "$build")" "$rounds" || {
    tail -n 30 "$folder/console.log" >&2
    exit 1
}
cat "$folder/freeze.txt"
[[ -z $out ]] || cp "$folder/freeze.json" "$out"
