#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fuzzes decoders, with ASan and UBSan.
#
#   tests/fuzz/run.sh BUILD SECONDS [TARGET...]   each for so long [all of them]; builds in BUILD
#
# An input that fails is kept in BUILD/found, and named; what reaches new code, in BUILD/corpus/TARGET.
# Prints how often each was run. Exit code 1: one has failed.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)

build_fuzzer() { # folder
  [ -f "$1/build.ninja" ] || CXX=clang++ meson setup "$1" "$top" --unity=on -Dunity_size=10 \
    -Db_sanitize=address,undefined -Dfuzzer=true -Db_lundef=false \
    -Dbuildtype=debug -Doptimization=1 -Dcpp_args="-g1 -fsanitize=fuzzer-no-link"
  ninja -C "$1" tests/fuzz/fuzz
}

fuzz() { # folder seconds target
  local log="$1/found/$3.log" status=0
  mkdir -p "$1/found" "$1/corpus/$3"
  CKPT_FUZZ_TARGET=$3 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    "$1/tests/fuzz/fuzz" -max_total_time="$2" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 \
    -print_final_stats=1 -artifact_prefix="$1/found/$3-" "$1/corpus/$3" "$top/tests/fuzz/corpus/$3" \
    > "$log" 2>&1 || status=$?
  local runs
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  if [ "$status" -eq 0 ]; then
    echo "$3: ${runs:-0} runs"
  else
    echo "$3: FAILED after ${runs:-?} runs: $log"
    grep -E '^SUMMARY|runtime error|Test unit written' "$log" | head -n 4
    return 1
  fi
}

main() {
  if [ $# -lt 2 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
  fi
  local build=$1 seconds=$2 failed=0 target
  shift 2
  local targets=("$@")
  [ $# -gt 0 ] || mapfile -t targets < <(ls "$top/tests/fuzz/corpus")
  build_fuzzer "$build"
  for target in "${targets[@]}"; do
    fuzz "$build" "$seconds" "$target" || failed=1
  done
  return "$failed"
}

main "$@"
