#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Process 1 of the test guest: mounts what a test expects, runs /out/guest-command, leaves its exit
# code in /out/exit-code and powers off. run-in-guest.sh reads these files on the host. A command that
# leaves an executable /run/init is taken over by that, which then sees to all the rest.
set -u

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

# Never returns: when process 1 ends, the kernel panics.
power_off() {
    sync
    busybox poweroff -f
    while :; do sleep 60; done
}

mkdir -p /dev/pts /dev/shm /out
mount -t devpts devpts /dev/pts
ln -s /proc/self/fd /dev/fd # devtmpfs does not have it; bash's <(...) needs it
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox ip link set lo up

# cache=none: what a test writes to /out is on the host when write() returns, so it survives the
# power cut of this guest.
if ! mount -t 9p -o rw,trans=virtio,version=9p2000.L,msize=262144,cache=none out /out; then
    echo "guest-main: cannot mount the output folder"
    power_off
fi

touch /out/started
cd / || power_off
bash /out/guest-command </dev/null
code=$?
[[ $code != 0 || ! -x /run/init ]] || exec /run/init
echo "$code" >/out/exit-code
power_off
