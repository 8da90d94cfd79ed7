#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: where the kernel has no NBD client, `ckpt-tool run` makes its disk of nbdfuse and a loop
# device, and CRIU saves and restores a command that has files open there.
#
# Usage: run_on_fuse.sh BUILD; /dev/vda is a scratch disk.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$here/guest-lib.sh" "$1"

readonly tool=$build/tools/ckpt-tool
readonly image=/run/scratch/primary.img mnt=/run/mnt
readonly complaints=/run/complaints events=/run/run.out
# As ps shows it.
readonly counter='^/usr/bin/python3.*counter.py'

# CRIU asks the kernel for these, to know of sockets.
for module in fuse loop ext4 unix_diag tcp_diag udp_diag inet_diag netlink_diag af_packet_diag; do
    modprobe "$module"
done
find /lib/modules -name 'nbd.ko*' -delete
depmod

has_event() { grep -q "\"event\":\"$1\"" "$events"; }
# 0 while there is no file: the disk goes back.
number_in_file() { echo $((10#0$(head -c 20 "$mnt/count" 2>/dev/null))); }
has_moved() { (($(number_in_file) > $1)); }
counts_on() { wait_until "the counter to go on" has_moved "$(number_in_file)"; }

start_run() { # OPTION...
    "$tool" --json run "$image" --fs "$mnt" --every 2 "$@" -- /usr/bin/python3 -S \
        "$here/counter.py" "$mnt/count" "$complaints" >"$events" </dev/null &
    runner=$!
    wait_until "a checkpoint" has_event checkpoint
}

ends_well() {
    check "it stops when it is told" wait "$runner"
    sed 's/^/# /' "$events"
    check "the command has ended" fails pgrep -f "$counter"
    check "memory and file always agreed" test ! -e "$complaints"
    check "the disk is unmounted" fails mountpoint -q "$mnt"
    equal "and no loop device is left" "" "$(losetup --list --noheadings)"
}

comes_back_after_a_crash() {
    start_run
    check "it is a loop device that is mounted" grep -q "^/dev/loop[0-9]* $mnt ext4 " /proc/mounts
    pkill -SEGV -f "$counter"
    wait_until "it is restored" has_event restored
    check "it counts on" counts_on
    kill -TERM "$runner"
    ends_well
}

# Told to stop, it is saved as it is, and goes on from there.
is_suspended() {
    start_run --suspend
    kill -TERM "$runner"
    ends_well
    start_run --resume
    check "it was restored" has_event restored
    check "it counts on" counts_on
    kill -TERM "$runner"
    ends_well
}

has_file() { [[ -s /run/disk.file ]]; }

# Without `run`: somebody's own nbdfuse, loop device and process.
is_restored() {
    : >/run/disk.file
    setsid nbdfuse /run/disk.file --unix "$socket" >/run/nbdfuse.log 2>&1 &
    wait_until "nbdfuse to serve the disk" has_file
    mount "$(losetup --find --show /run/disk.file)" "$mnt"
    rm "$mnt/count"
    setsid /usr/bin/python3 -S "$here/counter.py" "$mnt/count" "$complaints" </dev/null >/dev/null 2>&1 &
    wait_until "the counter's start" test -s "$mnt/count"
    check "a checkpoint of disk and process" ckpt checkpoint "$image" --criu $! --fs "$mnt"
    pkill -SEGV -f "$counter"
    check "restored after SIGSEGV" ckpt restore "$image" --yes
    check "it counts on" counts_on
    check "memory and file agree" test ! -e "$complaints"
    check "restored while it runs" ckpt restore "$image" --yes
    check "it counts on" counts_on
    check "memory and file agree" test ! -e "$complaints"
    pkill -KILL -f "$counter"
    umount "$mnt"
    losetup --detach-all
    fusermount3 -u /run/disk.file
}

mkfs.ext4 -q /dev/vda
mkdir -p /run/scratch "$mnt"
mount /dev/vda /run/scratch
truncate -s 256M "$image"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$image"
start_server "$image"
comes_back_after_a_crash
is_suspended
is_restored
checkpoint_and_verify "$image"
stop_server
check "e2fsck finds nothing to repair" e2fsck -fn "$image"
finish
