#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the guest tests: boots QEMU guests on Debian's kernel with the product of a build folder.
#
# Usage: run.sh BUILD_DIR [TEST...]   without TEST all but systemd_boot
#        run.sh --list                names them
# CKPT_GUEST_SEED=N repeats the loads and places (not the instants) of an earlier run. CKPT_GUEST_ROUNDS=N [3]: how
# often processes are killed, their machine's power is cut, and a machine goes back with its memory.
# CKPT_POWER_CUT_STATES=N [60]: from how many states of either recording power_cut_states recovers.
# Exit code 0 if all passed. The logs of a failure stay, in a folder that is named.
# shellcheck disable=SC2317 # the tests are called by name
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# The longest first.
tests=(process_rounds process_steps process_power_cuts process_step_cuts process_fail_over run_command vm_faults vm_rounds containers processes vm_on_volume power_cut_states flaky_disk power_cut_while_writing power_cut_during_checkpoint power_cut_of_both tutorial tutorial_vm nbd_rollback_remote kernel_mount nbd_rollback run_on_fuse slow_link mirror libvirt)
(($# >= 1)) || { echo "usage: run.sh BUILD_DIR [TEST...] | --list" >&2; exit 2; }
if [[ $1 == --list ]]; then
    printf '%s\n' "${tests[@]}"
    exit 0
fi
build=$(realpath -e "$1")
seed=${CKPT_GUEST_SEED:-$RANDOM}
rounds=${CKPT_GUEST_ROUNDS:-3}
states=${CKPT_POWER_CUT_STATES:-60}
failed=0
if (($# > 1)); then tests=("${@:2}"); fi
for name in "${tests[@]}"; do
    grep -q "^$name() {" "${BASH_SOURCE[0]}" || { echo "run.sh: no test $name" >&2; exit 2; }
done

for product in plugin/nbdkit-ckpt-plugin.so tools/ckpt-tool backupd/backupd; do
    [[ -e $build/$product ]] || { echo "run.sh: no $build/$product; build it first" >&2; exit 2; }
done
"$here/prepare.sh"
logs=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-guest.XXXXXX")

new_drive() { # FILE: sparse, so it costs what is written to it
    truncate -s 1G "$1"
}

guest() { # the arguments of run-in-guest.sh
    "$here/run-in-guest.sh" --timeout 600 "$@"
}

nbd_rollback() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" "$here/nbd_rollback.sh" "$1" "$build" embedded
}

# Behind backupd, which dies in the middle of everything: at a Unix socket, then by TLS, and
# then with direct I/O.
nbd_rollback_remote() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" "$here/nbd_rollback.sh" "$1" "$build" unix keys
}

kernel_mount() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" "$here/kernel_mount.sh" "$1" "$build"
}

slow_link() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" "$here/slow_link.sh" "$1" "$build"
}

processes() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" --timeout 1200 "$here/processes.sh" "$1" "$build"
}

# A round is three checkpoints and five or six restores.
process_rounds() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" --timeout $((450 + rounds * 300)) "$here/process_rounds.sh" "$1" "$build" "$rounds" "$seed"
}

# The tool dies at some of its steps; all of them in a long run, which are some 200.
process_steps() {
    local points=6
    if ((rounds > 3)); then points=0; fi
    new_drive "$1/drive" || return
    guest --drive "$1/drive" --timeout $((points > 0 ? 900 : 7200)) "$here/process_steps.sh" "$1" "$build" "$points" "$seed" || return
    grep '^# .* deaths' "$1/console.log"
}

# A boot each.
process_power_cuts() {
    local round part=first
    new_drive "$1/drive" || return
    for ((round = 1; round <= rounds; round++)); do
        guest --drive "$1/drive" --kill-on '^cut the power now' \
            "$here/process_power_cut.sh" "$1" "$build" "$part" $((seed + round)) || return
        mv "$1/console.log" "$1/console-$round.log"
        part=again
    done
    guest --drive "$1/drive" "$here/process_power_cut.sh" "$1" "$build" last "$seed"
}

# CKPT_GUEST_CHANGED_MIB: what is in each checkpoint, to see how long programs are away.
process_fail_over() {
    local fail_overs=2 changed_mib=${CKPT_GUEST_CHANGED_MIB:-0}
    if ((rounds > 3)); then fail_overs=20; fi
    truncate -s $((1024 + changed_mib * 8))M "$1/drive" || return
    guest --drive "$1/drive" --timeout $((450 + fail_overs * (200 + changed_mib))) \
        "$here/process_fail_over.sh" "$1" "$build" "$fail_overs" "$changed_mib" || return
    grep -E '^# (ms since|checkpoint)' "$1/console.log"
}

# A boot for each of some steps at which the power is cut; for all of them, some 85, in a long run.
process_step_cuts() {
    local points=2 part=first boots=0 cuts
    if ((rounds > 3)); then points=0; fi
    new_drive "$1/drive" || return
    until [[ $part == again && $(<"$1/points") == "[]" ]]; do
        guest --drive "$1/drive" --kill-on '^cut the power now' \
            "$here/process_step_cut.sh" "$1" "$build" "$part" "$points" "$seed" || return
        mv "$1/console.log" "$1/console-$((++boots)).log"
        part=again
    done
    guest --drive "$1/drive" "$here/process_step_cut.sh" "$1" "$build" last 0 "$seed" || return
    cuts=$(wc -l <"$1/cuts")
    echo "# the power was cut at $cuts steps, $((boots - cuts)) were not reached, seed $seed"
    ((cuts * 2 > boots))
}

# Eleven dumps and ten restores by CRIU, in emulation.
run_command() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" --timeout 1200 "$here/run_command.sh" "$1" "$build"
}

run_on_fuse() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" "$here/run_on_fuse.sh" "$1" "$build"
}

containers() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" "$here/containers.sh" "$1" "$build"
}

tutorial() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" "$here/tutorial.sh" "$1" "$build"
}

# Boots twice.
tutorial_vm() {
    timeout 600 "$here/tutorial_vm.sh" "$1" "$build"
}

# A whole boot and shutdown of systemd, in emulation: slower than the others.
systemd_boot() {
    new_drive "$1/drive" || return
    guest --drive "$1/drive" --timeout 900 "$here/systemd_boot.sh" "$1" "$build"
}

# 6 checkpoints, quiet ones and ones under load in turn, then the console asks for the cut.
power_cut() { # FOLDER MODE PLACE PARAMETER...
    new_drive "$1/drive" || return
    guest --drive "$1/drive" --kill-on '^cut the power now' \
        "$here/power_cut_write.sh" "$1" "$build" "$2" 6 "$seed" "${@:3}" || return
    mv "$1/console.log" "$1/console-before-cut.log"
    guest --drive "$1/drive" "$here/power_cut_check.sh" "$1" "$build" "$2" "${@:3}"
}

power_cut_while_writing() {
    power_cut "$1" writing embedded
}

power_cut_during_checkpoint() {
    power_cut "$1" checkpoint embedded direct=on
}

# The server and backupd, on one machine: one time by TLS, one time at a Unix socket, as the seed is.
power_cut_of_both() {
    local places=(unix keys)
    power_cut "$1" checkpoint "${places[seed % 2]}"
}

# Boots twice, and recovers on this machine.
power_cut_states() {
    local primary store
    while read -r primary store; do
        mkdir "$1/$primary" || return
        /usr/bin/python3 "$here/power_cut_states.py" "$1/$primary" "$build" "$primary" "$store" \
            "$seed" "$states" </dev/null 2>&1 | tee -a "$1/console.log" || return
        rm -r "${1:?}/$primary"
    done <<<$'ext4 xfs\nxfs ext4'
}

# The primary's disk and the store's.
flaky_disk() {
    new_drive "$1/primary" && new_drive "$1/store" || return
    guest --drive "$1/primary" --drive "$1/store" "$here/flaky_disk.sh" "$1" "$build" "$seed" || return
    grep '^# .* checkpoints failed' "$1/console.log"
}

mirror() {
    new_drive "$1/here" && new_drive "$1/there" && new_drive "$1/store" || return
    guest --drive "$1/here" --drive "$1/there" --drive "$1/store" "$here/mirror.sh" "$1" "$build" "$seed"
}

# Boots six times: a machine whose root is a volume.
vm_on_volume() {
    "$here/vm_on_volume.sh" "$1" "$build"
}

# A machine whose memory goes back with its disk: boots twice.
vm_rounds() {
    /usr/bin/python3 "$here/vm_rounds.py" "$1" "$build" "$rounds" "$seed" embedded remote
}

# What is refused, and what is killed in the middle: boots three times.
vm_faults() {
    /usr/bin/python3 "$here/vm_rounds.py" "$1" "$build" "$rounds" "$seed" refused killed
}

# Boots twice: libvirtd's machine.
libvirt() {
    "$here/libvirt.sh" "$1" "$build"
}

show_failure() { # FOLDER
    grep -h -B 12 '^not ok' "$1"/console*.log || tail -n 20 "$1/console.log"
    echo "logs: $1"
}

run_test() { # NAME
    local name=$1 folder=$logs/$1 began=$SECONDS
    mkdir "$folder"
    if "$name" "$folder"; then
        echo "PASS $name ($((SECONDS - began)) s)"
        rm -r "$folder"
    else
        failed=1
        echo "FAIL $name ($((SECONDS - began)) s), seed $seed"
        show_failure "$folder"
    fi
}

for name in "${tests[@]}"; do run_test "$name"; done
((failed == 1)) || rmdir "$logs"
exit "$failed"
