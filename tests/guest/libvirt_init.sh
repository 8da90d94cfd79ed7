#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
#
# /sbin/init of the machine that libvirt.sh starts: counts its boots on its disk, writes to it, and powers
# off when the console says so.

/bin/busybox mount -o remount,rw /
/bin/busybox --install -s /bin
export PATH=/bin
echo boot >>/var/boots
sync
echo "vm: boot $(wc -l </var/boots)"

while :; do
    number=$((number + 1))
    echo "$number" >/var/number
    sync /var/number || echo "vm: sync failed at $number"
    sleep 1
done &
until read -r line && [ "$line" = off ]; do :; done
kill $!
sync
mount -o remount,ro / || echo "vm: cannot make the root read-only"
poweroff -f
