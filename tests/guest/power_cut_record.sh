#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: records every write of two file systems, one with the primary and its state
# directory, one with the store, while power_cut_states_load.py runs. power_cut_states.py replays
# it.
#
# Usage: power_cut_record.sh BUILD PRIMARY_FS STORE_FS SEED; /dev/vda has the two file systems, half
# a disk each, and /dev/vdb takes the log. Both are on one log-writes device, so that there is one
# order of what was done to them. Which half a flush was for is in the log, too (write_log.py): so
# they can be taken for two disks with a cache each.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest-lib.sh" "$1"
primary_fs=$2 store_fs=$3 seed=$4
readonly image=/media/primary/disk.img

# Without udev nobody else makes the nodes, or answers dmsetup's cookie.
new_device() { # NAME TABLE
    dmsetup create "$1" --noudevsync --table "$2"
    dmsetup mknodes "$1"
}

half() { # NAME START
    new_device "$1" "0 $half_sectors linear /dev/mapper/both $2"
}

# Flushes end up in the log, and are not sent to /dev/vda, which nobody takes away: so each ends in
# the moment in which it began (write_log.py says why).
set_up_disks() {
    modprobe -a dm_mod dm_log_writes "$primary_fs" "$store_fs"
    echo "write through" >/sys/block/vda/queue/write_cache
    half_sectors=$(($(blockdev --getsz /dev/vda) / 2))
    new_device both "0 $((half_sectors * 2)) log-writes /dev/vda /dev/vdb"
    half primary 0
    half store "$half_sectors"
}

mount_disks() {
    mkdir -p /media/primary /media/store
    mount -t "$primary_fs" /dev/mapper/primary /media/primary
    mount -t "$store_fs" /dev/mapper/store /media/store
    mountpoint -d /media/primary >/out/device
}

# shellcheck disable=SC2317 # called by wait_until()
checkpoint_exists() {
    ckpt list "$image" && [[ $tool_result == *'"checkpoint":1,'* ]]
}

# Some of what was written, whenever it may be, and not after 30 s only.
echo 10 >/proc/sys/vm/dirty_writeback_centisecs
echo 20 >/proc/sys/vm/dirty_expire_centisecs
set_up_disks
mount_disks
truncate -s 64M "$image"
sync
start_server "$image" backup=embedded:/media/store/ckpt
wait_until "the first copy is made" checkpoint_exists
/usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/power_cut_states_load.py" "$socket" "$image" \
    "$build/tools/ckpt-tool" /out/load.log "$seed" || die "the load failed"
sleep 1 # the last mark is in the log, as are all before it
check "the log is whole" fails grep -q disabled <(dmsetup status both)
finish
