#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a bare Debian 12 to a protected disk, or to a demonstration of one. See usage below.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: quickstart.sh [--no-build] [IMAGE]
       quickstart.sh [--no-build] --demo [--sabotage]

Installs the packages it needs, builds and installs ckpt, and then

  IMAGE       serves it (disk.img; 1 GiB, made if missing) on a Unix socket, in the foreground,
              and prints the NBD URI and what to try next.
  --demo      tells the whole story on a temporary disk: a real mount with a few thousand files,
              a checkpoint, an accident, a rollback; compares everything with what it was before.
  --sabotage  flips one byte after the rollback: the demonstration must then fail (exit 1).
  --no-build  takes what is installed.

Needs root, for apt-get, meson install and mount.
USAGE
}

export LC_ALL=C
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly packages=(
  nbdkit nbdkit-plugin-dev libnbd-bin libnbd-dev liburing-dev libzstd-dev libxxhash-dev libgnutls28-dev libtomlplusplus-dev
  libcli11-dev libfmt-dev nlohmann-json3-dev libgtest-dev libgmock-dev
  meson ninja-build g++ pkg-config fuse3 e2fsprogs)

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

# What was set up, for cleanup to undo, whatever happens.
work='' server='' socket=''
# shellcheck source=tools/quickstart-demo.sh
. "$root/tools/quickstart-demo.sh"

cleanup() {
  trap - EXIT INT TERM
  set +e
  unmount_disk
  detach_disk
  stop_server
  [ -z "$socket" ] || rm -f -- "$socket"
  [ -z "$work" ] || rm -rf -- "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command every tenth of a second until it succeeds, ten seconds at most.
wait_until() {
  local i
  for ((i = 0; i < 100; i++)); do
    if "$@" 2>/dev/null; then return 0; fi
    sleep 0.1
  done
  return 1
}

has_kernel_nbd() {
  [ -d /sys/module/nbd ] || modprobe nbd 2>/dev/null || return 1
  [ -b /dev/nbd0 ]
}

install_packages() {
  local wanted=("${packages[@]}") package missing=()
  if has_kernel_nbd; then wanted+=(nbd-client); fi
  for package in "${wanted[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
      missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  step "Installing ${missing[*]}"
  command -v apt-get >/dev/null || die "no apt-get here: install these by hand: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends "${missing[@]}"
  # Debian 12 has it in libnbd-bin, later ones in a package of its own.
  command -v nbdfuse >/dev/null || apt-get install -q -y --no-install-recommends nbdfuse
}

# In a directory of its own: a developer's build/ may be set up in another way. Optimized as Debian's
# packages are, and thirty files at once: that is half of the time.
build() {
  step "Building in $root/build-quickstart"
  [ -f "$root/build-quickstart/build.ninja" ] ||
    meson setup "$root/build-quickstart" "$root" --buildtype=release -Doptimization=2 -Dtests=false \
      --unity=on -Dunity_size=30
  ninja -C "$root/build-quickstart"
  step "Installing"
  meson install -C "$root/build-quickstart" --no-rebuild --quiet
}

# start_server IMAGE SOCKET [nbdkit-ckpt parameters]: returns when it listens.
start_server() {
  local image=$1
  socket=$2
  shift 2
  rm -f -- "$socket"
  # Not in the terminal's process group: on Ctrl-C the disk is unmounted before its server stops.
  setsid nbdkit -f --exit-with-parent -P "$work/server.pid" -U "$socket" ckpt "file=$image" "$@" &
  server=$!
  wait_until server_is_up_or_gone || true
  [ -s "$work/server.pid" ] || die "nbdkit does not come up: see its message above"
}
server_is_up_or_gone() { [ -s "$work/server.pid" ] || ! kill -0 "$server"; }
stop_server() {
  [ -n "$server" ] || return 0
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=''
}

serve() {
  local image parameters=()
  image=$(realpath -m -- "$1")
  [ -e "$image" ] || parameters=(size=1G)
  local path=$image.sock
  # sun_path holds 108 bytes.
  [ ${#path} -lt 108 ] || path=$work/nbd.sock
  start_server "$image" "$path" "${parameters[@]}"
  cat <<NEXT

$image is served, and protected. NBD URI:

  nbd+unix:///?socket=$socket

Try, in another terminal:

  nbdinfo 'nbd+unix:///?socket=$socket'
  nbdcopy -- /usr/bin/bash 'nbd+unix:///?socket=$socket'   # writes something
  ckpt-tool checkpoint $image --name first
  ckpt-tool status $image
  ckpt-tool rollback $image
  ckpt-tool --help

Interrupt (Ctrl-C) to stop.
NEXT
  wait "$server" || true
  server=''
}

main() {
  local image=disk.img demonstrate=no sabotage_it=no build_it=yes
  while [ $# -gt 0 ]; do
    case $1 in
      --demo) demonstrate=yes ;;
      --sabotage) sabotage_it=yes ;;
      --no-build) build_it=no ;;
      -h | --help) usage; exit 0 ;;
      -*) usage >&2; exit 2 ;;
      *) image=$1 ;;
    esac
    shift
  done
  if [ "$sabotage_it$demonstrate" = yesno ]; then usage >&2; exit 2; fi
  [ "$(id -u)" = 0 ] || die "needs root: sudo $0"
  if [ "$build_it" = yes ]; then install_packages; build; fi
  work=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-quickstart.XXXXXX")
  if [ "$demonstrate" = yes ]; then demo "$sabotage_it"; else serve "$image"; fi
}

main "$@"
