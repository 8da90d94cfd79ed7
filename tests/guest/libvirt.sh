#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs on the host: a libvirtd of its own starts a machine whose only disk is a volume. The hook
# libvirt/qemu.d/ckpt serves the volume for it, and stops the server when the machine is off. Both
# ways of docs/vm.md to give a machine its volume.
#
# Usage: libvirt.sh FOLDER BUILD, as root. Exit code 0 if all was as it should be; logs are left in
# FOLDER. libvirt's folders, /etc, /run and the numbers of processes are private: what is started
# ends with this script.
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source-path=SCRIPTDIR
. "$here/boot.sh"
folder=$1
build=$2
cache=${CKPT_GUEST_CACHE:-/var/cache/ckpt-guest}
readonly image=$folder/web.img log=$folder/console.log
readonly hook=$here/../../libvirt/qemu.d/ckpt

die() {
    echo "not ok - $*" | tee -a "$log"
    tail -n 5 "$folder"/libvirt/libvirtd.log "$folder"/libvirt/qemu/*.log 2>/dev/null || true
    exit 1
}
ok() { echo "ok - $*"; }

if [[ ${3-} != inside ]]; then
    ((EUID == 0)) || die "libvirtd's folders can be made private by root only"
    exec unshare --mount --pid --fork --mount-proc --kill-child "$0" "$folder" "$build" inside
fi

# The machine is emulated. Where /dev/kvm is there and does not work, libvirtd asks QEMU for its abilities again and
# again, which takes half of a minute.
hide_kvm() {
    [[ -e /dev/kvm ]] || return 0
    (umask 077 && : >/run/no-kvm)
    mount --bind /run/no-kvm /dev/kvm
}

# The plugin is where nbdkit looks for it, and ckpt-tool where programs are: as installed.
make_private() {
    local plugins
    plugins=$(nbdkit --dump-config | sed -n 's/^plugindir=//p')
    mount -t tmpfs -o mode=755 run /run
    cp -a /etc /run/etc
    cp -a "$plugins" /run/plugins
    cp "$build/plugin/nbdkit-ckpt-plugin.so" /run/plugins/
    cp "$cache"/{vmlinux,initrd.img} /run/
    mount --bind /run/etc /etc
    mount --bind /run/plugins "$plugins"
    mkdir -p /var/{lib,cache,log}/libvirt "$folder/libvirt" /etc/{ckpt,libvirt}
    mount -t tmpfs -o mode=755 lib /var/lib/libvirt
    mount -t tmpfs -o mode=755 cache /var/cache/libvirt
    mount --bind "$folder/libvirt" /var/log/libvirt
    hide_kvm
    export PATH=$build/tools:$PATH LIBVIRT_DEFAULT_URI=qemu:///system
}

# Whom QEMU runs as, as libvirt-daemon-system makes it. The services that come with that package are not wanted.
make_user() {
    ! id libvirt-qemu >/dev/null 2>&1 || return 0
    echo 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin' >>/etc/passwd
    echo 'libvirt-qemu:x:64055:' >>/etc/group
}

# Without what a container may not have (cgroups, AppArmor, virtlogd), and with /dev as it is here.
configure_libvirt() {
    printf '%s\n' 'user = "libvirt-qemu"' "group = \"$(id -gn libvirt-qemu)\"" \
        'security_driver = "none"' 'stdio_handler = "file"' 'cgroup_controllers = [ ]' \
        'namespaces = [ ]' 'remember_owner = 0' >/etc/libvirt/qemu.conf
    printf '%s\n' 'auth_unix_ro = "none"' 'auth_unix_rw = "none"' \
        'log_outputs = "3:file:/var/log/libvirt/libvirtd.log"' >/etc/libvirt/libvirtd.conf
    rm -rf /etc/libvirt/hooks /etc/libvirt/qemu/{autostart,networks}
    install -D -m 755 "$hook" /etc/libvirt/hooks/qemu.d/ckpt
}

wait_until() { # TEXT COMMAND...: up to 60 s
    local text=$1 tries
    shift
    for ((tries = 0; tries < 600; tries++)); do
        if "$@"; then return; fi
        sleep 0.1
    done
    die "waited 60 s for: $text"
}

libvirt_answers() { virsh version >/dev/null 2>&1; }

start_libvirt() {
    libvirtd >>"$folder/libvirtd.log" 2>&1 &
    wait_until "libvirtd" libvirt_answers
    ok "$(virsh version | grep -E '^(Using library|Running)' | paste -sd ',' | sed 's/,/, /')"
}

make_image() {
    mkdir -p "$folder"/root/{bin,sbin,dev,proc,sys,var}
    cp "$(command -v busybox)" "$folder/root/bin/"
    install -m 755 "$here/libvirt_init.sh" "$folder/root/sbin/init"
    mke2fs -q -t ext4 -d "$folder/root" "$image" 64M >/dev/null
}

readonly as_disk="<disk type='network' device='disk'>
      <driver name='qemu' type='raw' discard='unmap'/>
      <source protocol='nbd' name=''><host transport='unix' socket='/run/ckpt/web.sock'/></source>
      <target dev='vda' bus='virtio'/>
    </disk>"
readonly as_words="<qemu:commandline>
    <qemu:arg value='-blockdev'/>
    <qemu:arg value='driver=nbd,node-name=volume,server.type=unix,server.path=/run/ckpt/web.sock,reconnect-delay=30,discard=unmap'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='virtio-blk-pci,drive=volume,addr=0x10,discard=on,write-zeroes=on'/>
  </qemu:commandline>"

define() { # NAME DISK WORDS
    virsh define /dev/stdin >/dev/null <<XML || die "libvirt does not take domain $1"
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>$1</name>
  <memory unit='MiB'>256</memory>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>/run/vmlinux</kernel>
    <initrd>/run/initrd.img</initrd>
    <cmdline>$kernel_words ckpt_root=/dev/vda</cmdline>
  </os>
  <cpu mode='maximum'/>
  <features><acpi/></features>
  <on_reboot>destroy</on_reboot>
  <devices>
    $2
    <serial type='pty'><log file='$log' append='on'/></serial>
    <memballoon model='none'/>
  </devices>
  $3
</domain>
XML
}

is_refused() { # NAME TEXT: the hook's reason
    if virsh start "$1" >"$folder/refused" 2>&1; then die "domain $1 was started"; fi
    grep -q "ckpt: $2" "$folder/refused" || die "domain $1 is not refused because '$2': $(<"$folder/refused")"
    ok "domain $1 is refused: $2"
}

is_up() { grep -aqs "^$up_line" "$log"; }
says_boot() { tr -d '\r' <"$log" | grep -aqx "vm: boot $1"; }
is_in_state() { [[ $(virsh domstate "$1") == "$2" ]]; } # NAME STATE

# A kernel that gets stuck is booted again (boot.sh).
start() { # NAME BOOT
    local tries end
    for ((tries = 1; tries <= up_tries; tries++)); do
        : >"$log"
        virsh start "$1" >/dev/null || die "domain $1 does not start"
        end=$((SECONDS + up_seconds))
        until is_up || ((SECONDS >= end)); do sleep 0.2; done
        ! is_up || break
        echo "libvirt: boot $tries: the kernel did not come to /init in $up_seconds s"
        virsh destroy "$1" >/dev/null
    done
    wait_until "boot $2 of domain $1" says_boot "$2"
    ok "domain $1 is up on the volume: boot $2"
}

# "connections" counts QEMU's alone: ckpt-tool comes through the control socket.
is_served() {
    ckpt-tool --json status "$image" | grep -q '"state":"running".*"connections":1,'
}

is_served_alone() {
    ckpt-tool --json status "$image" | grep -q '"state":"running".*"connections":0,'
}

server_has_ended() { # PID
    [[ ! -e /proc/$1 ]] || die "the server runs on without the domain"
    [[ ! -e /run/ckpt/web.sock && ! -e /run/ckpt/web.domain ]] || die "the server left something: $(ls /run/ckpt)"
    ckpt-tool --json status "$image" | grep -q '"state":"stopped"' || die "the volume is not stopped"
    ok "the server ended after the domain"
}

met_no_error() {
    if grep -aE 'I/O error|EXT4-fs.*error|sync failed' "$log"; then die "the machine met an error"; fi
}

run_as_disk() {
    local server
    define web "$as_disk" ''
    is_refused web "volume web is not served, and there is no /etc/ckpt/web.conf that says how"
    printf 'IMAGE=%s\nPARAMETERS="batch-delay=200"\n' "$folder/none.img" >/etc/ckpt/web.conf
    is_refused web "volume web: its server did not start: nbdkit: error: $folder/none.img does not exist"
    printf 'IMAGE=%s\nPARAMETERS="batch-delay=200"\n' "$image" >/etc/ckpt/web.conf
    start web 1
    is_served || die "the volume is not served: $(ckpt-tool status "$image")"
    server=$(</run/ckpt/web.pid)
    ok "the hook's server has it"
    is_refused words "volume web is in use by domain web"
    ckpt-tool checkpoint "$image" --name first || die "no checkpoint"
    ok "a checkpoint"
    ckpt-tool vm checkpoint "$image" --domain web --name both || die "no checkpoint of disk and memory"
    ckpt-tool vm rollback "$image" both --domain web --yes || die "disk and memory do not go back"
    is_in_state web running || die "the domain is $(virsh domstate web)"
    ok "disk and memory go back"
    exec {console}<>"$(virsh ttyconsole web | grep .)"
    echo off >&"$console"
    wait_until "the domain's end" is_in_state web "shut off"
    exec {console}>&-
    met_no_error
    server_has_ended "$server"
}

run_as_words() {
    local server
    start words 2
    is_served || die "the volume is not served: $(ckpt-tool status "$image")"
    server=$(</run/ckpt/web.pid)
    met_no_error
    virsh destroy words >/dev/null || die "the domain cannot be destroyed"
    server_has_ended "$server"
}

# Programs in $folder/late: nbdkit, whose number comes half of a second after it has gone into the background, and
# cat, which is slow to say that there is none.
make_late_programs() {
    mkdir -p "$folder/late"
    # shellcheck disable=SC2016 # it is the programs that expand it
    printf '%s\n' '#!/bin/bash' 'words=("$@")' 'for i in "${!words[@]}"; do' \
        '    [[ ${words[i]} != -P ]] || { number=${words[i + 1]}; words[i + 1]+=.late; }' 'done' \
        "$(command -v nbdkit) \"\${words[@]}\" || exit" \
        '(sleep 0.5 && mv "$number.late" "$number") </dev/null >/dev/null 2>&1 &' >"$folder/late/nbdkit"
    printf '%s\n' '#!/bin/bash' "! $(command -v cat) \"\$@\" || exit 0" 'sleep 1' 'exit 1' >"$folder/late/cat"
    chmod 755 "$folder"/late/*
}

# A server whose number comes while the hook looks for it has not ended.
run_with_late_number() {
    local xml
    make_late_programs
    xml=$(virsh dumpxml words)
    PATH=$folder/late:$PATH "$hook" words prepare begin - <<<"$xml" || die "the server was taken for ended"
    is_served_alone || die "the volume is not served: $(ckpt-tool status "$image")"
    "$hook" words release end - <<<"$xml"
    [[ ! -e /run/ckpt/web.sock ]] || die "the server runs on"
    ok "a server whose number comes late is waited for"
}

make_private
make_user
configure_libvirt
make_image
start_libvirt
define words '' "$as_words"
run_as_disk
run_as_words
run_with_late_number
rm -rf "$image" "$image.ckpt" "$folder/root"
