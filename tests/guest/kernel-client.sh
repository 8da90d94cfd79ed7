# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For tests with the kernel's NBD client: an image on a real file system on the scratch disk /dev/vda
# (9p has none of what the product relies on), the device that it is attached to, and where that is
# mounted. Sourced after guest-lib.sh.
# shellcheck disable=SC2154 # socket is guest-lib.sh's

readonly disk=/dev/nbd0
readonly image=/run/scratch/primary.img
readonly mnt=/run/mnt

prepare_scratch() { # SIZE of the image
    modprobe nbd
    mkfs.ext4 -q /dev/vda
    mkdir -p /run/scratch "$mnt"
    mount /dev/vda /run/scratch
    truncate -s "$1" "$image"
}

has_size() { [[ $(</sys/block/nbd0/size) != 0 ]]; }
has_no_size() { ! has_size; }

attach() { # OPTION...
    nbd-client -unix "$socket" "$disk" -block-size 4096 "$@" >/run/nbd-client.log 2>&1 || {
        sed 's/^/# /' /run/nbd-client.log
        return 1
    }
    wait_until "$disk to have a size" has_size
}

detach() {
    nbd-client -d "$disk" >/dev/null || die "nbd-client cannot detach"
    wait_until "$disk to be gone" has_no_size
}

# The end of a script that has the disk mounted: its file system is whole, and so is the back-up.
check_disk_and_finish() {
    umount "$mnt"
    check "e2fsck finds nothing to repair" e2fsck -fn "$disk"
    detach
    checkpoint_and_verify "$image"
    stop_server
    finish
}

# What CRIU asks the kernel for, to know of sockets.
load_criu_modules() {
    local module
    for module in unix_diag tcp_diag udp_diag inet_diag netlink_diag af_packet_diag; do
        modprobe "$module"
    done
}
