#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: programs die by signals at random moments and come back with their disk, and so do
# the tool and CRIU, in the middle of a checkpoint and of a restore.
#
# Usage: process_rounds.sh BUILD ROUNDS SEED; /dev/vda is a scratch disk.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$here/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$here/kernel-client.sh"
# shellcheck source-path=SCRIPTDIR
. "$here/process_programs.sh"
readonly rounds=$2
RANDOM=$3

load_criu_modules

sleep_up_to() { # MILLISECONDS
    local wait=$((RANDOM * 32768 + RANDOM))
    wait=$((wait % $1))
    sleep "$((wait / 1000)).$(printf %03d $((wait % 1000)))"
}

last_checkpoint() { ckpt status "$image" >/dev/null && /usr/bin/python3 -ISc 'import json, sys
print(json.loads(sys.argv[1])["last_checkpoint"]["checkpoint"])' "$tool_result"; }

now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

restores() { # TEXT
    local begin
    begin=$(now_ms)
    check "$1: restored" ckpt restore "$image" --yes
    restore_takes=$(($(now_ms) - begin))
    find_group
    all_agree "$1"
}

# SIGNAL: of the family any member.
killed_by() {
    local family
    mapfile -t family < <(pgrep -f 'family[.]py')
    local begin at_checkpoint
    at_checkpoint=$(count_of count) begin=$(now_ms)
    check "a checkpoint of three programs" checkpoint_group
    checkpoint_takes=$(($(now_ms) - begin))
    local number
    number=$(result_field checkpoint)
    sleep_up_to 1500
    kill "-$1" "${group[0]}" "${group[1]}" "${family[$((RANDOM % 3))]}"
    sleep_up_to 200
    restores "after SIG$1"
    equal "to that checkpoint" "$number" "$(result_field checkpoint)"
    check "to numbers of no earlier one" test "$(count_of count)" -ge "$at_checkpoint"
}

# Starts a command, waits until WHEN runs, and kills NAME some time later, unless it has ended.
kill_within() { # MILLISECONDS NAME WHEN COMMAND...
    local most=$1 name=$2 when=$3
    shift 3
    "$@" >/dev/null 2>&1 &
    local shell=$!
    wait_until "$when to start" runs_or_ended "$when" "$shell"
    sleep_up_to "$most"
    if pkill -KILL -x "$name"; then echo "# $name was killed"; else echo "# $name had ended"; fi
    wait "$shell" 2>/dev/null || true
}

runs_or_ended() { pgrep -x "$1" >/dev/null || ! kill -0 "$2" 2>/dev/null; } # NAME PID

# Process and disk are of one number afterwards, the last or the one before it. If the tool alone was
# killed they run on as if nothing had been; CRIU has them in its hands.
checkpoint_is_cut_off() { # NAME: what is killed
    local before after
    before=$(last_checkpoint)
    kill_within "$checkpoint_takes" "$1" "$1" checkpoint_group
    [[ $1 == criu ]] || all_agree "after $1 was killed in a checkpoint"
    after=$(last_checkpoint)
    check "the last checkpoint is that one or the one before" test "$after" -ge "$before"
    end_programs
    restores "after a checkpoint in which $1 was killed"
}

# Where the tool is killed, CRIU goes on: the next restore waits for it.
restore_is_cut_off() { # NAME: what is killed; MILLISECONDS after WHEN has started
    end_programs
    kill_within "$2" "$1" "$3" ckpt restore "$image" --yes
    restores "after $1 was killed in a restore"
}

prepare_scratch 256M
start_server "$image"
attach
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
mount "$disk" "$mnt"
start_programs
for ((round = 1; round <= rounds; round++)); do
    echo "# round $round"
    killed_by KILL
    killed_by SEGV
    if ((round % 2 == 1)); then
        checkpoint_is_cut_off criu
        restore_is_cut_off ckpt-tool 300 criu
    else
        checkpoint_is_cut_off ckpt-tool
        restore_is_cut_off ckpt-tool "$restore_takes" ckpt-tool
        restore_is_cut_off criu 1000 criu
    fi
done
end_programs
check_disk_and_finish
