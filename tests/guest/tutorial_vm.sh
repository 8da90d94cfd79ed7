#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs on the host: the block of docs/tutorial.md with a virtual machine. Its old.qcow2, a machine that the reader
# has, is made here: a disk with a boot loader, Debian's kernel and a small root, where something is written every
# second, as a log is. It is emulated, whatever this machine has.
#
# Usage: tutorial_vm.sh FOLDER BUILD [--record]. With --record the page with this run's output is left in FOLDER.
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
folder=$(realpath "$1")
build=$2
cache=${CKPT_GUEST_CACHE:-/var/cache/ckpt-guest}
readonly page=$here/../../docs/tutorial.md disk=$folder/disk.raw
# In MiB.
readonly boot_at=1 root_at=65 end=129
# shellcheck source=tests/guest/boot.sh
. "$here/boot.sh"

# Its mounts are nobody else's, and whatever it starts ends with it.
if [[ ${*: -1} != inside ]]; then
    exec unshare --mount --pid --fork --mount-proc --kill-child "$0" "$@" inside
fi

partition() {
    truncate -s "$((end + 1))M" "$disk"
    sfdisk -q "$disk" <<PARTITIONS
start=${boot_at}MiB, size=$((root_at - boot_at))MiB, type=c, bootable
start=${root_at}MiB, size=$((end - root_at))MiB, type=83
PARTITIONS
}

# mkfs.fat takes sectors and KiB, and says that the disk is larger; the others take bytes.
install_boot() {
    local at=$((boot_at << 20))
    dd if=/usr/lib/SYSLINUX/mbr.bin of="$disk" conv=notrunc status=none
    mkfs.fat -F 32 --offset $((at / 512)) "$disk" $(((root_at - boot_at) << 10)) >"$folder/mkfs.log" 2>&1
    syslinux --install --offset "$at" "$disk"
    cat >"$folder/syslinux.cfg" <<CONFIG
default linux
label linux
  kernel vmlinuz
  initrd initrd.img
  append $kernel_words ckpt_root=/dev/vda2
CONFIG
    cp "$cache"/kernel/boot/vmlinuz-* "$folder/vmlinuz"
    mcopy -i "$disk@@$at" "$folder/syslinux.cfg" "$folder/vmlinuz" "$cache/initrd.img" ::
}

install_root() {
    local root=$folder/root
    mkdir -p "$root"/{bin,sbin,etc,proc,sys,dev,tmp,var/log}
    cp "$(command -v busybox)" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    ln -s ../bin/busybox "$root/sbin/init"
    echo machine >"$root/etc/hostname"
    cat >"$root/etc/inittab" <<'INITTAB'
::sysinit:/bin/busybox mount -o remount,rw /
::sysinit:/bin/busybox hostname -F /etc/hostname
::respawn:/bin/busybox sh -c 'while sleep 1; do date >> /var/log/dates; sync; done'
ttyS0::respawn:/bin/busybox getty -L 115200 ttyS0 vt100
INITTAB
    mkfs.ext4 -q -d "$root" -E offset=$((root_at << 20)) "$disk" "$((end - root_at))M"
}

make_machine() {
    partition
    install_boot
    install_root
    mkdir -p "$folder"/srv/{disks,machines}
    qemu-img convert -q -O qcow2 "$disk" "$folder/srv/machines/old.qcow2"
}

# One that is there and does not work is worse than none; ckpt-tool takes one that it may write to.
hide_kvm() {
    [[ -e /dev/kvm ]] || return 0
    : >/run/no-kvm
    mount --bind /run/no-kvm /dev/kvm
    mount -o remount,bind,ro /dev/kvm
}

# The product as installed, and folders as on the page.
make_private() {
    local plugins
    plugins=$(nbdkit --dump-config | sed -n 's/^plugindir=//p')
    mount --bind "$folder/srv" /srv
    mount -t tmpfs -o mode=755 run /run
    cp -a "$plugins" /run/plugins
    cp "$build/plugin/nbdkit-ckpt-plugin.so" /run/plugins/
    mount --bind /run/plugins "$plugins"
    hide_kvm
    export PATH=$build/tools:$PATH
}

make_machine
make_private
cd /srv/disks
tutorial=(/usr/bin/python3 "$here/tutorial.py" "$page" --by tests/guest/tutorial_vm.sh)
if [[ $3 == --record ]]; then
    "${tutorial[@]}" --record >"$folder/tutorial.md"
else
    "${tutorial[@]}" 2>&1 | tee "$folder/console.log"
fi
