#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: installs a system on /dev/vda as an installer does, with mkfs and tar. It is small
# (busybox, /sbin/init, some thousand real files) and knows by a list of checksums what it should be.
#
# Usage: vm_install.sh
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
readonly root=/run/root

echo "installing on /dev/vda"
mkfs.ext4 -q -E discard,lazy_itable_init=0 /dev/vda
mkdir -p "$root"
mount -t ext4 -o discard /dev/vda "$root"
mkdir -p "$root"/{bin,sbin,proc,sys,dev,tmp,var/log}
install -m 755 "$(command -v busybox)" "$root/bin/busybox"
install -m 755 "$here/vm_init.sh" "$root/sbin/init"
(cd / && tar -cf - usr/lib/python3.* usr/share/perl) | tar -C "$root" -xf -
(cd "$root" && find bin sbin usr -type f -exec sha256sum {} + >var/manifest)
echo 0 >"$root/var/boots"
echo "installed $(wc -l <"$root/var/manifest") files"
umount "$root"
