#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: the power is cut at a step of a checkpoint or of a restore (process_step_cuts.py).
# Run again and again with the same disk and the same /out, as long as /out/points has any; then once
# more, and nothing is cut.
#
# Usage: process_step_cut.sh BUILD first|again|last POINTS SEED; /dev/vda is the disk that stays.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$here/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$here/kernel-client.sh"

begins() {
    prepare_scratch 256M
    start_server "$image"
    attach
    mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
    mount "$disk" "$mnt"
    echo 20000 >/proc/sys/kernel/ns_last_pid # no other process has it after a reboot
}

comes_back() {
    modprobe nbd
    mkdir -p /run/scratch "$mnt"
    mount /dev/vda /run/scratch
    start_server "$image"
}

load_criu_modules
if [[ $2 == first ]]; then begins; else comes_back; fi
check "process and disk around a power cut" /usr/bin/python3 "$here/process_step_cuts.py" "$build" \
    "$image" "$mnt" /run/complaints "${@:2}"
((failures == 0)) || finish
check_disk_and_finish
