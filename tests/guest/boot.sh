# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: Apache-2.0
#
# What every boot of the test guest's kernel has in common. Sourced by those who start QEMU.
#
# Now and then an emulated processor gets stuck before the kernel has come to /init (seen: twelve
# minutes in a self-test of a cipher, until the test's time was over). Nothing of ours has run by
# then, so whoever started it starts it again, and says so. A guest that has come to /init is
# never given a second chance.

# The self-tests of the ciphers are left out: they are the kernel's business, and take seconds. So is
# the one of the timer's interrupt: on a busy machine an emulated timer fails it, and the kernel panics.
readonly kernel_words="console=ttyS0 loglevel=4 panic=-1 mitigations=off cryptomgr.notests no_timer_check"

# The first line of guest-init.sh, how many seconds a kernel may take to it (it takes 3, and ten
# times as long on a busy machine), and how many boots may get stuck.
readonly up_line="guest-init: up"
readonly up_seconds=120
readonly up_tries=3
