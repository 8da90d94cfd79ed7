#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
#
# /init of the test guest's initramfs: mounts the host's root read-only over 9p, puts a writable
# overlay on it and hands over to guest-main.sh there. Runs in busybox, before anything else.
# With ckpt_root=DEVICE on the kernel's command line that disk is the root, and nothing of the host's
# is there (boot-volume.sh).

die() {
    echo "guest-init: $*"
    poweroff -f
}

echo "guest-init: up" # boot.sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

# crc32c_generic: without it ext4 and xfs do not mount, and nothing loads it for them.
for module in crc32c_generic virtio_pci virtio_blk 9p 9pnet_virtio overlay; do
    modprobe "$module" || die "cannot load $module"
done

boot_disk() { # DEVICE
    modprobe ext4 || die "cannot load ext4"
    mount -t ext4 "$1" /new || die "cannot mount the root $1"
    for tree in proc sys dev; do
        mount -o move "/$tree" "/new/$tree"
    done
    exec switch_root /new /sbin/init
}

for word in $(cat /proc/cmdline); do
    case $word in
    ckpt_root=*) boot_disk "${word#ckpt_root=}" ;;
    esac
done

# cache=loose: nobody changes the host's root under a test, and it makes programs start fast.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose host /host ||
    die "cannot mount the host's root"
mount -t tmpfs -o mode=755 upper /upper
mkdir /upper/data /upper/scratch
mount -t overlay -o lowerdir=/host,upperdir=/upper/data,workdir=/upper/scratch overlay /new ||
    die "cannot mount the overlay"

# The kernel loads further modules (ext4 at a mount, say) from the root it sees, and the host has
# none for this kernel.
mkdir -p "/new/lib/modules"
cp -r "/lib/modules/$(uname -r)" /new/lib/modules/ || die "cannot copy the modules"

mkdir -p /new/proc /new/sys /new/dev /new/run
mount -t tmpfs -o mode=755 run /new/run
cp /guest-main.sh /new/run/guest-main.sh
for tree in proc sys dev; do
    mount -o move "/$tree" "/new/$tree"
done
exec switch_root /new /bin/bash /run/guest-main.sh
echo "guest-init: cannot start bash on the host's root"
