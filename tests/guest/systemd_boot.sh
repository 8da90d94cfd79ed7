#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest: a machine that systemd boots, with a file system on a volume in its fstab, set
# up as ckpt@.service(8) says. Looked at from boot to shutdown; the server is killed in between, and
# another volume is served as libvirt's hook does it.
#
# Usage: systemd_boot.sh BUILD; /dev/vda is a scratch disk. Process 1 becomes systemd
# (guest-main.sh), and two units go on with this script: "up" when all is mounted, "down" when the
# server has stopped.
set -euo pipefail

me=$(realpath "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$me")/guest-lib.sh" "$1"

top=$(realpath "$(dirname "$me")/../..")
readonly me top image=/srv/disks/data.img failed=/run/failed

# What a package would bring.
install_product() {
    install -m 644 "$build/plugin/nbdkit-ckpt-plugin.so" \
        "$(nbdkit --dump-config | sed -n 's/^plugindir=//p')/"
    install -m 644 "$top"/systemd/ckpt@.{service,socket} /lib/systemd/system/
}

# What the manual tells people to do.
configure() {
    mkdir -p /etc/ckpt /etc/systemd/system/nbd@nbd0.service.d /srv/disks /srv/data
    printf 'IMAGE=%s\nPARAMETERS=size=256M batch-delay=200\n' "$image" >/etc/ckpt/data.conf
    echo "nbd0 /run/ckpt/data.sock data unix" >/etc/nbdtab
    printf '[Unit]\nRequires=ckpt@data.socket\nAfter=ckpt@data.socket ckpt@data.service\n' \
        >/etc/systemd/system/nbd@nbd0.service.d/override.conf
    echo nbd >/etc/modules-load.d/nbd.conf
    local patience=x-systemd.device-timeout=10min # the machine is emulated
    printf '%s\n' "/dev/vda /srv/disks ext4 defaults 0 0" \
        "/dev/nbd0 /srv/data ext4 _netdev,x-systemd.requires=nbd@nbd0.service,$patience 0 0" \
        >/etc/fstab
    systemctl enable --quiet ckpt@data.service
}

# The volume and its file system are there from before.
make_file_system() {
    mkfs.ext4 -q /dev/vda
    mount /dev/vda /srv/disks
    modprobe nbd
    start_server "$image" size=256M
    nbd-client -unix "$socket" /dev/nbd0 -b 4096 >/dev/null
    mkfs.ext4 -q /dev/nbd0
    nbd-client -d /dev/nbd0 >/dev/null
    stop_server
    umount /srv/disks
}

# Only what this is about is started: this machine's other services stay out of it.
make_target() {
    cat >/etc/systemd/system/ckpt-test.target <<'UNIT'
[Unit]
Requires=basic.target
Wants=remote-fs.target sockets.target ckpt@data.service ckpt-up.service ckpt-down.service
UNIT
    cat >/etc/systemd/system/ckpt-up.service <<UNIT
[Unit]
After=remote-fs.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/bash $me $build up
UNIT
    cat >/etc/systemd/system/ckpt-down.service <<UNIT
[Unit]
RequiresMountsFor=/srv/disks /out
Before=ckpt@data.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStop=/bin/bash $me $build down
UNIT
}

# Not the container that this machine may be, and without what only its own boots need.
become_systemd() {
    rm -f /.dockerenv
    systemctl mask --quiet systemd-hwdb-update.service systemd-journal-catalog-update.service \
        systemd-sysusers.service systemd-random-seed.service systemd-pstore.service dbus.socket \
        modprobe@{configfs,efi_pstore,fuse,dm_mod,drm,loop}.service systemd-timesyncd.service \
        systemd-tmpfiles-{setup,setup-dev}.service systemd-networkd.service \
        systemd-update-utmp.service systemd-resolved.service
    printf '#!/bin/sh\nexec /lib/systemd/systemd --unit=ckpt-test.target --show-status=no\n' \
        >/run/init
    chmod +x /run/init
}

property() { # UNIT NAME
    systemctl show --value -p "$2" "$1"
}

is_before() { # UNIT UNIT: became active in this order
    local time=ActiveEnterTimestampMonotonic
    (($(property "$1" $time) <= $(property "$2" $time)))
}

is_attached() { ! grep -q '^0$' /sys/block/nbd0/size; }
maps() { find /run/ckpt -maxdepth 1 -type f -printf '%i %f\n'; }
# PF_MEMALLOC_NOIO, of prctl(PR_SET_IO_FLUSHER), for which a capability is left.
has_memory_flag() { (($(awk '{print $9}' "/proc/$1/stat") & 0x80000)); } # PID
server_runs() { [[ $(property ckpt@data.service SubState) == running ]]; }
server_was_restarted() { server_runs && (($(property ckpt@data.service NRestarts) == 1)); }

look_at_boot() {
    equal "the file system is mounted" /dev/nbd0 "$(findmnt -no SOURCE /srv/data || true)"
    equal "the server runs" active "$(property ckpt@data.service ActiveState)"
    check "the server came before the client" is_before ckpt@data.service nbd@nbd0.service
    check "the client came before the mount" is_before nbd@nbd0.service srv-data.mount
    equal "the written maps are in /run/ckpt" 1 "$(maps | wc -l)"
    equal "they are none of /dev/shm" "" "$(find /dev/shm -name 'ckpt*')"
    ckpt status "$image"
    check "io_uring is allowed" grep -q uring <<<"$(result_field io)"
    check "it may write while memory is short" \
        has_memory_flag "$(property ckpt@data.service MainPID)"
}

work_and_kill() {
    echo "as at the checkpoint" >/srv/data/file
    sync -f /srv/data
    check "a checkpoint" ckpt checkpoint "$image" --name booted
    echo "written later" >/srv/data/file
    sync -f /srv/data
    local before
    before=$(maps)
    systemctl kill --signal=KILL ckpt@data.service
    wait_until "the server's restart" server_was_restarted
    equal "the maps outlived the server" "$before" "$(maps)"
    umount /srv/data || true # the kernel's client has lost its server
    systemctl restart nbd@nbd0.service
    wait_until "the client's return" is_attached
    ckpt status "$image"
    check "the maps were exact: little counts as changed" \
        test "$(result_field changed_bytes)" -lt 4194304
    mount /srv/data
    equal "a synced write outlived the server" "written later" "$(cat /srv/data/file)"
}

go_back() {
    umount /srv/data
    systemctl stop nbd@nbd0.service
    check "a rollback" ckpt rollback "$image" booted --yes
    systemctl start nbd@nbd0.service
    wait_until "the client's return" is_attached
    mount /srv/data
    equal "the file is as at the checkpoint" "as at the checkpoint" "$(cat /srv/data/file)"
}

# The hook that libvirt calls for its machines, with as much of a machine's XML as it looks at.
hook() { # OPERATION SUB-OPERATION
    PATH=$build/tools:$PATH "$top/libvirt/qemu.d/ckpt" web "$@" - <<'XML'
<domain type='qemu' id='1'>
  <uuid>03f09bad-4e33-4aa5-970c-5cb8c45c0fe1</uuid>
        <host transport='unix' socket='/run/ckpt/web.sock'/>
</domain>
XML
}

web_has_stopped() {
    [[ $(property ckpt@web.service ActiveState) == inactive && ! -e /run/ckpt/web.sock ]]
}

serve_a_machine() {
    echo "IMAGE=/srv/disks/web.img" >/etc/ckpt/web.conf
    check "the hook refuses a machine without its image" fails_with 1 hook prepare begin 2>/run/refusal
    cat /run/refusal
    check "it says what the server said" grep -q "web.img does not exist" /run/refusal
    check "the hook, after the refusal" hook release end
    wait_until "the end of the unit that failed" web_has_stopped
    truncate -s 64M /srv/disks/web.img
    check "the hook serves a machine's volume" hook prepare begin
    equal "it is the unit that serves it" active "$(property ckpt@web.service ActiveState)"
    ckpt status /srv/disks/web.img
    equal "the volume can be used" running "$(result_field state)"
    check "the hook, when the machine is off" hook release end
    wait_until "the end of the unit" web_has_stopped
    equal "the unit ended cleanly" success "$(property ckpt@web.service Result)"
}

# When the server's stop job is done: what used it must have ended before, and cleanly.
look_at_shutdown() {
    equal "the file system was unmounted" "" "$(findmnt -no SOURCE /srv/data || true)"
    check "the client was detached" grep -q '^0$' /sys/block/nbd0/size
    equal "the server has stopped" inactive "$(property ckpt@data.service ActiveState)"
    equal "the server stopped cleanly" success "$(property ckpt@data.service Result)"
    check "it left its map" test -s /srv/disks/data.img.ckpt/saved-map
    ckpt status "$image"
    equal "no server runs" stopped "$(result_field state)"
    equal "nothing is wrong" "" "$(result_field problem)"
}

case ${2:-} in
"")
    install_product
    configure
    make_file_system
    make_target
    become_systemd
    ;;
up)
    exec >/dev/console 2>&1
    trap 'systemctl poweroff --no-block' EXIT
    touch "$failed"
    look_at_boot
    work_and_kill
    go_back
    serve_a_machine
    ((failures > 0)) || rm "$failed"
    ;;
down)
    exec >/dev/console 2>&1
    look_at_shutdown
    [[ ! -e $failed ]] || not_ok "something was wrong before the shutdown"
    echo "$((failures > 0))" >/out/exit-code
    sync
    ;;
esac
