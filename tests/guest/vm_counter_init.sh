#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
#
# /sbin/init of the machine of vm_rounds.py: makes its root writable and hands over to vm_counter.c, whose
# complaints go to the console (the first serial port), and whose answers to the second. QEMU's agent has the third.

/bin/busybox mount -o remount,rw,noatime / || echo "vm: the root cannot be written"
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin
# The page of the count stays where it is in physical memory.
echo 0 >/proc/sys/vm/compact_unevictable_allowed
/sbin/qemu-ga --method=isa-serial --path=/dev/ttyS2 --statedir=/tmp --pidfile=/tmp/agent.pid >/tmp/agent.log 2>&1 &
exec /sbin/counter </dev/ttyS1 >/dev/ttyS1
