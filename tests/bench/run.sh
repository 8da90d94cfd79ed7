#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures ckpt against the bars of docs/benchmarks.md, with nbdkit, nbdcopy and QEMU as its
# opponents.
#
# Usage: run.sh [--quick] [--out FILE.json] [--fs DIR]... and what `bench.py --help` lists.
# Prints a page of tables in Markdown. Exit code 0: measured (bars that are missed included).
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
python=/usr/bin/python3

install_missing() {
    local -A package=([nbdkit]=nbdkit [fio]=fio [findmnt]=util-linux [mkfs.ext4]=e2fsprogs
        [mkfs.xfs]=xfsprogs [nbdcopy]=libnbd-bin [psktool]=gnutls-bin
        [qemu-img]=qemu-utils [qemu-storage-daemon]=qemu-system-common)
    local missing=()
    for tool in "${!package[@]}"; do
        command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
    done
    [[ -x $python ]] || missing+=(python3)
    ((${#missing[@]} == 0)) && return
    local sudo=()
    ((EUID == 0)) || sudo=(sudo)
    "${sudo[@]}" apt-get install -y --no-install-recommends "${missing[@]}" >&2 || {
        echo "run.sh: these packages are needed and cannot be installed: ${missing[*]}" >&2
        exit 1
    }
}

install_missing
export PYTHONDONTWRITEBYTECODE=1
exec "$python" "$here/bench.py" "$@"
