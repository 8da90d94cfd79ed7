#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: processes go back with their disk, by CRIU and the kernel's NBD client.
#
# Usage: processes.sh BUILD; /dev/vda is a scratch disk.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$here/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$here/kernel-client.sh"

readonly counter_file=$mnt/count
readonly counter_log=/run/counter.log

load_criu_modules

count() { echo $((10#$(head -c 20 "${1:-$counter_file}"))); }

# As a daemon: CRIU takes no part of a terminal's session.
start_counter() {
    setsid /usr/bin/python3 -S "$here/counter.py" "$counter_file" "$counter_log" \
        </dev/null >/dev/null 2>&1 &
    counter=$!
    wait_until "the counter's start" test -s "$counter_file"
}

is_alive() { kill -0 "$counter" 2>/dev/null && [[ $(awk '{print $3}' "/proc/$counter/stat") != Z ]]; }

counts_on() {
    local before
    before=$(count)
    sleep 0.5
    is_alive && (($(count) > before))
}

agrees() { # TEXT
    check "$1: it counts on" counts_on
    check "$1: memory and file agree" test ! -e "$counter_log"
}

takes_a_checkpoint() {
    counted=$(count)
    check "a checkpoint of disk and process" \
        ckpt checkpoint "$image" --name first --criu "$counter" --fs "$mnt"
    checkpoint=$(result_field checkpoint)
    echo "# frozen for $(result_field frozen_us) us, of which $(result_field sync_us) to sync," \
        "$(result_field cut_us) to cut"
    check "the freeze is told" test "$(result_field frozen_us)" -gt 0
    agrees "after the checkpoint"
    check "it is listed" ckpt show "$image" first
}

comes_back() {
    sleep 0.5
    kill -KILL "$counter"
    wait "$counter" 2>/dev/null || true
    local lost
    lost=$(count)
    check "restored after SIGKILL" ckpt restore "$image" first --yes
    equal "out of the copy beside it" copy "$(result_field images_from)"
    equal "to the checkpoint" "$checkpoint" "$(result_field checkpoint)"
    check "the file went back" test "$(count)" -lt "$lost"
    check "but no farther than the checkpoint" test "$(count)" -ge "$counted"
    agrees "after SIGKILL"
}

# What is left of it is ended first.
comes_back_while_it_lives() {
    sleep 0.3
    rm -r /run/copies/*
    check "restored while it runs" ckpt restore "$image" --yes
    equal "out of the back-up, as the copy is lost" back-up "$(result_field images_from)"
    agrees "after a restore while it ran"
}

ends_with_the_dump() {
    check "a checkpoint that ends the process" \
        ckpt checkpoint "$image" --criu "$counter" --fs "$mnt" --end-processes --images /run/scratch
    local images
    images=$(result_field images)
    check "its images are left" test -s "$images/criu-0/inventory.img"
    check "the process has ended" fails is_alive
    check "restored" ckpt restore "$image" --yes
    agrees "after it was ended"
}

flip_byte() { # FILE: the same again puts it back
    /usr/bin/python3 -ISc 'import os, sys
with open(sys.argv[1], "r+b") as file:
    at = os.path.getsize(sys.argv[1]) // 2
    byte = os.pread(file.fileno(), 1, at)[0]
    os.pwrite(file.fileno(), bytes([byte ^ 1]), at)' "$1"
}

stored_attachments() { echo "$image".ckpt/store/attachments/*; }

# Of the images: in the copy, which the back-up then stands in for, and in both.
is_damaged() {
    check "a checkpoint" ckpt checkpoint "$image" --criu "$counter" --fs "$mnt"
    local number of_another damaged
    number=$(result_field checkpoint)
    of_another=/run/scratch/another
    cp -r /run/copies/*."$number" "$of_another"
    check "another" ckpt checkpoint "$image" --criu "$counter" --fs "$mnt"
    number=$(result_field checkpoint)
    rm -r /run/copies/*."$number"/*
    cp "$of_another"/* /run/copies/*."$number"
    check "restored with a copy of another checkpoint" ckpt restore "$image" --yes
    equal "out of the back-up, as the copy is not this one's" back-up "$(result_field images_from)"
    agrees "after a copy that was not its own"
    damaged=$(stored_attachments | tr ' ' '\n' | tail -n 1)
    flip_byte "$damaged"
    check "what is damaged in copy and back-up is not restored" fails_with 1 ckpt restore "$image" --yes
    check "the file is named" grep -q "${damaged##*/}" /run/ckpt-tool.out
    check "and what is wrong with it" \
        grep -q "the digest of a piece is wrong.*nothing was done" /run/ckpt-tool.out
    agrees "after a restore of what is damaged"
    flip_byte "$damaged"
    check "put right, it is restored" ckpt restore "$image" --yes
    agrees "after the damage was put right"
    rm -r "$of_another"
}

# Starts a process that has just this number.
take_number() { # PID
    local tries
    for ((tries = 0; tries < 50; tries++)); do
        echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid
        sleep 1000 &
        taker=$!
        if ((taker == $1)); then return 0; fi
        kill "$taker"
        wait "$taker" || true
    done
    die "process number $1 cannot be had"
}

number_is_taken() {
    check "a checkpoint" ckpt checkpoint "$image" --criu "$counter" --fs "$mnt"
    kill -KILL "$counter"
    wait "$counter" 2>/dev/null || true
    wait_until "its number is free" fails test -e "/proc/$counter"
    take_number "$counter"
    local before
    before=$(cksum <"$counter_file")
    check "a process that has the number of a saved one is not ended" \
        fails_with 5 ckpt restore "$image" --yes
    check "it is named" grep -q "number $counter of .* another, sleep (sleep 1000)" /run/ckpt-tool.out
    check "it runs on" kill -0 "$taker"
    equal "the disk has not changed" "$before" "$(cksum <"$counter_file")"
    kill "$taker"
    wait "$taker" || true
    check "restored when it is gone" ckpt restore "$image" --yes
    agrees "after its number was taken"
}

# Those who run CRIU themselves: the tool is its action script.
own_criu() { # ACTION OPTION...
    CKPT_VOLUME=$image CKPT_FS=$mnt criu "$1" --images-dir /run/images --log-file "$1.log" \
        --action-script "$build/tools/criu-hook" "${@:2}"
}

drives_criu_itself() {
    mkdir -p /run/images
    check "a dump that checkpoints the disk" own_criu dump --tree "$counter"
    check "the process has ended" fails is_alive
    local number
    number=$(count)
    echo 17 >"$counter_file"
    cp /run/images/ckpt.json /run/ckpt.json
    sed -i -E 's/("volume":")..../\1ffff/' /run/images/ckpt.json
    check "images of another volume are refused" fails own_criu restore --restore-detached
    equal "and the disk is as it was" 17 "$(cat "$counter_file")"
    cp /run/ckpt.json /run/images/ckpt.json
    sed -i -E 's/("timeline":")..../\1ffff/' /run/images/ckpt.json
    check "so are those of another timeline" fails own_criu restore --restore-detached
    equal "with the disk as it was, too" 17 "$(cat "$counter_file")"
    cp /run/ckpt.json /run/images/ckpt.json
    check "a restore that rolls the disk back" own_criu restore --restore-detached
    check "to what it had" test "$(count)" -ge "$number"
    agrees "after CRIU was run by hand"
    kill -KILL "$counter"
    wait_until "its end" fails is_alive
    check "and another one from the same images" own_criu restore --restore-detached
    agrees "after the second one"
}

refuses() {
    check "a process that is not there" \
        fails_with 4 ckpt checkpoint "$image" --criu 4000000 --fs "$mnt"
    check "a kernel thread" fails_with 2 ckpt checkpoint "$image" --criu 2 --fs "$mnt"
    check "the command itself" fails_with 2 ckpt checkpoint "$image" --criu $$ --fs "$mnt"
    check "no process number" fails_with 2 ckpt checkpoint "$image" --criu x1 --fs "$mnt"
    check "another disk's mount" \
        fails_with 2 ckpt checkpoint "$image" --criu "$counter" --fs /run/scratch
    check "no mount" fails_with 4 ckpt checkpoint "$image" --criu "$counter" --fs /etc
    check "images on the disk itself" \
        fails_with 2 ckpt checkpoint "$image" --criu "$counter" --fs "$mnt" --images "$mnt"
    agrees "after what was refused"
    check "a checkpoint of the disk alone" ckpt checkpoint "$image" --name plain
    check "has no process to restore" fails_with 4 ckpt restore "$image" plain --yes
    agrees "after a restore that was refused"
}

# A block device that is open: CRIU's own words say so, and it runs on.
cannot_be_dumped() {
    setsid sleep 1000 <"$disk" >/dev/null 2>&1 &
    local pid=$!
    sleep 1
    check "what CRIU cannot dump is no checkpoint" \
        fails_with 1 ckpt checkpoint "$image" --criu "$pid" --fs "$mnt"
    check "CRIU's own words tell the reason" \
        grep -qE "CRIU: Can't dump file 0 of that type \[[0-7]+\]" /run/ckpt-tool.out
    check "not the name of a log that is gone" fails grep -q '\.log' /run/ckpt-tool.out
    check "the process runs on" kill -0 "$pid"
    kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
}

# Without opening the database: CRIU 3.17 does not restore the locks on a file that is also mapped
# (db-shm), so that another process would take it for one that nobody uses, and truncate it.
sqlite_counts_on() {
    local before
    before=$(cksum <"$mnt/db-wal")
    sleep 1
    [[ $(cksum <"$mnt/db-wal") != "$before" ]] && pgrep -f sqlite_counter.py >/dev/null
}

# In WAL mode it has a file mapped, and locks.
sqlite_comes_back() {
    setsid /usr/bin/python3 -S "$here/sqlite_counter.py" "$mnt/db" "$counter_log" \
        </dev/null >/dev/null 2>&1 &
    local pid=$!
    wait_until "a write-ahead log" test -s "$mnt/db-wal"
    sleep 1
    check "a checkpoint of SQLite" \
        ckpt checkpoint "$image" --criu "$counter" --criu "$pid" --fs "$mnt" -- --file-locks
    sleep 1
    kill -SEGV "$pid"
    wait "$pid" 2>/dev/null || true
    check "SQLite is restored after SIGSEGV" ckpt restore "$image" --yes
    check "it counts on" sqlite_counts_on
    check "memory and database agree" test ! -e "$counter_log"
    pkill -9 -f sqlite_counter.py
    equal "the database is whole" ok "$(/usr/bin/python3 -S -c 'import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("PRAGMA integrity_check").fetchone()[0])' "$mnt/db")"
    agrees "after SQLite came back"
}

# Two process trees are one checkpoint; one has three processes and a pipe.
group_comes_back() {
    setsid /usr/bin/python3 -S "$here/family.py" "$mnt/family" "$counter_log" \
        </dev/null >/dev/null 2>&1 &
    local family=$!
    wait_until "the family's start" test -s "$mnt/family"
    check "a checkpoint of two trees" \
        ckpt checkpoint "$image" --criu "$counter" --criu "$family" --fs "$mnt"
    pkill -9 -f family.py
    kill -9 "$counter"
    wait "$family" 2>/dev/null || true
    check "both are restored" ckpt restore "$image" --yes
    check "a checkpoint that ends two trees" \
        ckpt checkpoint "$image" --criu "$counter" --criu "$family" --fs "$mnt" --end-processes
    check "both have ended" fails pgrep -f "family.py|counter.py"
    check "both are restored again" ckpt restore "$image" --yes
    equal "three processes are" 3 "$(pgrep -c -f family.py)"
    local before
    before=$(count "$mnt/family")
    agrees "after the group was restored"
    check "the family counts on" test "$(count "$mnt/family")" -gt "$before"
    pkill -9 -f family.py
    check "one that is gone makes no checkpoint of the other" \
        fails_with 4 ckpt checkpoint "$image" --criu "$counter" --criu "$family" --fs "$mnt"
    agrees "after a group that was refused"
}

waits_for_disk() { [[ $(awk '{print $3}' "/proc/$counter/stat") == D ]]; }

# The server is killed below the mount, and started again: the mount is dead, and so is the process,
# which waits for an answer that never comes.
server_dies() {
    check "a checkpoint" ckpt checkpoint "$image" --criu "$counter" --fs "$mnt"
    kill -STOP "$server"
    wait_until "the counter to wait for the disk" waits_for_disk
    kill -KILL "$server"
    wait "$server" || true
    sleep 0.5
    start_server "$image"
    check "restored after the server was killed" ckpt restore "$image" --yes
    agrees "after the server was killed"
}

out_of_time() {
    check "one that is not there in time is void" \
        fails_with 1 ckpt checkpoint "$image" --criu "$counter" --fs "$mnt" --timeout 0.05
    agrees "after a checkpoint that was void"
    check "nothing of it is left" fails compgen -G "$image.ckpt/criu.*"
}

mount_is_in_use() {
    sleep 1000 <"$counter_file" &
    local user=$!
    check "a mount that somebody else uses is not taken away" \
        fails_with 5 ckpt rollback "$image" --yes --fs "$mnt"
    check "who is named" grep -q "process $user (sleep)" /run/ckpt-tool.out
    kill "$user"
    kill -9 "$counter"
    wait "$user" "$counter" 2>/dev/null || true
    check "the disk alone goes back below its mount" ckpt rollback "$image" --yes --fs "$mnt"
    check "it is mounted again" mountpoint -q "$mnt"
}

prepare_scratch 256M
mkdir /run/copies
start_server "$image" attachments=/run/copies
attach
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
mount "$disk" "$mnt"
start_counter
takes_a_checkpoint
comes_back
comes_back_while_it_lives
ends_with_the_dump
is_damaged
number_is_taken
drives_criu_itself
refuses
cannot_be_dumped
sqlite_comes_back
group_comes_back
server_dies
out_of_time
mount_is_in_use
check_disk_and_finish
