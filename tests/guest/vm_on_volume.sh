#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs on the host: a machine is installed on a volume, boots from it, is ruined, is rolled back while
# it is off, and boots as before; then the volume's server restarts under the running machine.
#
# Usage: vm_on_volume.sh FOLDER BUILD. Exit code 0 if all was as it should be; the console logs are
# left in FOLDER.
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
folder=$1
build=$2
readonly image=$folder/root.img
readonly socket=$folder/nbd.sock
readonly uri="nbd+unix:///?socket=$socket"
readonly tool=$build/tools/ckpt-tool
server=

trap '[[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true' EXIT

die() { echo "not ok - $*" | tee -a "$folder/console.log"; exit 1; }
ok() { echo "ok - $*"; }

start_server() {
    rm -f "$socket" "$folder/pid"
    nbdkit -f -U "$socket" -P "$folder/pid" "$build/plugin/nbdkit-ckpt-plugin.so" "$image" size=1G \
        >>"$folder/nbdkit.log" 2>&1 &
    server=$!
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        [[ ! -S $socket || ! -s $folder/pid ]] || return 0
        sleep 0.1
    done
    die "nbdkit did not start: $(tail -n 3 "$folder/nbdkit.log")"
}

stop_server() {
    kill "$server"
    wait "$server" || die "nbdkit did not stop cleanly"
}

boot() { # NAME WORD...: console in NAME.log
    local name=$1
    shift
    "$here/boot-volume.sh" "$socket" "$folder/console-$name.log" "$@" >"$folder/qemu-$name.log" 2>&1 ||
        die "boot '$name' did not end: $(tail -n 3 "$folder/qemu-$name.log" "$folder/console-$name.log")"
}

says() { # NAME TEXT
    tr -d '\r' <"$folder/console-$1.log" | grep -q "^vm: $2" ||
        die "boot '$1' does not say '$2': $(grep -a '^vm: ' "$folder/console-$1.log" | tail -n 5)"
    ok "boot '$1': $2"
}

says_no_error() { # NAME
    if grep -aE 'I/O error|EXT4-fs.*error|sync failed' "$folder/console-$1.log"; then
        die "boot '$1' met an error"
    fi
    ok "boot '$1': no I/O error, no file system error"
}

files() { # the number of files that the installation listed
    sed -nE 's/^installed ([0-9]+) files.*/\1/p' "$folder/console.log"
}

check_file_system() {
    nbdcopy "$uri" "$folder/copy.img"
    e2fsck -fn "$folder/copy.img" >"$folder/fsck.log" 2>&1 || die "e2fsck: $(tail -n 5 "$folder/fsck.log")"
    rm "$folder/copy.img"
    ok "e2fsck is content"
}

install_and_boot() {
    "$here/run-in-guest.sh" --drive "$uri" --timeout 300 "$here/vm_install.sh" "$folder" ||
        die "the installation failed"
    [[ $(files) -gt 1000 ]] || die "only $(files) files were installed"
    boot first
    says first "boot 1"
    says first "files as installed: $(files)"
    "$tool" checkpoint "$image" --name installed || die "no checkpoint"
}

ruin_and_roll_back() {
    boot ruin act=ruin
    says ruin "boot 2"
    says ruin ruined
    boot ruined
    says ruined "files differ"
    "$tool" rollback "$image" installed --yes || die "no rollback"
    check_file_system
    boot restored
    says restored "boot 2"
    says restored "files as installed: $(files)"
}

is_writing() { grep -aqs '^vm: writing' "$folder/console-restart.log"; }

# The server dies under the running machine, which waits for it (reconnect-delay) and notices nothing. By
# SIGKILL: a server that is told to stop (SIGTERM) answers the requests in flight with an error.
restart_server_under_load() {
    boot restart act=write &
    local machine=$! tries
    for ((tries = 0; tries < 600; tries++)); do
        ! is_writing || break
        sleep 0.1
    done
    is_writing || die "boot 'restart' does not write"
    sleep 2
    kill -KILL "$server"
    wait "$server" 2>/dev/null || true
    sleep 2
    start_server
    wait "$machine" || die "the machine did not survive the restart of its server"
    says restart "wrote 40 lines, last 40"
    says_no_error restart
}

start_server
install_and_boot
ruin_and_roll_back
restart_server_under_load
check_file_system
stop_server
rm -f "$image"
