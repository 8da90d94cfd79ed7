#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes this machine ready to boot the test guest: packages, Debian's own kernel, an initramfs.
# Running it again is cheap. There is no disk image: the guest's root is this machine's own.
#
# Usage: prepare.sh
# Leaves $CKPT_GUEST_CACHE/{vmlinux,initrd.img} (default /var/cache/ckpt-guest).
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
cache=${CKPT_GUEST_CACHE:-/var/cache/ckpt-guest}

# What runs the guest and what runs in it, since the guest sees this machine's files.
packages=(qemu-system-x86 qemu-utils syslinux mtools dosfstools fdisk busybox-static kmod python3 python3-libnbd nbdkit nbd-client gnutls-bin
          e2fsprogs xfsprogs dmsetup mdadm gcc libc6-dev iproute2 systemd udev criu runc podman libglib2.0-0 libnuma1 libudev1 liburing2 libvirt-daemon libvirt-clients)

# Needed to reach the root file system. virtio_net, veth, sch_netem, loop and dm_* are for tests
# that want them. The *_diag are CRIU's, and so are nf_tables and what follows, for a network
# namespace. brd, dm_snapshot and drbd are the benchmark's (tests/bench/guest_peers.sh). The guest cannot load a module that is not in this list's closure.
modules=(crc32c_generic virtio_pci virtio_blk virtio_net 9p 9pnet_virtio overlay
         nbd ext4 xfs loop fuse dm_mod dm_log_writes dm_flakey veth sch_netem
         unix_diag tcp_diag udp_diag inet_diag netlink_diag af_packet_diag tun
         nf_tables nf_conntrack_netlink nft_compat xt_mark md_mod raid1
         brd dm_snapshot drbd)

say() { echo "prepare: $*"; }
die() { echo "prepare: $*" >&2; exit 1; }

missing_packages() {
    local package
    for package in "${packages[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            echo "$package"
    done
}

update_package_lists() {
    say "updating the package lists"
    apt-get -qq update || die "apt-get update failed; the test guest needs Debian's packages"
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    if ((${#missing[@]} == 0)); then
        say "all packages are installed"
        return
    fi
    ((EUID == 0)) || die "not root, and these packages are missing: ${missing[*]}"
    update_package_lists
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y \
        "${missing[@]}" || die "cannot install ${missing[*]}"
}

# The package that linux-image-amd64 depends on, e.g. linux-image-6.1.0-32-amd64.
kernel_package() {
    apt-cache depends linux-image-amd64 2>/dev/null |
        awk '$1 == "Depends:" && $2 ~ /^linux-image-/ {print $2; exit}'
}

# As root all the way: apt's own user cannot write to the cache, and apt would warn about it.
download() { # PACKAGE FOLDER
    (cd "$2" && apt-get -qq -o APT::Sandbox::User=root download "$1")
}

# Unpacks the kernel into $cache/kernel. A rename at the end, so that it is there whole or not.
download_kernel() {
    local package scratch=$cache/kernel.new
    package=$(kernel_package)
    if [[ -z $package ]]; then
        update_package_lists
        package=$(kernel_package)
    fi
    [[ -n $package ]] || die "linux-image-amd64 is in none of apt's sources"

    rm -rf "$scratch" "$cache/kernel"
    mkdir -p "$scratch"
    say "downloading $package"
    # A list older than the mirror names a version that is gone: one more try with a new list.
    download "$package" "$scratch" || { update_package_lists; download "$package" "$scratch"; } ||
        die "cannot download $package"
    say "unpacking it into $cache/kernel"
    dpkg -x "$scratch"/linux-image-*.deb "$scratch" || die "cannot unpack $package"
    rm "$scratch"/linux-image-*.deb
    depmod -b "$scratch" "$(kernel_version "$scratch")" || die "depmod failed for $package"
    mv "$scratch" "$cache/kernel"
}

# QEMU's agent, for guests of guests: not installed here, where it would be a service. Unpacked into
# $cache/agent, with the libraries that it needs.
download_agent() {
    local scratch=$cache/agent.new
    rm -rf "$scratch" "$cache/agent"
    mkdir -p "$scratch"
    say "downloading qemu-guest-agent"
    download qemu-guest-agent "$scratch" || { update_package_lists; download qemu-guest-agent "$scratch"; } ||
        die "cannot download qemu-guest-agent"
    dpkg -x "$scratch"/qemu-guest-agent_*.deb "$scratch" || die "cannot unpack qemu-guest-agent"
    rm "$scratch"/qemu-guest-agent_*.deb
    mv "$scratch" "$cache/agent"
}

kernel_version() { # ROOT
    basename "$1"/lib/modules/*
}

# Copies a module and everything it depends on. The configuration of this machine's modprobe (say,
# a blacklist) is left out: it has nothing to say about the guest.
copy_module() { # MODULE VERSION TREE
    local module=$1 version=$2 tree=$3 word path
    modprobe -C /dev/null -d "$cache/kernel" -S "$version" --show-depends "$module" \
        >"$tree.depends" || die "kernel $version has no module $module"
    while read -r word path _; do
        [[ $word == insmod ]] || continue # "builtin" needs no file
        install -D -m 644 "$path" "$tree/lib/modules/${path#*/lib/modules/}"
    done <"$tree.depends"
}

# An emulated processor takes 5 s of the 12 of a boot to unpack its kernel. QEMU starts an unpacked one,
# too (a PVH guest): the payload of this one, which is where its header says (Linux,
# Documentation/x86/boot.rst: payload_offset).
unpack_kernel() { # VMLINUZ VMLINUX
    python3 - "$@" <<'UNPACK' || die "cannot unpack $1"
import lzma, struct, sys
packed = open(sys.argv[1], "rb").read()
offset, length = struct.unpack_from("<II", packed, 0x248)
offset += (packed[0x1f1] + 1) * 512
kernel = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed[offset:offset + length])
assert kernel.startswith(b"\x7fELF")
open(sys.argv[2], "wb").write(kernel)
UNPACK
}

# Neither is packed: see unpack_kernel.
build_initramfs() {
    local version scratch tree module
    version=$(kernel_version "$cache/kernel")
    scratch=$(mktemp -d "$cache/initramfs.XXXXXX")
    tree=$scratch/tree
    say "building the initramfs for $version"
    mkdir -p "$tree"/{bin,dev,proc,sys,host,new,upper}
    install -m 755 "$(command -v busybox)" "$tree/bin/busybox"
    install -m 755 "$here/guest-init.sh" "$tree/init"
    install -m 755 "$here/guest-main.sh" "$tree/guest-main.sh"
    for module in "${modules[@]}"; do
        copy_module "$module" "$version" "$tree"
    done
    cp "$cache/kernel/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} \
        "$tree/lib/modules/$version/"
    depmod -b "$tree" "$version" || die "depmod failed for the initramfs"
    (cd "$tree" && find . | busybox cpio -o -H newc) >"$scratch/initrd.img" ||
        die "cannot pack the initramfs"
    mv "$scratch/initrd.img" "$cache/initrd.img"
    unpack_kernel "$cache/kernel/boot/vmlinuz-$version" "$scratch/vmlinux"
    mv "$scratch/vmlinux" "$cache/vmlinux"
    ingredients >"$cache/initrd.made-of"
    rm -rf "$scratch"
}

# By content and not by time: two trees with different lists of modules may share the cache.
ingredients() {
    { cat "$here"/{prepare,guest-init,guest-main}.sh "$(command -v busybox)" &&
        kernel_version "$cache/kernel"; } | sha256sum
}

# One that is newer than the record was made by whoever keeps no such record.
initramfs_is_current() {
    local record=$cache/initrd.made-of
    [[ -s $cache/initrd.img && -s $cache/vmlinux && -s $record ]] || return 1
    [[ ! $cache/initrd.img -nt $record && $(<"$record") == "$(ingredients)" ]]
}

[[ $(uname -m) == x86_64 ]] || die "the test guest is x86-64; this machine is $(uname -m)"
command -v apt-get >/dev/null || die "no apt-get; the test guest is made of Debian's packages"
install_packages
mkdir -p "$cache" || die "cannot create $cache; set CKPT_GUEST_CACHE"
exec 9>"$cache/lock" # two test runs may start at the same time
flock 9
if [[ -d $cache/kernel ]]; then
    say "the kernel is unpacked: $(kernel_version "$cache/kernel")"
else
    download_kernel
fi
[[ -x $cache/agent/usr/sbin/qemu-ga ]] || download_agent
if initramfs_is_current; then
    say "the initramfs is current"
else
    build_initramfs
fi
say "ready: $cache/vmlinux $cache/initrd.img"
