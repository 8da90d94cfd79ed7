#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: a back-up behind a link that is slow. Server and backupd are in two network
# namespaces, and netem (not every kernel has it; the guest's does) makes the link between them far,
# lossy and narrow. Checkpoints and rollbacks are exact over each, clients do not notice, and a
# rollback does not wait for one block before it asks for the next.
#
# Usage: slow_link.sh BUILD; /dev/vda is a scratch disk.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest-lib.sh" "$1"
here=$(dirname "${BASH_SOURCE[0]}")

readonly scratch=/run/scratch
readonly image=$scratch/primary.img
readonly at_checkpoint=$scratch/primary.at-checkpoint
readonly address=10.77.0.2:7000
readonly device=veth0
readonly one_way_ms=20

make_end() { # NAMESPACE ADDRESS
    ip -n "$1" address add "$2/24" dev "$device"
    ip -n "$1" link set "$device" up
}

# Segments leave as such: netem would lose 64 KiB at once where a real link loses 1500 bytes.
make_link() {
    local end
    modprobe veth
    for end in near far; do ip netns add "$end"; done
    ip -n near link add "$device" gso_max_segs 1 type veth \
        peer name "$device" netns far gso_max_segs 1
    make_end near 10.77.0.1
    make_end far "${address%:*}"
}

# In both directions.
shape() { # NETEM-WORD...
    local end
    for end in near far; do
        tc -n "$end" qdisc replace dev "$device" root netem "$@" || die "no netem: $*"
    done
}

# Nothing is shipped ahead, so that a checkpoint has all of it to ship.
start_primary() {
    under=(ip netns exec near)
    start_server "$image" "backup=$address" tls=off batch-delay=1000000
}

client() { # COMMAND...: sets client_said
    client_said=$(/usr/bin/python3 -S "$here/slow_link_client.py" "$socket" "$image" "$@") ||
        die "the client failed: $*"
    echo "# $client_said"
}

client_field() { # NAME
    tool_result=$client_said result_field "$1"
}

same_image() { cmp -s "$image" "$at_checkpoint"; }

# shellcheck disable=SC2317 # by "check"
same_backup() { cmp -s "$scratch"/shelf/*/backup.img "$at_checkpoint"; }

# A checkpoint during which clients overwrite what is shipped and other blocks; back to it. Sets
# answered_first, and client_said to what was said of the rollback.
exercise() { # TEXT SEED BYTES-TO-SHIP BLOCKS-TO-RESTORE
    local text=$1 number
    shift
    client checkpoint "$at_checkpoint" "$@"
    equal "$text: a checkpoint while clients write" confirmed "$(client_field state)"
    answered_first=$(client_field answered_first)
    same_image && die "$text: what was written after the checkpoint did not reach the disk"
    number=$(client_field checkpoint)
    client rollback
    equal "$text: rollback" "$number" "$(client_field checkpoint)"
    check "$text: every byte of the image is as at the checkpoint" same_image
    check "$text: and every byte of the back-up" same_backup
}

# A quarter of a round trip for each block leaves room for a slow emulation.
restores_many_at_once() { # BLOCKS
    local each_ms=$(($1 * 2 * one_way_ms)) took_ms
    took_ms=$(client_field took_ms)
    echo "# $1 blocks one by one: $each_ms ms at least; taken: $took_ms ms"
    check "a rollback asks for the next block before it has the last" \
        test "$took_ms" -lt $((each_ms / 4))
}

mkfs.ext4 -q /dev/vda
mkdir -p "$scratch"
mount /dev/vda "$scratch"
make_link
under_backupd=(ip netns exec far)
start_backupd --listen "$address" --store "$scratch/shelf" --tls off
# No holes: what comes back is data, every block of it.
head -c 16M /dev/urandom >"$image"
start_primary
check "a first checkpoint" ckpt checkpoint "$image"

shape delay ${one_way_ms}ms
exercise "far" 1 2097152 1024
restores_many_at_once 1024
shape delay ${one_way_ms}ms loss 2%
exercise "far and lossy" 2 1048576 256
shape delay ${one_way_ms}ms rate 8mbit
exercise "far and narrow" 3 3670016 512
equal "clients overwrite what is being shipped, and do not wait for it" False "$answered_first"

stop_server
stop_backupd
finish
