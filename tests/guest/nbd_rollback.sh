#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: a mounted ext4 on the kernel's own NBD client, a checkpoint under the mount,
# more work, a rollback. Every file is as at the checkpoint, and so is every byte of the disk and of its
# back-up. A backupd is killed and started again in the middle of the first copy, of the work, of the
# checkpoint and of the rollback.
#
# Usage: nbd_rollback.sh BUILD embedded|unix|keys...: where the back-up is, one after the other; with keys
# the server's I/O is direct. /dev/vda is a scratch disk.
# shellcheck disable=SC2317,SC2119 # functions are called by name; attach takes options, and needs none
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/kernel-client.sh"
readonly scratch=/run/scratch
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/backup_place.sh"

readonly at_checkpoint=$scratch/primary.at-checkpoint
readonly file_count=300
readonly marker=/run/before-the-strike

mount_disk() { mount -o noatime "$disk" "$mnt"; }

# Real files: the distribution's Python library is on every machine that can run this.
copy_files() {
    local list=/run/files
    find /usr/lib/python3.* -type f -size -200k | sort | awk -v n="$file_count" 'NR <= n' >"$list"
    (($(wc -l <"$list") == file_count)) || die "fewer than $file_count files to copy"
    tar -C / -cf - -T "$list" 2>/dev/null | tar -C "$mnt" -xf -
    ln -s "$(awk 'NR == 1' "$list")" "$mnt/link"
    sync -f "$mnt"
    # Does not shrink on its way to the store.
    dd if=/dev/urandom of="$mnt/random" bs=1M count=16 status=none
    sync -f "$mnt"
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

same_backup() {
    find_backup_image
    cmp "$backed_up" "$at_checkpoint"
}

has_backupd() { [[ $place != embedded ]]; }

# A checkpoint, the first one too, is on its way to the store. What is older may vanish meanwhile: it is
# applied.
ships() {
    local bytes
    bytes=$({ find "$shelf" -path '*/journal/*' -newer "$marker" -printf '%s\n' 2>/dev/null || true; } |
        awk '{sum += $1} END {print sum + 0}')
    ((bytes > 65536))
}

# The primary is being written: by its client, or by a rollback. (What a client writes is not shipped
# ahead where processors are short.)
is_written() { [[ $image -nt $marker ]]; }

# Has it begun to do what it is killed in, or has the work ended without?
in_the_middle_or_over() { "$1" || ! kill -0 "$work" 2>/dev/null; }

strike() { # CONDITION: when backupd is killed
    wait_until "backupd is in the middle: $1" in_the_middle_or_over "$1"
    kill -KILL "$backupd"
    wait "$backupd" || true
    kill -0 "$work" 2>/dev/null || die "backupd was killed too late: $1"
}

# Backupd dies while the command runs, and is dead afterwards; if it was dead before, it is there again
# once the command has begun. Sets work, the command's process.
strike_during() { # CONDITION COMMAND...
    local condition=$1
    shift
    touch "$marker"
    "$@" &
    work=$!
    kill -0 "$backupd" 2>/dev/null || start_backupd_with_keys
    strike "$condition"
}

# In a process of its own; what came of it is found by tool_answers.
ask() { ckpt "$@" || true; }

tool_answers() {
    start_backupd_with_keys
    wait "$work"
    read_tool_result
    [[ $(result_field type) == result ]]
}

# Backupd dies when the checkpoint is asked for the first time: that one may be void.
take_checkpoint() { # TRY NAME
    if has_backupd && (($1 == 0)); then
        strike_during ships ask checkpoint "$image" --name "$2"
        tool_answers || [[ $(result_field kind) == void ]] || die "what became of the checkpoint?"
    else
        ckpt checkpoint "$image" --name "$2" || die "the checkpoint failed"
    fi
}

roll_back() {
    if has_backupd; then
        strike_during is_written ask rollback "$image" --yes
        tool_answers
    else
        ckpt rollback "$image" --yes
    fi
}

# Backupd stays away until the checkpoint, which so has most of the files to ship.
fill_disk() {
    if has_backupd; then
        strike_during is_written copy_files
        check "the work does not notice that backupd is dead" wait "$work"
    else
        copy_files
    fi
}

is_protected() { ckpt status "$image" >/dev/null && [[ $(result_field protected) == True ]]; }

# Of an image with content, if it is to take long enough to be interrupted.
first_copy() {
    if has_backupd; then head -c 24M /dev/urandom | dd of="$image" conv=notrunc status=none; fi
    touch "$marker"
    start_server_at "$place" "${parameters[@]}"
    if has_backupd; then
        work=$server
        strike ships
        check "the server goes on" ckpt status "$image"
        equal "backupd is killed in the middle of the first copy" None "$(result_field last_checkpoint)"
        start_backupd_with_keys
    fi
    wait_until "the first copy" is_protected
}

# The state of another disk of the same size, on the mounted export.
refuses_own_export() {
    truncate -s 256M "$scratch/other.img"
    local code=0
    timeout 20 nbdkit -f -U /run/other.sock "$build/plugin/nbdkit-ckpt-plugin.so" \
        "$scratch/other.img" "state=$mnt/state" >/run/other.log 2>&1 || code=$?
    sed 's/^/# /' /run/other.log
    [[ $code == 1 && ! -e $mnt/state ]] && grep -q "nbd0, a network block device" /run/other.log
}

# Takes a checkpoint that is known byte by byte: a copy of the image made before it that still
# equals the image after it. The file system is mounted and may write in between: then once more. So it
# is if the store died before it was told to confirm.
checkpoint_with_copy() {
    local tries
    for ((tries = 0; tries < 5; tries++)); do
        sync -f "$mnt"
        cp --sparse=always "$image" "$at_checkpoint"
        take_checkpoint "$tries" "mounted-$tries"
        if [[ $(result_field state) == confirmed ]] && same_image; then return; fi
    done
    die "the mounted file system never was quiet for the time of a checkpoint"
}

make_disk() {
    attach
    # No lazy initialisation: it would write to the disk at times of its own.
    mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
    mount_disk
}

work_on_it() {
    # Wherever its back-up is: so once is enough.
    has_backupd || check "a state directory on such an export is refused" refuses_own_export
    fill_disk
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
    return 0
}

go_back() {
    check "rollback" roll_back
    equal "it went back to the checkpoint" "$checkpoint" "$(result_field checkpoint)"
    check "every byte of the image is as at the checkpoint" same_image
    check "and every byte of the back-up" same_backup
}

look_at_it() {
    attach
    # Mounted at the checkpoint, so its journal has to be replayed before fsck may call it clean.
    check "the disk says it was mounted" grep -q needs_recovery <(dumpe2fs -h "$disk" 2>/dev/null)
    check "it mounts" mount_disk
    describe >/run/files.restored
    check "every file is as at the checkpoint, and no other" \
        diff /run/files.at-checkpoint /run/files.restored
    umount "$mnt"
    check "e2fsck finds nothing to repair" e2fsck -fn "$disk"
}

go_on() {
    checkpoint_and_verify "$image"
    detach
    stop_server
    find_backup_image
    check "at the end the back-up is the disk, in every byte" cmp "$backed_up" "$image"
}

prepare_scratch 256M
make_keys
for place in "${@:2}"; do
    parameters=()
    if [[ $place == keys ]]; then parameters=(direct=on); fi
    echo "# the back-up is: $place; ${parameters[*]}"
    rm -rf "$image" "$image.ckpt" "$scratch/other.img"
    truncate -s 256M "$image"
    first_copy
    make_disk
    work_on_it
    go_back
    look_at_it
    go_on
done
[[ -z ${backupd:-} ]] || stop_backupd
finish
