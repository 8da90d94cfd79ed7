#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Boots a QEMU guest with Debian's kernel on this machine's own root file system and runs one script
# in it as root. prepare.sh must have run.
#
# Usage: run-in-guest.sh [--drive FILE|NBD-URI]... [--cpus N] [--timeout S] [--kill-on PATTERN] SCRIPT
#                        OUTDIR [ARG...]
#
#   SCRIPT, ARG   run as "bash SCRIPT ARG..." with / = the host's root, changes kept in memory only
#   OUTDIR        is /out in the guest, writable and uncached; console.log is saved there too
#   --drive       a raw disk, /dev/vda and so on, in the order given; or one that is served:
#                 nbd+unix:///?socket=PATH
#   --cpus        of the guest [2]
#   --timeout     of the whole run [300]
#   --kill-on     an extended regular expression; the first console line that matches cuts the power
#
# Exit code: that of SCRIPT; 0 if the power was cut as told, 1 if it should have been and SCRIPT
# ended with 0 first; 124 timeout; 125 the guest never came up or died, with the console's tail.
#
# Why SIGKILL of QEMU is a power cut. The guest's page cache is memory of the QEMU process: what the
# guest kernel had not written to its disk is gone, which is all that a program's missing fsync
# leaves behind. What the guest kernel did write was handed to the host by a write() that has
# returned; that survives the death of QEMU, in the host's page cache. So the drive acts like a disk
# without a volatile cache of its own: a run proves that nothing relies on the guest's page cache,
# and it cannot show a write that the guest did issue but that lacked a flush. That, and
# reordering between two flushes, is what dm-log-writes is for. cache=writeback tells the guest of a
# write cache, so it does send its flushes, and QEMU makes each an fdatasync of FILE; cache=none
# would be the same cut, but needs O_DIRECT, which tmpfs does not have. cache=unsafe drops flushes.
set -euo pipefail

. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/boot.sh"

cache=${CKPT_GUEST_CACHE:-/var/cache/ckpt-guest}
drives=()
cpus=2
timeout_seconds=300
kill_on=

usage() {
    echo "usage: run-in-guest.sh [--drive FILE|NBD-URI]... [--cpus N] [--timeout S]" \
        "[--kill-on PATTERN] SCRIPT OUTDIR [ARG...]" >&2
    exit 2
}

die() { echo "run-in-guest: $*" >&2; exit 2; }

while (($# > 0)); do
    case $1 in
    --drive | --cpus | --timeout | --kill-on) (($# >= 2)) || usage ;;&
    --drive) drives+=("$2"); shift 2 ;;
    --cpus) cpus=$2; shift 2 ;;
    --timeout) timeout_seconds=$2; shift 2 ;;
    --kill-on) kill_on=$2; shift 2 ;;
    -*) usage ;;
    *) break ;;
    esac
done
(($# >= 2)) || usage
script=$(realpath -e "$1") || die "no script $1"
mkdir -p "$2"
out=$(realpath -e "$2")
shift 2

[[ -s $cache/vmlinux && -s $cache/initrd.img ]] || die "no kernel in $cache; run prepare.sh first"
command -v qemu-system-x86_64 >/dev/null || die "no qemu-system-x86_64; run prepare.sh first"
console_log=$out/console.log
rm -f "$out/started" "$out/exit-code"
: >"$console_log"
printf '%q ' exec bash "$script" "$@" >"$out/guest-command"

# QEMU's own option parser splits at commas; a doubled one is a comma.
escape() { printf '%s' "${1//,/,,}"; }

# KVM may start and never get going where this machine is a guest itself, so: TCG, always.
qemu_arguments() {
    arguments=(-accel "tcg,thread=multi" -cpu max -smp "$cpus" -m 2048
        -nodefaults -display none -no-reboot -serial stdio -nic none
        -kernel "$cache/vmlinux" -initrd "$cache/initrd.img"
        -append "$kernel_words"
        -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
        -virtfs "local,path=$(escape "$out"),mount_tag=out,security_model=none,multidevs=remap")
    local drive path
    for drive in "${drives[@]}"; do
        if [[ $drive == nbd* ]]; then
            path=$drive
        else
            path=$(realpath -e "$drive") || die "no drive $drive"
        fi
        arguments+=(-drive "file=$(escape "$path"),format=raw,if=virtio,cache=writeback,discard=unmap")
    done
}

# Copies the console to its log, line by line, until QEMU ends, the pattern shows up or the time is
# over. Sets outcome to ended, killed, timeout, or stuck: the kernel did not come to /init.
watch_console() {
    local line left late=stuck end=$((SECONDS + up_seconds))
    outcome=ended
    ((end < timeout_seconds)) || { late=timeout end=$timeout_seconds; }
    while :; do
        left=$((end - SECONDS))
        ((left > 0)) || { outcome=$late; return; }
        IFS= read -r -t "$left" -u "$console" line || {
            (($? <= 128)) || outcome=$late # or the end of the console
            printf '%s' "$line" >>"$console_log"
            return 0
        }
        line=${line%$'\r'}
        [[ $line != "$up_line" ]] || { late=timeout end=$timeout_seconds; }
        if [[ -n $kill_on && $line =~ $kill_on ]]; then
            kill -KILL "$qemu"
            outcome=killed
        fi
        printf '%s\n' "$line" >>"$console_log"
        [[ $outcome == ended ]] || return 0
    done
}

tail_console() {
    echo "run-in-guest: $1; the end of $console_log:" >&2
    tail -n 40 "$console_log" | sed 's/^/    /' >&2
}

# Boots the guest and watches it to its end.
boot() {
    exec {console}< <(exec qemu-system-x86_64 "${arguments[@]}" </dev/null 2>&1)
    qemu=$!
    trap 'kill -KILL "$qemu" 2>/dev/null || true' EXIT
    watch_console
    [[ $outcome == ended ]] || kill -KILL "$qemu" 2>/dev/null || true
    wait "$qemu" || true # whoever boots the same drive next must find no QEMU on it
    exec {console}<&-
}

SECONDS=0
qemu_arguments
for ((tries = 1; tries <= up_tries; tries++)); do
    boot
    [[ $outcome == stuck ]] || break
    echo "run-in-guest: boot $tries: the kernel did not come to /init in $up_seconds s" |
        tee -a "$console_log" >&2
    [[ $tries == "$up_tries" ]] || timeout_seconds=$((timeout_seconds + up_seconds))
done

case $outcome in
killed) exit 0 ;;
timeout | stuck)
    [[ -e $out/started ]] || { tail_console "the guest did not come up in time"; exit 125; }
    tail_console "no end after $timeout_seconds s"
    exit 124
    ;;
esac
[[ -e $out/started ]] || { tail_console "the guest never came up"; exit 125; }
[[ -s $out/exit-code ]] || { tail_console "the guest died before the script ended"; exit 125; }
code=$(<"$out/exit-code")
if [[ -n $kill_on && $code == 0 ]]; then
    echo "run-in-guest: the script ended before the power was cut" >&2
    exit 1
fi
exit "$code"
