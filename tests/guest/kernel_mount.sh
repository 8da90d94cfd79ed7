#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: what docs/kernel-mount.md says about the kernel's NBD client, nbd-client 3.24 and a server that
# ends under a mount.
#
# Usage: kernel_mount.sh BUILD; /dev/vda is a scratch disk.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/kernel-client.sh"

make_file_system() { mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"; }

image_blocks() { stat -c %b "$image"; }

writes() { # FILE: whether data gets to the disk
    timeout 30 sh -c "echo $1 >$mnt/$1 && sync $mnt/$1" 2>/dev/null
}

reads() { # FILE: from the disk, and not from a cache
    echo 3 >/proc/sys/vm/drop_caches
    timeout 30 cat "$mnt/$1" >/dev/null 2>&1
}

restart_server() {
    kill -KILL "$server"
    wait "$server" || true
    check "while no server runs, writes fail" fails writes "$1-lost"
    start_server "$image"
}

# What follows a server that ended: the same for every way to attach.
recover() { # NAME
    umount "$mnt"
    detach
    attach
    mount "$disk" "$mnt"
    equal "$1: what was synced before is there" "$1" "$(cat "$mnt/$1")"
    check "$1: it can be written again" writes "$1-again"
    umount "$mnt"
    check "$1: e2fsck finds nothing to repair" e2fsck -fn "$disk"
    detach
}

# The kernel gives a mount up with its connection, and takes no other for it.
server_ends() { # NAME OPTION...
    local name=$1
    shift
    attach "$@"
    mount "$disk" "$mnt"
    check "$name: it can be written" writes "$name"
    restart_server "$name"
    sleep 3 # nbd-client tries again every second where it does
    check "$name: the mount does not come back for reads" fails reads "$name"
    check "$name: nor for writes" fails writes "$name-late"
    recover "$name"
}

trims() {
    attach
    mount "$disk" "$mnt"
    dd if=/dev/urandom of="$mnt/big" bs=1M count=32 status=none
    sync -f "$mnt"
    local before
    before=$(image_blocks)
    rm "$mnt/big"
    sync -f "$mnt"
    fstrim "$mnt"
    sync "$image"
    check "fstrim frees the image's space" test "$(image_blocks)" -lt $((before - 50000))
    umount "$mnt"
    detach
}

# A server that takes long is no server that has ended.
waits_for_a_slow_server() {
    attach
    mount "$disk" "$mnt"
    writes slow || die "cannot write"
    kill -STOP "$server"
    (sleep 8; kill -CONT "$server") &
    SECONDS=0
    check "a server that hangs is waited for" reads slow
    check "it did hang" test "$SECONDS" -ge 6
    umount "$mnt"
    detach
}

several_connections() {
    check "four connections are refused without multi-conn=on" fails attach -connections 4
    stop_server
    start_server "$image" multi-conn=on
    check "with it they are not" attach -connections 4
    mount "$disk" "$mnt"
    check "they write" writes four
    umount "$mnt"
    detach
    stop_server
    start_server "$image"
}

# A client that is not detached first loses the disk: nothing of its cache gets onto what was restored.
fences_a_mount() {
    attach
    mount "$disk" "$mnt"
    writes kept || die "cannot write"
    check "a checkpoint under the mount" ckpt checkpoint "$image"
    writes lost || die "cannot write"
    check "a rollback under the mount is refused" fails ckpt rollback "$image" --yes
    check "but for one that fences" ckpt rollback "$image" --yes --clients=fence
    check "the mount can no longer write" fails writes late
    check "nor read" fails reads kept
    umount "$mnt"
    detach
    check "no client comes back before accept" fails attach
    check "accept" ckpt accept "$image"
    attach
    mount "$disk" "$mnt"
    equal "what the checkpoint had is there" kept "$(cat "$mnt/kept")"
    check "what came after it is not" test ! -e "$mnt/lost" -a ! -e "$mnt/late"
    umount "$mnt"
    check "e2fsck finds nothing to repair" e2fsck -fn "$disk"
    detach
}

prepare_scratch 128M
start_server "$image"
attach
equal "flushes and FUA are offered to the kernel" "write back 1" \
    "$(cat /sys/block/nbd0/queue/write_cache /sys/block/nbd0/queue/fua | xargs)"
make_file_system
detach
trims
waits_for_a_slow_server
several_connections
fences_a_mount
server_ends plain
server_ends persist -persist
server_ends ioctl-persist -persist -nonetlink
checkpoint_and_verify "$image"
stop_server
finish
