#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A checkpoint of a podman container together with the volume that it works on, and back to it.
#
# Usage: podman-checkpoint.sh checkpoint VOLUME MOUNT CONTAINER [NAME]
#        podman-checkpoint.sh restore    VOLUME MOUNT CONTAINER [ID]     ID: last
#
#   VOLUME      the primary image of a volume that is served, without checkpoint-interval=
#   MOUNT       where its disk is mounted; the container has it, or a folder of it, by podman run -v
#   CONTAINER   its name, not its number; its runtime is runc-paused. It may be gone before a restore
#   NAME, ID    of the checkpoint, as ckpt-tool(1) takes them
#
# The container stands still from before its dump until the checkpoint exists; then it runs on.
# docs/containers.md says what goes back and what does not.
set -euo pipefail

die() { echo "podman-checkpoint: $*" >&2; exit 1; }
usage() { sed -n '6,7s/^# //p' "$0" >&2; exit 2; }

# podman knows nothing of it.
is_paused() { runc state "$number" | grep -q '"status": "paused"'; }
resume() { ! is_paused || runc resume "$number"; }

checkpoint() { # NAME
    number=$(podman inspect --type container --format '{{.Id}}' "$container")
    [[ $(podman inspect --type container --format '{{.OCIRuntime}}' "$container") == runc-paused ]] ||
        die "$container was not created with --runtime runc-paused"
    sync -f "$mount" # what is written now need not be written while it stands still
    trap 'resume || true; rm -rf "$work"' EXIT
    podman container checkpoint --leave-running --export "$work/podman.tar" "$container" >/dev/null
    is_paused || die "$container is not paused: there is no checkpoint"
    sync -f "$mount"
    ckpt-tool checkpoint "$volume" --attach podman="$work/podman.tar" ${1:+--name "$1"}
}

restore() { # ID
    local id
    id=$(ckpt-tool --json show "$volume" "$1" | sed -n 's/.*"checkpoint":\([0-9]*\).*/\1/p')
    ckpt-tool -q export "$volume" "$id" - --attachment podman >"$work/podman.tar"
    podman rm --force --ignore --time 0 "$container" >/dev/null
    ckpt-tool rollback "$volume" "$id" --fs "$mount" --yes
    podman container restore --import "$work/podman.tar" >/dev/null
}

(($# == 4 || $# == 5)) || usage
volume=$2 mount=$3 container=$4
work=$(mktemp -d "${TMPDIR:-/var/tmp}/podman-checkpoint.XXXXXX")
trap 'rm -rf "$work"' EXIT
case $1 in
checkpoint) checkpoint "${5-}" ;;
restore) restore "${5-last}" ;;
*) usage ;;
esac
