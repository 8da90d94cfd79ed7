#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: docs/tutorial.md, command by command (tutorial.py), as root on a machine with ckpt installed.
#
# Usage: tutorial.sh BUILD [--record]; /dev/vda is a scratch disk. With --record the page with this run's output is left in /out.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest-lib.sh" "$1"
here=$(dirname "${BASH_SOURCE[0]}")

# In the guest's own root, which lives in memory: what `meson install` would do.
install_product() {
    local plugins
    plugins=$(nbdkit --dump-config | sed -n 's/^plugindir=//p')
    mkdir -p /usr/local/bin "$plugins"
    cp "$build/plugin/nbdkit-ckpt-plugin.so" "$plugins/"
    cp "$build/tools/ckpt-tool" /usr/local/bin/
}

install_product
modprobe tun # systemd-tmpfiles makes /dev/net/tun, which loads it
mkfs.ext4 -q /dev/vda
mkdir -p /srv/disks /srv/data
mount /dev/vda /srv/disks
cd /srv/disks
if [[ ${2:-} == --record ]]; then
    /usr/bin/python3 "$here/tutorial.py" "$here/../../docs/tutorial.md" --record >/out/tutorial.md
else
    /usr/bin/python3 "$here/tutorial.py" "$here/../../docs/tutorial.md"
fi
finish
