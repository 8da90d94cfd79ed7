# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Where the back-up of the power-cut tests is: in the state directory, or behind backupd by TCP and TLS.
# Sourced after guest-lib.sh, where scratch and image are set.
# shellcheck disable=SC2154 # they are the sourcing script's

readonly address=127.0.0.1:7000
readonly keys=$scratch/keys

make_keys() {
    mkdir "$keys"
    psktool -u web1 -p "$keys/psk" >/dev/null
    printf 'listen = ["%s"]\nstore = "%s/shelf"\ntls-psk = "%s/psk"\n' "$address" "$scratch" "$keys" >"$keys/backupd.toml"
    sync -f "$keys"
}

start_server_at() { # embedded|backupd
    if [[ $1 == embedded ]]; then
        start_server "$image"
        return
    fi
    ip link set lo up
    [[ -n ${backupd:-} ]] || start_backupd --config "$keys/backupd.toml"
    start_server "$image" "backup=$address" "tls-psk=$keys/psk"
}
