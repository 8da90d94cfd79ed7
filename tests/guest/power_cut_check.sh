#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest after the power cut of power_cut_write.sh: what was flushed is there; a rollback
# gives exactly the last checkpoint that was answered, or the one in flight, in every sector; and
# the volume goes on from there.
#
# Usage: power_cut_check.sh BUILD writing|checkpoint embedded|unix|keys PARAMETER...; same /dev/vda and /out as
# power_cut_write.sh. "writing" rolls back offline, "checkpoint" through a running server.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest-lib.sh" "$1"
mode=$2 place=$3 parameters=("${@:4}")
readonly scratch=/run/scratch
readonly image=$scratch/primary.img
readonly log=/out/load.log
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/backup_place.sh"

# shellcheck disable=SC2317 # called by check()
audit() { # DISK WHAT...
    /usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/power_cut_audit.py" "$log" "$@"
}

# With 30 s to go until it would have been written out, it can only be there if the cut was none.
check_canary() {
    [[ $mode == writing ]] || return 0
    check "the cut took what was in the page cache only" test ! -s "$scratch/canary"
}

roll_back() {
    check "rollback" ckpt rollback "$image" --yes
    checkpoint=$(result_field checkpoint)
    check "the image is exactly checkpoint $checkpoint" audit "$image" checkpoint "$checkpoint"
}

# The power went while a client was connected: an offline rollback keeps clients out until told.
roll_back_offline() {
    roll_back
    read_state "$image"
    equal "no client gets in before accept" fenced "$state"
    check "accept" ckpt accept "$image"
    start_server_at "$place" "${parameters[@]}"
}

roll_back_online() {
    start_server_at "$place" "${parameters[@]}"
    roll_back
    read_state "$image"
    [[ $state != fenced ]] || check "accept" ckpt accept "$image"
}

# The next checkpoint is a complete one, and its number is new.
go_on() {
    check "clients see checkpoint $checkpoint too" \
        audit "nbd+unix:///?socket=$socket" checkpoint "$checkpoint"
    local restored=$checkpoint
    checkpoint_and_verify "$image"
    check "its number is new" test "$checkpoint" -gt "$restored"
    stop_server
    [[ $place == embedded ]] || stop_backupd
}

e2fsck -p /dev/vda || (($? == 1)) || die "the guest's own file system did not survive"
mkdir -p "$scratch"
mount /dev/vda "$scratch"
check_canary
check "everything flushed survived" audit "$image" flushed
if [[ $mode == writing ]]; then roll_back_offline; else roll_back_online; fi
go_on
finish
