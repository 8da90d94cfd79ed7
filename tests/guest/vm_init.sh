#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
#
# /sbin/init of the machine whose root is a volume (vm_install.sh). Counts its boots on its disk, compares
# its files with the list of the installation, does what act= on the kernel's command line says, and
# powers off. Its lines on the console are what vm_on_volume.sh looks at.

/bin/busybox mount -o remount,rw /
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin

power_off() {
    sync
    mount -o remount,ro / || echo "vm: cannot make the root read-only"
    poweroff -f
}

# Nothing of the list is missing or different. Nothing else counts.
compare_files() {
    if (cd / && sha256sum -c /var/manifest >/tmp/compared 2>&1); then
        echo "vm: files as installed: $(wc -l </var/manifest)"
    else
        echo "vm: files differ: $(grep -vc ': OK$' /tmp/compared)"
    fi
}

# What makes people want a rollback.
ruin() {
    rm -rf /usr/share
    find /usr/lib -name '*.py' | head -n 50 | while read -r file; do
        dd if=/dev/urandom of="$file" bs=4k count=4 conv=notrunc 2>/dev/null
    done
    dd if=/dev/urandom of=/var/log/noise bs=1M count=24 2>/dev/null
    sync
    fstrim / && echo "vm: trimmed"
    echo "vm: ruined"
}

# Writes for some seconds, each line on the disk before the next; the server restarts meanwhile.
write_through() {
    echo "vm: writing"
    number=0
    while [ "$number" -lt 40 ]; do
        number=$((number + 1))
        echo "$number" >>/var/log/lines
        sync /var/log/lines || echo "vm: sync failed at $number"
        usleep 200000
    done
    echo 3 >/proc/sys/vm/drop_caches
    echo "vm: wrote $(wc -l </var/log/lines) lines, last $(tail -n 1 /var/log/lines)"
}

boots=$(($(cat /var/boots) + 1))
echo "$boots" >/var/boots
echo "vm: boot $boots"
compare_files
case " $(cat /proc/cmdline) " in
*" act=ruin "*) ruin ;;
*" act=write "*) write_through ;;
esac
power_off
