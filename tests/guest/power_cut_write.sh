#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest, and does not end: the driver cuts the power when the load asks for it on the
# console. Then power_cut_check.sh runs in another guest with the same disk and the same /out.
#
# Usage: power_cut_write.sh BUILD writing|checkpoint CHECKPOINTS SEED embedded|unix|keys PARAMETER...; /dev/vda is
# the disk that stays, with the image, its state directory, and the back-up on it. The parameters are the
# server's.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest-lib.sh" "$1"
mode=$2 checkpoints=$3 seed=$4 place=$5
readonly scratch=/run/scratch
readonly image=$scratch/primary.img

# The two kinds of loss: everything that was not synced (the guest lives for less than the 30 s
# after which the kernel would write it out), or any part of it, written out in whatever order.
choose_writeback() {
    [[ $mode == checkpoint ]] || return 0
    echo 10 >/proc/sys/vm/dirty_writeback_centisecs
    echo 20 >/proc/sys/vm/dirty_expire_centisecs
}

choose_writeback
mkfs.ext4 -q /dev/vda
mkdir -p "$scratch"
mount /dev/vda "$scratch"
truncate -s 64M "$image"
sync -f "$scratch"
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/backup_place.sh"
make_keys
start_server_at "$place" "${@:6}"
/usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/power_cut_load.py" "$socket" "$image" \
    "$build/tools/ckpt-tool" /out/load.log "$scratch/canary" "$mode" "$checkpoints" "$seed"
die "the load ended"
