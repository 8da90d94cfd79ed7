#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: three programs come back with their disk after a power cut at a random moment, which
# may be one of a checkpoint or of a restore. Run again and again with the same disk and the same /out;
# all but the last time the power is cut.
#
# Usage: process_power_cut.sh BUILD first|again|last SEED; /dev/vda is the disk that stays.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$here/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$here/kernel-client.sh"
# shellcheck source-path=SCRIPTDIR
. "$here/process_programs.sh"
readonly part=$2
RANDOM=$3
# A line for each checkpoint that was answered: its number, and where the counter was before it.
readonly answered=/out/answered

load_criu_modules

# The console's line is what the power is cut at.
cut_the_power_within() { # SECONDS
    local wait=$((RANDOM % ($1 * 10)))
    (
        sleep "$((wait / 10)).$((wait % 10))"
        printf "\ncut the power now\n" # a progress bar may be on its line
        sleep 60
    ) &
}

# Now and then before the programs are back.
cut_the_power_later() { # WHEN: restoring or running
    if [[ $part == last ]]; then return; fi
    if [[ $1 == restoring ]] && ((RANDOM % 3 > 0)); then return; fi
    [[ -z ${cutting:-} ]] || return 0
    cutting=yes
    cut_the_power_within 12
}

make_checkpoints() {
    local at
    for (( ; ; )); do
        at=$(count_of count)
        check "a checkpoint" checkpoint_group
        ((failures == 0)) || finish
        echo "$(result_field checkpoint) $at" >>"$answered"
    done
}

begins() {
    prepare_scratch 256M
    start_server "$image"
    attach
    mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
    mount "$disk" "$mnt"
    start_programs
    check "the first checkpoint" checkpoint_group
    echo "$(result_field checkpoint) 0" >"$answered"
    sync -f "$answered"
}

# Its file system has a journal, as anybody's has.
find_scratch() {
    modprobe nbd
    mkdir -p /run/scratch "$mnt"
    mount /dev/vda /run/scratch
    start_server "$image"
}

comes_back() {
    find_scratch
    cut_the_power_later restoring
    check "restored after the power was cut" ckpt restore "$image" --yes
    ((failures == 0)) || finish
    local number at restored
    restored=$(result_field checkpoint)
    read -r number at < <(tail -n 1 "$answered")
    check "no answered checkpoint is lost: $restored, answered $number" test "$restored" -ge "$number"
    check "nor what it had" test "$(count_of count)" -ge "$at"
    find_group
    all_agree "after the power was cut"
}

ends() {
    end_programs
    check_disk_and_finish
}

if [[ $part == first ]]; then begins; else comes_back; fi
((failures == 0)) || finish
[[ $part != last ]] || ends
cut_the_power_later running
make_checkpoints
