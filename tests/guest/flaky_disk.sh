#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: flaky_disk.py, on one kind of file system after the other.
#
# Usage: flaky_disk.sh BUILD SEED; /dev/vda and /dev/vdb are scratch disks.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest-lib.sh" "$1"
seed=$2

modprobe -a dm_mod dm_flakey ext4 xfs
for fs in ext4 xfs; do
    check "$fs" /usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/flaky_disk.py" \
        "$build" "$fs" "$seed"
done
finish
