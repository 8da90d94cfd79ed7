#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: containers of runc and podman go back with their disk, by the scripts of
# docs/examples. docs/containers.md has what they say.
#
# Usage: containers.sh BUILD; /dev/vda is a scratch disk.
# shellcheck disable=SC2317,SC2119 # what check calls; attach needs no more options
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$here/guest-lib.sh" "$1"
# shellcheck source-path=SCRIPTDIR
. "$here/kernel-client.sh"

examples=$(realpath "$here/../../docs/examples")
readonly bundle=/run/scratch/bundle
readonly name=counter # of the container
PATH=$build/tools:/run/bin:$PATH

# Only busybox is in it. Its number is in a variable and in a file on the volume; where they do not
# agree it ends.
make_root() {
    local applet root=$bundle/rootfs
    mkdir -p "$root"/{bin,data,proc,sys,dev}
    cp /bin/busybox "$root/bin/"
    for applet in sh sleep; do ln -s busybox "$root/bin/$applet"; done
    cat >"$root/counter.sh" <<'END'
n=0
while :; do
    if [ $n -gt 0 ]; then
        read -r found </data/count
        [ "$found" = $n ] || { echo "in memory $n, in the file $found" >/data/complaint; exit 1; }
    fi
    n=$((n + 1))
    echo $n 1<>/data/count
    sleep 0.02
done
END
}

make_bundle() {
    (cd "$bundle" && runc spec)
    /usr/bin/python3 -IS - "$bundle/config.json" "$mnt" <<'END'
import json, sys
path, source = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    spec = json.load(file)
spec["process"].update(terminal=False, args=["sh", "/counter.sh"])
spec["mounts"].append({"destination": "/data", "type": "bind", "source": source, "options": ["bind"]})
with open(path, "w", encoding="utf-8") as file:
    json.dump(spec, file)
END
}

# This guest has no systemd, and overlayfs cannot be on its root, which is one.
configure_podman() {
    mkdir -p /etc/containers /run/bin
    cp "$examples/runc-paused" /run/bin/
    cat >/etc/containers/containers.conf <<'END'
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
runc-paused = ["/run/bin/runc-paused"]
END
    cat >/etc/containers/storage.conf <<'END'
[storage]
driver = "overlay"
graphroot = "/run/scratch/containers"
runroot = "/run/containers"
END
    tar -C "$bundle/rootfs" -c . | podman import --quiet - busybox
}

count() { cat "$mnt/count"; }

counts_on() {
    local before
    before=$(count)
    sleep 1
    (($(count) > before))
}

agrees() { # TEXT
    check "$1: it counts on" counts_on
    check "$1: memory and file agree" test ! -e "$mnt/complaint"
}

starts() {
    wait_until "the container's start" test -s "$mnt/count"
    sleep 1
}

readonly later=$mnt/later # a file that is not in the checkpoint

takes_a_checkpoint() { # SCRIPT
    counted=$(count)
    check "$1: a checkpoint" "$examples/$1-checkpoint.sh" checkpoint "$image" "$mnt" "$name" "$1"
    agrees "$1: after the checkpoint"
}

goes_back() { # SCRIPT TEXT
    touch "$later"
    check "$1: back, $2" "$examples/$1-checkpoint.sh" restore "$image" "$mnt" "$name"
    check "$1: $2: what came later is gone" test ! -e "$later"
    check "$1: $2: what came before is not" test "$(count)" -ge "$counted"
    agrees "$1: $2"
}

runc_container() {
    make_bundle
    runc run --detach --bundle "$bundle" "$name" </dev/null >/dev/null 2>&1
    starts
    takes_a_checkpoint runc
    goes_back runc "while it runs"
    runc delete --force "$name"
    goes_back runc "when it is gone"
    runc delete --force "$name"
}

podman_run() { # RUNTIME
    rm -f "$mnt/count"
    podman --runtime "$1" run --detach --name "$name" --network none \
        -v "$mnt:/data" busybox sh /counter.sh
    starts
}

podman_container() {
    configure_podman
    podman_run runc-paused
    takes_a_checkpoint podman
    goes_back podman "while it runs"
    podman rm --force --time 0 "$name"
}

# The container ends with the dump, and is restored after the checkpoint: without runc-paused.
podman_that_ends() {
    podman_run runc
    check "podman with runc alone is refused" \
        fails "$examples/podman-checkpoint.sh" checkpoint "$image" "$mnt" "$name"
    check "podman ends it with its dump" podman container checkpoint --export /run/podman.tar "$name"
    counted=$(count)
    sync -f "$mnt"
    check "a checkpoint of what it left" ckpt checkpoint "$image" --attach podman=/run/podman.tar
    check "it goes on" podman container restore "$name"
    agrees "podman: after its end"
    podman rm --force --time 0 "$name"
    goes_back podman "when it is gone"
    podman rm --force --time 0 "$name"
}

prepare_scratch 128M
load_criu_modules
start_server "$image"
attach
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk"
mount "$disk" "$mnt"
make_root
runc_container
podman_container
podman_that_ends
umount "$mnt"
check "e2fsck finds nothing to repair" e2fsck -fn "$disk"
detach
stop_server
finish
