#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: programs go on from the last checkpoint on the machine that has the back-up, with the
# disk as it was then; the old primary becomes the back-up; and the other way round. Both machines are
# this one, one after the other: each has a folder and a backupd of its own.
#
# Usage: process_fail_over.sh BUILD FAIL_OVERS CHANGED; /dev/vda is a scratch disk. CHANGED: so many MiB
# that do not shrink are in each checkpoint, and its machine dies before they are applied.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$here/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$here/kernel-client.sh"
# shellcheck source-path=SCRIPTDIR
. "$here/process_programs.sh"
readonly fail_overs=$2 changed_mib=$3

declare -A keepers
near=near far=far # where the primary is, and where its back-up
primary=$image

load_criu_modules

shelf_of() { echo "/run/scratch/$1"; }
address_of() { echo "unix:/run/$1.sock"; }

start_keeper() { # NAME
    rm -f "/run/$1.sock"
    mkdir -p "$(shelf_of "$1")"
    start_backupd --listen "$(address_of "$1")" --store "$(shelf_of "$1")"
    keepers[$1]=$backupd
}

kill_process() { # PID
    kill -KILL "$1"
    wait "$1" 2>/dev/null || true
}

change_data() {
    local at
    dd if=/dev/urandom of=/run/piece bs=1M count=16 status=none
    for ((at = 0; at < changed_mib; at += 16)); do cat /run/piece; done >"$mnt/bulk"
    sync -f "$mnt/bulk"
}

checkpoint_programs() {
    if ((changed_mib > 0)); then change_data; fi
    ckpt status "$primary" >/dev/null
    volume=$(result_field volume)
    find_group
    count_then=$(count_of count)
    check "a checkpoint of disk and programs" ckpt checkpoint "$primary" --criu "${group[0]}" --criu "${group[1]}" \
        --criu "${group[2]}" --fs "$mnt" --timeout 900 -- --file-locks
    checkpoint=$(result_field checkpoint)
}

# The kernel stays: it loses the disk, and whoever was on it.
machine_dies() {
    kill_process "$server"
    pkill -KILL -f "$members" || true
    nbd-client -d "$disk" >/dev/null
    wait_until "the programs' end" fails pgrep -f "$members"
    umount -l "$mnt"
    wait_until "$disk to be gone" has_no_size
}

now_ms() { date +%s%3N; }

# The far machine has the disk from here on; the near one is not there.
fail_over() {
    local old=$primary died promoted served
    if ((changed_mib == 0)); then sleep 1; fi
    kill_process "${keepers[$far]}" # before it has applied what it has
    machine_dies
    ckpt status "$(shelf_of "$far")/$volume" >/dev/null
    echo "# checkpoint $checkpoint is confirmed, $(applied_checkpoint) is applied"
    died=$(now_ms) # what the kernel needed to part with the disk is no part of it
    check "promoted" ckpt promote "$(shelf_of "$far")/$volume" --yes
    equal "at that checkpoint" "$checkpoint" "$(result_field checkpoint)"
    primary=$(result_field image)
    promoted=$(now_ms)
    start_keeper "$far"
    start_server "$primary" "backup=$(address_of "$near")"
    served=$(now_ms)
    check "restored there" ckpt restore "$primary" --yes
    echo "# ms since the machine is gone: promoted $((promoted - died)), served $((served - died)), programs run $(($(now_ms) - died))"
    equal "to that checkpoint" "$checkpoint" "$(result_field checkpoint)"
    check "to numbers of no earlier one" test "$(count_of count)" -ge "$count_then"
    all_agree "on the other machine"
    comes_back "$old"
}

# With what it had written since.
comes_back() { # IMAGE
    local store=()
    if [[ $1 == "$image" ]]; then store=(--store "$(shelf_of "$near")"); fi
    mkdir -p "$(shelf_of "$near")"
    check "the old primary rejoins" ckpt rejoin "$1" --yes "${store[@]}"
    start_keeper "$near"
    wait_until "two copies" is_protected
    all_agree "with two copies"
}

is_protected() {
    ckpt status "$primary" >/dev/null && [[ $(result_field protected) == True ]]
}

swap() {
    local was=$near
    near=$far far=$was
}

# It was promoted, and its image goes back to its folder: nobody has that open.
stop_keeper() { # NAME
    kill "${keepers[$1]}"
    check "backupd of $1 stops cleanly" wait "${keepers[$1]}"
}

((patience += changed_mib))
prepare_scratch $((256 + changed_mib * 2))M
start_keeper far
start_server "$image" "backup=$(address_of far)"
attach
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
mount "$disk" "$mnt"
start_programs
for ((round = 1; round <= fail_overs; round++)); do
    echo "# fail-over $round, from $near to $far"
    checkpoint_programs
    fail_over
    stop_keeper "$far"
    swap
done
# What a restore refuses: the disk is not what it was.
checkpoint_programs
end_programs
check "restored in place, from the back-up that rejoined" ckpt restore "$primary" --yes
all_agree "after a restore in place"
end_programs
umount "$mnt"
check "e2fsck finds nothing to repair" e2fsck -fn "$disk"
detach
checkpoint_and_verify "$primary"
stop_server
finish
