#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Boots a virtual machine whose root is a volume, on Debian's kernel, until it powers off. The disk is
# attached as docs/vm.md says: through QEMU's own NBD client, with trims passed on, and waiting for a
# server that restarts. prepare.sh must have run.
#
# Usage: boot-volume.sh SOCKET CONSOLE-LOG [WORD...]
#   SOCKET   of the server of the volume
#   WORD     more of the kernel's command line, for the machine's /sbin/init
# Exit code: 0 the machine powered off; 124 it did not within 180 s, or never came to /init; else QEMU's.
set -euo pipefail

. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/boot.sh"
cache=${CKPT_GUEST_CACHE:-/var/cache/ckpt-guest}
(($# >= 2)) || { echo "usage: boot-volume.sh SOCKET CONSOLE-LOG [WORD...]" >&2; exit 2; }
socket=$1
console=$2
shift 2

start_machine() {
    exec timeout --kill-after=5 180 qemu-system-x86_64 \
        -accel tcg,thread=multi -cpu max -smp 2 -m 512 \
        -nodefaults -display none -no-reboot -serial "file:$console" -nic none \
        -kernel "$cache/vmlinux" -initrd "$cache/initrd.img" \
        -append "$kernel_words ckpt_root=/dev/vda $*" \
        -blockdev "driver=nbd,node-name=volume,server.type=unix,server.path=${socket//,/,,},reconnect-delay=30,discard=unmap" \
        -device virtio-blk-pci,drive=volume,discard=on,write-zeroes=on
}

is_running() { [[ -n $(jobs -r) ]]; }

is_up() { grep -aqs "^$up_line" "$console"; }

# Returns when the kernel has come to /init or the machine has ended; fails when it is stuck.
await_up() {
    local end=$((SECONDS + up_seconds))
    while is_running && ! is_up; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}

# Boots the machine and waits for its end: its exit code in code; stuck is set if it did not come to /init.
boot() {
    start_machine "$@" &
    local machine=$!
    stuck=
    await_up || { stuck=yes; kill "$machine" || true; }
    code=0
    wait "$machine" || code=$?
}

for ((tries = 1; tries <= up_tries; tries++)); do
    boot "$@"
    [[ -n $stuck ]] || exit "$code"
    echo "boot-volume: boot $tries: the kernel did not come to /init in $up_seconds s"
done
exit 124
