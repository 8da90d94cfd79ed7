#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: the tool dies at each step of a checkpoint and of a restore (process_steps.py).
#
# Usage: process_steps.sh BUILD POINTS SEED; /dev/vda is a scratch disk.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$here/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$here/kernel-client.sh"

load_criu_modules
prepare_scratch 256M
start_server "$image"
attach
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
mount "$disk" "$mnt"
echo 20000 >/proc/sys/kernel/ns_last_pid
check "deaths of the tool at its steps" /usr/bin/python3 "$here/process_steps.py" "$build" "$image" \
    "$mnt" /run/complaints "$2" "$3"
check_disk_and_finish
