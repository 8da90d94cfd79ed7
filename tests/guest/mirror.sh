#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: mirror.py, a volume whose primary is a mirror of two disks.
#
# Usage: mirror.sh BUILD SEED; /dev/vda and /dev/vdb are the two disks, /dev/vdc the store's.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest-lib.sh" "$1"

modprobe -a dm_mod md_mod raid1 ext4
check "a mirror" /usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/mirror.py" "$build" "$2"
finish
