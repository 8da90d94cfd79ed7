#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: `ckpt-tool run` carries a command and its disk over the command's failures.
#
# Usage: run_command.sh BUILD; /dev/vda is a scratch disk.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$here/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$here/kernel-client.sh"

readonly tool=$build/tools/ckpt-tool
readonly complaints=/run/complaints crashes=/run/crashes
readonly events=/run/run.out

load_criu_modules

run() { # OPTION... -- COMMAND...
    local code=0
    "$tool" --json run "$image" --fs "$mnt" "$@" >"$events" </dev/null || code=$?
    sed 's/^/# /' "$events"
    tool_result=$(tail -n 1 "$events")
    return "$code"
}

count_of() { grep -c "\"event\":\"$1\"" "$events" || true; }
number_in_file() { echo $((10#$(head -c 20 "$mnt/count"))); }

is_down() { has_no_size && fails mountpoint -q "$mnt"; }

carries_it_over_ten_crashes() {
    check "it comes to its end" run -- \
        /usr/bin/python3 -S "$here/crasher.py" "$mnt/count" "$crashes" "$complaints" "$tool" 450
    equal "crashes" 10 "$(wc -c <"$crashes")"
    equal "failures seen" 10 "$(count_of failed)"
    equal "restores" 10 "$(result_field restores)"
    equal "checkpoints" 11 "$(result_field checkpoints)"
    check "memory and file always agreed" test ! -e "$complaints"
    equal "what asked has returned once more after each" 10 \
        "$(grep -c "brought back to checkpoint" "$image.ckpt/run/log")"
    check "its output is kept" grep -q "counted to 450" "$image.ckpt/run/log"
    check "the disk is unmounted and detached" is_down
    attach
    mount "$disk" "$mnt"
    equal "the file's number" 450 "$(number_in_file)"
}

# The disk is mounted already, and stays so.
gives_up() {
    echo before >"$mnt/text"
    check "a command that always fails is given up" fails_with 1 run --retries 2 -- \
        sh -c "cat $mnt/text >>/run/found; echo after >$mnt/text; exit 3"
    equal "failures" 3 "$(count_of failed)"
    equal "each time it found the disk of its start" "before before before" "$(tr '\n' ' ' </run/found | sed 's/ $//')"
    check "it says so" grep -q "is given up" "$events"
    check "the mount that was there stays" mountpoint -q "$mnt"
    rm /run/found
    check "--resume starts from the disk of before its start" run --resume -- \
        sh -c "cat $mnt/text >>/run/found"
    equal "that is what it found" before "$(cat /run/found)"
}

refuses() {
    check "without a command" fails_with 2 run
    check "without a program" fails_with 4 run -- no-such-program
    check "retries that are no number" fails_with 2 run --retries x -- true
    check "--self outside" fails_with 2 ckpt checkpoint --self
    check "no volume" fails_with 2 ckpt checkpoint
}

has_checkpoint() { grep -q '"event":"checkpoint"' "$events"; }

start_long_run() { # OPTION...
    "$tool" --json run "$image" --fs "$mnt" --every 2 "$@" -- /usr/bin/python3 -S \
        "$here/counter.py" "$mnt/count" "$complaints" >"$events" </dev/null &
    runner=$!
    wait_until "a checkpoint" has_checkpoint
}

# As when the machine loses power: `run` itself is killed, and the command lives on, unprotected.
resumes() {
    rm -f "$mnt/count"
    start_long_run
    check "another one is refused" fails_with 5 ckpt run "$image" --fs "$mnt" -- true
    kill -KILL "$runner"
    wait "$runner" 2>/dev/null || true
    check "what it left is not overlooked" fails_with 5 ckpt run "$image" --fs "$mnt" -- true
    start_long_run --resume
    check "it was restored" grep -q '"event":"restored"' "$events"
    equal "counters that run" 1 "$(pgrep -c -f '^/usr/bin/python3.*counter.py')"
    sed 's/^/# /' "$events"
    local before
    before=$(number_in_file)
    # All at once, as a service manager does it.
    kill -TERM $(pgrep -f '^/usr/bin/python3.*counter.py') "$runner"
    check "it stops when it is told" wait "$runner"
    check "the command has ended" fails pgrep -f counter.py
    check "memory and file always agreed" test ! -e "$complaints"
    check "that is no failure: nothing went back" test "$(number_in_file)" -ge "$before"
    equal "restores" 1 "$(count_of restored)"
}

# So that it cannot be mounted before it is rolled back.
ruin_the_file_system() {
    /usr/bin/python3 -c 'import nbd, sys
h = nbd.NBD()
h.connect_unix(sys.argv[1])
h.pwrite(bytes(65536), 0)
h.shutdown()' "$socket"
}

# Told to stop, it is saved as it is, and goes on from there.
is_suspended() {
    start_long_run --resume --suspend
    sleep 0.5
    kill -TERM "$runner"
    check "it stops when it is told" wait "$runner"
    sed 's/^/# /' "$events"
    check "the command has ended" fails pgrep -f counter.py
    local before
    before=$(number_in_file)
    umount "$mnt"
    detach
    ruin_the_file_system
    start_long_run --resume
    check "it was restored" grep -q '"event":"restored"' "$events"
    check "it goes on from where it was" test "$(number_in_file)" -ge "$before"
    kill -TERM "$runner"
    check "it stops again" wait "$runner"
    check "the disk is unmounted and detached" is_down
    attach
    mount "$disk" "$mnt"
    check "memory and file always agreed" test ! -e "$complaints"
}

what_criu_refuses_is_told() {
    check "the command runs on without checkpoints" run --every 1 --criu-option --no-such-option -- sleep 3
    check "why is told" grep -q '"event":"checkpoint-failed".*no-such-option' "$events"
}

prepare_scratch 256M
start_server "$image"
attach
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
detach
carries_it_over_ten_crashes
gives_up
refuses
resumes
is_suspended
what_criu_refuses_is_told
check_disk_and_finish
