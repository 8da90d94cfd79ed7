#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A checkpoint of a runc container together with the volume that it works on, and back to it.
#
# Usage: runc-checkpoint.sh checkpoint VOLUME MOUNT CONTAINER [NAME]
#        runc-checkpoint.sh restore    VOLUME MOUNT CONTAINER [ID]     ID: last
#
#   VOLUME      the primary image of a volume that is served, without checkpoint-interval=
#   MOUNT       where its disk is mounted; the container has it, or a folder of it, as a bind mount
#   CONTAINER   what runc calls it; it may have ended before a restore
#   NAME, ID    of the checkpoint, as ckpt-tool(1) takes them
#
# The container stands still from before its dump until the checkpoint exists; then it runs on.
# docs/containers.md says what goes back and what does not.
set -euo pipefail

die() { echo "runc-checkpoint: $*" >&2; exit 1; }
usage() { sed -n '6,7s/^# //p' "$0" >&2; exit 2; }

checkpoint() { # NAME
    local bundle
    bundle=$(runc state "$container" | sed -n 's/^  "bundle": "\(.*\)",$/\1/p')
    mkdir "$work/state"
    printf '%s' "$bundle" >"$work/state/bundle"
    sync -f "$mount" # what is written now need not be written while it stands still
    runc pause "$container"
    trap 'runc resume "$container" || true; rm -rf "$work"' EXIT
    runc checkpoint --leave-running --image-path "$work/state/images" --work-path "$work" "$container" ||
        { grep Error "$work/dump.log" >&2; die "there is no checkpoint, the container runs on"; }
    tar -C "$work/state" -cf "$work/state.tar" .
    sync -f "$mount"
    ckpt-tool checkpoint "$volume" --attach runc="$work/state.tar" ${1:+--name "$1"}
}

restore() { # ID
    local id
    id=$(ckpt-tool --json show "$volume" "$1" | sed -n 's/.*"checkpoint":\([0-9]*\).*/\1/p')
    ckpt-tool -q export "$volume" "$id" - --attachment runc | tar -C "$work" -x
    runc delete --force "$container"
    ckpt-tool rollback "$volume" "$id" --fs "$mount" --yes
    # What is a pipe to the container must not be this script's: it would never be closed.
    runc --log "$work/runc.log" restore --detach --image-path "$work/images" --work-path "$work" \
        --bundle "$(<"$work/bundle")" "$container" </dev/null >/dev/null 2>&1 ||
        { cat "$work/runc.log" >&2; grep Error "$work/restore.log" >&2; die "the disk went back, the container did not"; }
}

(($# == 4 || $# == 5)) || usage
volume=$2 mount=$3 container=$4
work=$(mktemp -d "${TMPDIR:-/var/tmp}/runc-checkpoint.XXXXXX")
trap 'rm -rf "$work"' EXIT
case $1 in
checkpoint) checkpoint "${5-}" ;;
restore) restore "${5-last}" ;;
*) usage ;;
esac
