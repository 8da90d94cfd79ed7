#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the Debian source package from what git knows of this tree, builds the package from nothing but
# that, has lintian judge both, unpacks it, and tries what is in it. Exit code 0 if all is well.
set -euo pipefail

top=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
work=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-package.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
readonly top work root=$work/root

step() { printf '== %s\n' "$*"; }
die() { printf 'package: %s\n' "$*" >&2; exit 1; }

# As it is in the work tree, committed or not; what was deleted there is left out.
copy_tree() {
  mkdir "$work/source"
  (cd "$top" && git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' name; do
      if [ -e "$name" ]; then printf '%s\0' "$name"; fi
    done | tar -c --null -T - -f -) | tar -x -C "$work/source"
}

# The tree that comes out of it is the one that went in. (dpkg-source leaves out what is git's.)
pack_source() {
  (cd "$work" && dpkg-source --build source && dpkg-source --no-check -x ckpt_*.dsc unpacked)
  diff -r --exclude='.git*' "$work/source" "$work/unpacked" || die "the source package is not the tree"
}

# Source and binary. Not optimised: how it is put together is looked at, not how fast it is.
build_package() {
  (cd "$work/unpacked" &&
    DEB_BUILD_OPTIONS="nocheck noopt parallel=$(nproc)" dpkg-buildpackage -us -uc)
  grep -q '\.dsc$' "$work"/ckpt_*.changes || die "what was built has no source package"
}

# Warnings count as errors. Its own dislike of root is none of the package's.
judge() {
  lintian --allow-root --info --fail-on error,warning "$work"/ckpt_*.changes
}

is_there() { # FILE... within the package
  local name
  for name in "$@"; do
    [ -s "$root/$name" ] || die "the package has no $name"
  done
}

check_files() {
  local lib
  lib=usr/lib/$(dpkg-architecture -q DEB_HOST_MULTIARCH)
  is_there "$lib/nbdkit/plugins/nbdkit-ckpt-plugin.so" usr/bin/ckpt-tool \
    lib/systemd/system/ckpt@.service lib/systemd/system/ckpt@.socket \
    usr/share/bash-completion/completions/ckpt-tool usr/share/zsh/vendor-completions/_ckpt-tool
  [ -x "$root/usr/share/doc/ckpt/examples/libvirt-hook" ] || die "the package has no hook for libvirt"
  [ -x "$root/usr/libexec/ckpt/criu-hook" ] || die "the package has no hook for CRIU"
  grep -qx '.* || tool=/usr/bin/ckpt-tool' "$root/usr/libexec/ckpt/criu-hook" ||
    die "the hook for CRIU does not name the tool"
  local page
  for page in man1/ckpt-tool.1 man1/nbdkit-ckpt-plugin.1 man5/ckpt-formats.5 \
    man8/ckpt@.service.8; do
    is_there "usr/share/man/$page.gz"
    man --warnings -l "$root/usr/share/man/$page.gz" > "$work/page" 2> "$work/complaints"
    [ ! -s "$work/complaints" ] || die "$page: $(cat "$work/complaints")"
  done
  for page in batch-format control-protocol events-format journal-format store-format \
    volume-format; do
    zcat -f "$root/usr/share/doc/ckpt/$page.md"* | grep -q 'Normative[.:]' ||
      die "the package has no $page.md"
  done
  zcat -f "$root/usr/share/doc/ckpt/grafana-dashboard.json"* | grep -q '"panels"' ||
    die "the package has no grafana-dashboard.json"
}

# The version that the tree says, from the plugin and from the tool.
check_programs() {
  local version said
  version=$(sed -n "s/^ *version: '\(.*\)',/\1/p" "$top/meson.build")
  [ -n "$version" ] || die "meson.build says no version"
  said=$("$root/usr/bin/ckpt-tool" --version)
  [ "$said" = "ckpt-tool $version" ] || die "ckpt-tool says $said, not $version"
  said=$(nbdkit "$root"/usr/lib/*/nbdkit/plugins/nbdkit-ckpt-plugin.so --dump-plugin)
  grep -qx "ckpt_version=$version" <<< "$said" || die "the plugin says: $said"
  said=$(dpkg-deb -f "$work"/ckpt_*.deb Version)
  [ "$said" = "$version" ] || die "the package has version $said, not $version"
  dpkg-deb -f "$work"/ckpt_*.deb Depends | grep -q nbdkit || die "does not depend on nbdkit"
}

# A disk, a checkpoint and back, with nothing but what the package has.
check_use() {
  local tool=$root/usr/bin/ckpt-tool image=$work/disk.img
  nbdkit -U - "$root"/usr/lib/*/nbdkit/plugins/nbdkit-ckpt-plugin.so "$image" size=1M \
    --run "'$tool' -q checkpoint '$image' --name packaged"
  "$tool" -q rollback "$image" packaged --yes || die "cannot roll back"
}

step "copying"
copy_tree
step "packing the source"
pack_source
step "building"
build_package
step "judging"
judge
step "unpacking"
mkdir "$root"
dpkg -x "$work"/ckpt_*.deb "$root"
check_files
check_programs
check_use
step "done"
