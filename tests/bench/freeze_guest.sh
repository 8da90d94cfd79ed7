#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The part of freeze.sh that runs in the guest.
#
# Usage: freeze_guest.sh BUILD ROUNDS; /dev/vda is a scratch disk; leaves /out/freeze.{json,txt}.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$here/../guest/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$here/../guest/kernel-client.sh"

load_criu_modules
prepare_scratch 1G
start_server "$image"
attach
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
mount "$disk" "$mnt"
/usr/bin/python3 -S "$here/freeze.py" "$build/tools/ckpt-tool" "$image" "$mnt" /run/scratch "$2" \
    /out/freeze.json /out/freeze.txt
