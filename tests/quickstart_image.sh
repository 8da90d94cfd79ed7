#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `tools/quickstart.sh IMAGE` with an image that does not exist: all that it says to try works, and
# when it is ended the image and its state are left, and nothing that runs. With what is installed.
set -euo pipefail

top=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
folder=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-image.XXXXXX")
readonly top folder said=$folder/said image=$folder/disk.img
quickstart=''

die() { printf 'quickstart_image: %s\n' "$*" >&2; exit 1; }

cleanup() {
  [ -z "$quickstart" ] || kill "$quickstart" 2> /dev/null || true
  wait
  cat "$said"
  rm -rf -- "$folder"
}
trap cleanup EXIT

# Its own temporary files are where they can be looked for.
start() {
  mkdir "$folder/tmp"
  TMPDIR=$folder/tmp "$top/tools/quickstart.sh" --no-build "$image" > "$said" 2>&1 &
  quickstart=$!
  local i
  for ((i = 0; i < 300; i++)); do
    if grep -q '^Interrupt (Ctrl-C)' "$said"; then return; fi
    sleep 0.1
  done
  die "it does not come to serve"
}

look_at_export() {
  uri=$(sed -n 's/^  \(nbd+unix:[^ ]*\)$/\1/p' "$said")
  socket=${uri#*socket=}
  [ "$(nbdinfo --size "$uri")" = 1073741824 ] || die "the disk has another size"
  server=$(cat "$folder"/tmp/ckpt-quickstart.*/server.pid)
}

# The very words; but nobody is there to say yes.
try_all() {
  sed -n '/^Try/,/^Interrupt/s/^  //p' "$said" | sed 's/^ckpt-tool rollback .*/& --yes/' \
    > "$folder/commands"
  [ "$(wc -l < "$folder/commands")" -ge 6 ] || die "it does not say what to try"
  bash -eux "$folder/commands" < /dev/null || die "what it says to try fails"
  [ "$(ckpt-tool -q status "$image")" = running ] || die "the disk is not served any more"
  ckpt-tool show "$image" first > /dev/null || die "there is no checkpoint"
  cmp -n "$(stat -Lc %s /usr/bin/bash)" /usr/bin/bash "$image" || die "the disk is not what it was"
}

end() {
  local status=0
  kill "$quickstart"
  wait "$quickstart" || status=$?
  quickstart=''
  [ "$status" = 143 ] || die "it ended with $status"
  ! kill -0 "$server" 2> /dev/null || die "the server runs on"
  [ ! -e "$socket" ] || die "the socket is left"
  [ -z "$(ls "$folder/tmp")" ] || die "temporary files are left"
  [ "$(stat -c %s "$image")" = 1073741824 ] || die "the image is not left"
  [ "$(ckpt-tool -q status "$image")" = stopped ] || die "the state is not left"
}

start
look_at_export
try_all
end
