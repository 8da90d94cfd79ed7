# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # sourced by quickstart.sh, whose variables these are
# The demonstration of quickstart.sh: a disk, an accident, a rollback, and the comparison.

readonly demo_bytes=$((512 << 20))
readonly demo_files=3000

# What was set up, for cleanup to undo.
device='' fuse_pid='' fuse_file='' loop='' nbd='' mounted=''

# attach_disk SOCKET: makes $device, a block device, of the export.
attach_disk() {
  if has_kernel_nbd && command -v nbd-client >/dev/null; then
    attach_by_kernel "$1"
  else
    attach_by_fuse "$1"
  fi
}
attach_by_kernel() {
  local candidate
  for candidate in /dev/nbd*; do
    case $candidate in *p*) continue ;; esac
    if ! nbd-client -c "$candidate" >/dev/null; then
      nbd-client -unix "$1" "$candidate" >/dev/null || die "nbd-client cannot attach $candidate"
      nbd=$candidate
      device=$candidate
      return
    fi
  done
  die "all /dev/nbd* are in use"
}
attach_by_fuse() {
  fuse_file=$work/disk
  : >"$fuse_file"
  setsid nbdfuse "$fuse_file" --unix "$1" &
  fuse_pid=$!
  wait_until test -s "$fuse_file" || die "nbdfuse does not come up: is there a /dev/fuse?"
  loop=$(losetup -f --show "$fuse_file") || die "losetup found no loop device"
  device=$loop
}

# Each line undoes one thing, once.
detach_disk() {
  if [ -n "$nbd" ]; then
    nbd-client -d "$nbd" >/dev/null
    nbd=''
  fi
  if [ -n "$loop" ]; then
    losetup -d "$loop"
    loop=''
  fi
  if [ -n "$fuse_file" ]; then
    # The loop device lets go of the file a moment after losetup returns.
    wait_until fusermount3 -u "$fuse_file" || true
    [ -z "$fuse_pid" ] || wait "$fuse_pid" || true
    fuse_file='' fuse_pid=''
  fi
}

mount_disk() {
  mkdir -p "$work/mnt"
  mount -t ext4 "$device" "$work/mnt" || return 1
  mounted=$work/mnt
}
unmount_disk() {
  [ -n "$mounted" ] || return 0
  fsfreeze -u "$mounted" 2>/dev/null || true
  wait_until umount "$mounted" || return 1
  mounted=''
}

# Real files: names, sizes and content that nobody made up.
fill_disk() {
  (cd /usr/share && find . -xdev -type f -size -512k -print0) >"$work/all"
  head -z -n "$demo_files" "$work/all" >"$work/list"
  tar -C /usr/share -c --null -T "$work/list" -f - | tar -C "$mounted" -x -f -
}

# record NAME: what the mounted disk holds, as $work/NAME.{sums,tree}.
record() {
  (cd "$mounted" && find . -xdev -type f -print0 | sort -z | xargs -0 sha256sum) >"$work/$1.sums"
  (cd "$mounted" && find . -xdev -printf '%p %y %m %U %G %s %T@ %l\n' | sort) >"$work/$1.tree"
}

disk_sum() { sha256sum <"$work/disk.img" | cut -d' ' -f1; }

# A third of the files gone, a third overwritten in place, all of them on a disk whose own structures
# are then overwritten too.
destroy() {
  local file i=0
  while IFS= read -r -d '' file; do
    case $((i++ % 3)) in
      0) rm -f -- "$mounted/$file" ;;
      1) head -c 20000 /dev/urandom >"$mounted/$file" ;;
    esac
  done <"$work/list"
  unmount_disk
  dd if=/dev/urandom of="$device" bs=1M count=4 conv=notrunc,fsync status=none
  for ((i = 1; i < 16; i++)); do
    dd if=/dev/urandom of="$device" bs=64k count=1 seek=$((i * demo_bytes / 16 / 65536)) \
      conv=notrunc,fsync status=none
  done
}

# Flips one byte in the data of a file.
sabotage() {
  local file block
  file=$(sort -k 6 -n -r "$work/before.tree" | awk '$2 == "f" && !found { print $1; found = 1 }')
  block=$(debugfs -R "blocks \"/$file\"" "$device" 2>/dev/null | awk '{ print $1 }')
  [ -n "$block" ] || die "sabotage: $file has no blocks"
  local at=$((block * 4096 + 7)) byte
  byte=$(od -An -tu1 -j "$at" -N 1 "$device")
  # shellcheck disable=SC2059 # the format is the byte
  printf "\\x$(printf %x $((byte ^ 1)))" |
    dd of="$device" bs=1 seek="$at" conv=notrunc,fsync status=none
  say "flipped one bit of $file, at byte $at of the disk"
}

# expect_same WHAT FILE FILE: says so, or what differs, and counts.
failures=0
expect_same() {
  if cmp -s "$2" "$3"; then
    say "  same:    $1"
  else
    say "  DIFFERS: $1"
    diff "$2" "$3" | head -n 6 || true
    failures=$((failures + 1))
  fi
}

compare() {
  step "Comparing with what it was at the checkpoint"
  disk_sum >"$work/after.disk"
  expect_same "the whole disk, $((demo_bytes >> 20)) MiB, by SHA-256" "$work"/{before,after}.disk
  mount_disk
  record after
  unmount_disk
  expect_same "content of $(wc -l <"$work/before.sums") files, by SHA-256" "$work"/{before,after}.sums
  expect_same "names, modes, owners, sizes and times of $(wc -l <"$work/before.tree") entries" \
    "$work"/{before,after}.tree
  if e2fsck -fn "$device" >"$work/fsck" 2>&1; then
    say "  clean:   e2fsck -fn"
  else
    say "  NOT CLEAN: e2fsck -fn"
    cat "$work/fsck"
    failures=$((failures + 1))
  fi
}

demo() {
  local sabotage_it=$1 image=$work/disk.img
  step "Serving a disk of $((demo_bytes >> 20)) MiB, and mounting it"
  start_server "$image" "$work/nbd.sock" "size=$demo_bytes"
  attach_disk "$socket"
  mkfs.ext4 -q -F -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 "$device"
  mount_disk
  fill_disk
  record before
  say "$device on $mounted: $(wc -l <"$work/before.sums") files of /usr/share"

  step "Checkpoint"
  # Frozen, so that the sum taken beside it is of the very same disk.
  fsfreeze -f "$mounted"
  ckpt-tool checkpoint "$image" --name before-the-accident
  disk_sum >"$work/before.disk"
  fsfreeze -u "$mounted"

  step "The accident: files deleted and overwritten, the file system's own blocks too"
  destroy
  if mount_disk 2>/dev/null; then die "the disk can still be mounted: that was no accident"; fi
  say "mount: refused, as it should be"
  detach_disk

  step "Rollback"
  ckpt-tool rollback "$image" before-the-accident --yes
  ckpt-tool verify "$image"
  attach_disk "$socket"
  if [ "$sabotage_it" = yes ]; then sabotage; fi
  compare
  detach_disk
  [ "$failures" = 0 ] || die "the disk is not what it was: $failures comparisons failed"
  step "The disk is what it was at the checkpoint, in every byte and every file"
}
