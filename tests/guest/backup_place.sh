# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Where the back-up of a test is: in the state directory (embedded), behind backupd at a Unix socket (unix),
# or behind it by TCP and TLS (keys). Sourced after guest-lib.sh, where scratch and image are set.
# shellcheck disable=SC2154 # they are the sourcing script's

readonly address=127.0.0.1:7000
readonly local_address=unix:/run/backupd.sock
readonly keys=$scratch/keys
readonly shelf=$scratch/shelf

make_keys() {
    mkdir "$keys"
    psktool -u web1 -p "$keys/psk" >/dev/null
    printf 'listen = ["%s", "%s"]\nstore = "%s"\ntls-psk = "%s/psk"\n' "$address" "$local_address" \
        "$shelf" "$keys" >"$keys/backupd.toml"
    sync -f "$keys"
}

start_backupd_with_keys() { start_backupd --config "$keys/backupd.toml"; }

start_server_at() { # embedded|unix|keys PARAMETER...
    local place=$1 link=()
    shift
    case $place in
    unix) link=("backup=$local_address") ;;
    keys) link=("backup=$address" "tls-psk=$keys/psk") ;;
    esac
    if [[ $place != embedded && -z ${backupd:-} ]]; then
        ip link set lo up
        start_backupd_with_keys
    fi
    start_server "$image" "${link[@]}" "$@"
}

# Sets backed_up to the image of the server's back-up.
find_backup_image() {
    ckpt status "$image" >/dev/null || die "ckpt-tool status failed"
    backed_up=$shelf/$(result_field volume)/backup.img
    [[ -e $backed_up ]] || backed_up=$(find "$image.ckpt/store" -name backup.img)
}
