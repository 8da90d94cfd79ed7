# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Three programs on the mounted disk that know in memory what they have written, and complain when the
# two do not agree: a counter, SQLite in WAL mode, and a family of three processes with a pipe. They are
# saved and restored as one group. Sourced after kernel-client.sh.
# shellcheck disable=SC2154 # guest-lib.sh and kernel-client.sh have what is not set here

readonly complaints=/run/complaints
readonly python=(/usr/bin/python3 -S)
readonly members='counter[.]py|sqlite_counter[.]py|family[.]py'

# As a daemon: CRIU takes no part of a terminal's session.
start_program() { # SCRIPT FILE
    setsid "${python[@]}" "$here/$1" "$mnt/$2" "$complaints" </dev/null >/dev/null 2>&1 &
}

# Sets group to the first process of each. Their numbers are such that no other process has them after
# a reboot, nor a thread.
start_programs() {
    echo 20000 >/proc/sys/kernel/ns_last_pid
    rm -f "$mnt"/count "$mnt"/db* "$mnt"/family
    start_program counter.py count
    start_program sqlite_counter.py db
    start_program family.py family
    wait_until "the counter's start" test -s "$mnt/count"
    wait_until "SQLite's start" test -s "$mnt/db-wal"
    wait_until "the family's start" test -s "$mnt/family"
    find_group
}

find_group() {
    group=()
    local program
    for program in /counter sqlite_counter family; do
        group+=("$(pgrep -of "$program[.]py" || echo 0)")
    done
}

count_of() { echo $((10#$(head -c 20 "$mnt/$1"))); }
log_of_database() { cksum <"$mnt/db-wal"; }

# The database is not opened: CRIU 3.17 does not restore the locks on a file that is also mapped.
all_count_on() {
    local counter family database
    counter=$(count_of count) family=$(count_of family) database=$(log_of_database)
    wait_until "the counter to go on" test_moved count "$counter"
    wait_until "the family to go on" test_moved family "$family"
    wait_until "SQLite to go on" database_moved "$database"
    [[ $(pgrep -cf "$members") == 5 ]]
}

test_moved() { (($(count_of "$1") > $2)); } # FILE NUMBER
database_moved() { [[ $(log_of_database) != "$1" ]]; }

all_agree() { # TEXT
    check "$1: all count on" all_count_on
    check "$1: memory and disk agree" test ! -e "$complaints"
    [[ ! -e $complaints ]] || sed 's/^/# /' "$complaints"
}

# Arguments for `ckpt checkpoint`. SQLite has locks.
checkpoint_group() { # OPTION...
    ckpt checkpoint "$image" --criu "${group[0]}" --criu "${group[1]}" --criu "${group[2]}" \
        --fs "$mnt" "$@" -- --file-locks
}

# Whatever is left of them.
end_programs() {
    pkill -KILL -f "$members" || true
    wait_until "the programs' end" fails pgrep -f "$members"
}
