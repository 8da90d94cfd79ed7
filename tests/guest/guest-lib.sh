# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the scripts that run in the guest share: the verdict lines, the server under test, ckpt-tool.
# Sourced, with the build folder as its only argument.
# shellcheck disable=SC2034 # functions set variables for their caller

build=$1
# Not below /out: sockets do not work on 9p.
readonly socket=/run/nbd.sock
readonly pid_file=/run/nbdkit.pid
readonly backupd_pid_file=/run/backupd.pid
readonly nbdkit_log=/out/nbdkit.log
failures=0
under=() # a command that becomes the server, such as "ip netns exec NAME"
under_backupd=()

ok() { echo "ok - $*"; }
not_ok() { echo "not ok - $*"; failures=$((failures + 1)); }

# With "set -e" a script ends at the first command that fails; this says which one it was.
set -E
trap 'not_ok "line $LINENO: $BASH_COMMAND"' ERR

# Runs a command, its output to the console, and says whether it succeeded.
check() { # TEXT COMMAND...
    local text=$1 code=0
    shift
    "$@" || code=$?
    if ((code == 0)); then ok "$text"; else not_ok "$text (exit code $code: $*)"; fi
}

fails() { ! "$@"; }

fails_with() { # CODE COMMAND...
    local expected=$1 code=0
    shift
    "$@" || code=$?
    ((code == expected))
}

equal() { # TEXT EXPECTED ACTUAL
    if [[ $2 == "$3" ]]; then ok "$1"; else not_ok "$1: expected '$2', got '$3'"; fi
}

# What cannot go wrong if the product is right, or makes the rest pointless.
die() { not_ok "$*"; [[ ! -s $nbdkit_log ]] || tail -n 20 "$nbdkit_log"; exit 1; }

finish() { exit $((failures > 0)); }

# Waits up to 60 s: the guest is emulated and may have to share its processors.
patience=60 # seconds
wait_until() { # TEXT COMMAND...
    local text=$1 tries
    shift
    for ((tries = 0; tries < patience * 10; tries++)); do
        if "$@"; then return 0; fi
        sleep 0.1
    done
    die "waited $patience s for: $text"
}

server_up_or_dead() { [[ -s $pid_file ]] || ! kill -0 "$server" 2>/dev/null; }

# In the foreground, since a daemon's messages would go to a syslog that the guest does not have.
start_server() { # IMAGE [PARAMETER...]
    rm -f "$socket" "$pid_file"
    "${under[@]}" nbdkit -f -U "$socket" -P "$pid_file" "$build/plugin/nbdkit-ckpt-plugin.so" "$@" \
        >>"$nbdkit_log" 2>&1 &
    server=$!
    wait_until "nbdkit's start" server_up_or_dead
    [[ -s $pid_file ]] || die "nbdkit did not start"
}

stop_server() {
    kill "$server"
    check "nbdkit stops cleanly" wait "$server"
}

# In the foreground, like the server. Sets backupd, its process.
start_backupd() { # OPTION...
    rm -f "$backupd_pid_file"
    "${under_backupd[@]}" "$build/backupd/backupd" -f -P "$backupd_pid_file" "$@" >>/out/backupd.log 2>&1 &
    backupd=$!
    wait_until "backupd's start" test -s "$backupd_pid_file"
}

stop_backupd() {
    kill "$backupd"
    check "backupd stops cleanly" wait "$backupd"
}

# Runs ckpt-tool --json; what it says is on the console, its last line in tool_result. Returns the
# tool's exit code.
ckpt() { # COMMAND ARGUMENT...
    local code=0
    "$build/tools/ckpt-tool" --json "$@" >/run/ckpt-tool.out </dev/null || code=$?
    sed 's/^/# /' /run/ckpt-tool.out
    read_tool_result
    return "$code"
}

# For a ckpt that ran in a process of its own.
read_tool_result() { tool_result=$(tail -n 1 /run/ckpt-tool.out); }

# A field of tool_result; empty when it is not there.
result_field() { # NAME
    /usr/bin/python3 -ISc 'import json, sys
print(json.loads(sys.argv[1]).get(sys.argv[2], ""))' "$tool_result" "$1"
}

applied_checkpoint() {
    /usr/bin/python3 -ISc 'import json, sys
print(json.loads(sys.argv[1])["backup"]["applied"])' "$tool_result"
}

# Sets state to what "status" says.
read_state() { # IMAGE
    ckpt status "$1" || die "ckpt-tool status failed"
    state=$(result_field state)
}

nothing_changed() { # IMAGE
    ckpt status "$1" >/dev/null && [[ $(result_field changed_bytes) == 0 ]]
}

# Takes a checkpoint, sets checkpoint to its number, and compares primary and back-up. All of them:
# so the written blocks have to be done with first, which may be after the answer.
checkpoint_and_verify() { # IMAGE
    check "the next checkpoint" ckpt checkpoint "$1"
    checkpoint=$(result_field checkpoint)
    wait_until "no block to count as changed" nothing_changed "$1"
    check "primary and back-up are equal" ckpt verify "$1"
    equal "verify left nothing out" 0 "$(result_field skipped_bytes)"
}
