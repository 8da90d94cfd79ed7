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
# Exit code: 0 the machine powered off; 124 it did not within 180 s; else QEMU's.
set -euo pipefail

cache=${CKPT_GUEST_CACHE:-/var/cache/ckpt-guest}
(($# >= 2)) || { echo "usage: boot-volume.sh SOCKET CONSOLE-LOG [WORD...]" >&2; exit 2; }
socket=$1
console=$2
shift 2

exec timeout --kill-after=5 180 qemu-system-x86_64 \
    -accel tcg,thread=multi -cpu max -smp 2 -m 512 \
    -nodefaults -display none -no-reboot -serial "file:$console" -nic none \
    -kernel "$cache/vmlinuz" -initrd "$cache/initrd.img" \
    -append "console=ttyS0 loglevel=4 panic=-1 mitigations=off ckpt_root=/dev/vda $*" \
    -blockdev "driver=nbd,node-name=volume,server.type=unix,server.path=${socket//,/,,},reconnect-delay=30,discard=unmap" \
    -device virtio-blk-pci,drive=volume,discard=on,write-zeroes=on
