#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: a mounted ext4 on the kernel's own NBD client, a checkpoint under the mount,
# more work, a rollback. Every file is as at the checkpoint, and so is every byte of the disk.
#
# Usage: nbd_rollback.sh BUILD; /dev/vda is a scratch disk.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/kernel-client.sh"

readonly at_checkpoint=/run/scratch/primary.at-checkpoint
readonly file_count=300

mount_disk() { mount -o noatime "$disk" "$mnt"; }

# Real files: the distribution's Python library is on every machine that can run this.
copy_files() {
    local list=/run/files
    find /usr/lib/python3.* -type f -size -200k | sort | awk -v n="$file_count" 'NR <= n' >"$list"
    (($(wc -l <"$list") == file_count)) || die "fewer than $file_count files to copy"
    tar -C / -cf - -T "$list" 2>/dev/null | tar -C "$mnt" -xf -
    ln -s "$(awk 'NR == 1' "$list")" "$mnt/link"
}

# Everything there is on the mount: names, types, modes, sizes, targets, times, and contents.
describe() {
    (cd "$mnt" && find . -printf '%p %y %m %s %l %T@\n' && find . -type f -exec sha256sum {} +) |
        sort
}

# Deletes, overwrites, appends, moves, copies and creates; hands the freed blocks back (a trim). In
# few processes: each costs a tenth of a second here.
more_work() {
    local files file n=0 doomed=() moved=() copied=()
    mapfile -t files < <(find "$mnt/usr" -type f | sort)
    for file in "${files[@]}"; do
        case $((n++ % 6)) in
        0) doomed+=("$file") ;;
        1) printf '%8192s' overwritten 1<>"$file" ;;
        2) echo "appended" >>"$file" ;;
        3) moved+=("$file") ;;
        4) copied+=("$file") ;;
        esac
    done
    mkdir "$mnt/moved" "$mnt/copied"
    rm "${doomed[@]}"
    mv --backup=numbered -t "$mnt/moved" "${moved[@]}"
    cp --backup=numbered -t "$mnt/copied" "${copied[@]}"
    dd if=/dev/urandom of="$mnt/new" bs=1M count=16 status=none
    sync -f "$mnt"
    fstrim "$mnt"
}

same_image() { cmp -s "$image" "$at_checkpoint"; }

# The state of another disk of the same size, on the mounted export.
refuses_own_export() {
    truncate -s 256M /run/scratch/other.img
    local code=0
    timeout 20 nbdkit -f -U /run/other.sock "$build/plugin/nbdkit-ckpt-plugin.so" \
        /run/scratch/other.img "state=$mnt/state" >/run/other.log 2>&1 || code=$?
    sed 's/^/# /' /run/other.log
    [[ $code == 1 && ! -e $mnt/state ]] && grep -q "nbd0, a network block device" /run/other.log
}

# Takes a checkpoint that is known byte by byte: a copy of the image made before it that still
# equals the image after it. The file system is mounted and may write in between: then once more.
checkpoint_with_copy() {
    local tries
    for ((tries = 0; tries < 5; tries++)); do
        sync -f "$mnt"
        cp --sparse=always "$image" "$at_checkpoint"
        ckpt checkpoint "$image" --name mounted-$tries || die "the checkpoint failed"
        if same_image; then return; fi
    done
    die "the mounted file system never was quiet for the time of a checkpoint"
}

prepare_scratch 256M
start_server "$image"
attach
# No lazy initialisation: it would write to the disk at times of its own.
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
mount_disk
check "a state directory on such an export is refused" refuses_own_export
copy_files
checkpoint_with_copy
checkpoint=$(result_field checkpoint)
equal "the checkpoint is confirmed" confirmed "$(result_field state)"
describe >/run/files.at-checkpoint

more_work
describe >/run/files.later
cmp -s /run/files.at-checkpoint /run/files.later && die "the work after the checkpoint did nothing"
umount "$mnt"
detach
same_image && die "the work after the checkpoint did not reach the disk"

check "rollback" ckpt rollback "$image" --yes
equal "it went back to the checkpoint" "$checkpoint" "$(result_field checkpoint)"
check "every byte of the image is as at the checkpoint" same_image

attach
# Mounted at the checkpoint, so its journal has to be replayed before fsck may call it clean.
check "the disk says it was mounted" grep -q needs_recovery <(dumpe2fs -h "$disk" 2>/dev/null)
check "it mounts" mount_disk
describe >/run/files.restored
check "every file is as at the checkpoint, and no other" \
    diff /run/files.at-checkpoint /run/files.restored
umount "$mnt"
check "e2fsck finds nothing to repair" e2fsck -fn "$disk"

checkpoint_and_verify "$image"
detach
stop_server
finish
