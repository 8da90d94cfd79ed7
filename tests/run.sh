#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what the tests need, builds, runs everything, and ends with "N passed, N failed".
#
#   tests/run.sh           units, simulator, both compilers, sanitizers, host, guest, quickstart
#   tests/run.sh --quick   build, unit tests and simulator only
#   tests/run.sh --soak    all, with more seeds and kills; also clang-tidy, the Debian package, and systemd in a guest
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
build=${CKPT_BUILD:-$top/build}
tier=full
passed=0
failed=0
failures=()
logs=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-tests.XXXXXX")

packages=(
  g++ clang clang-tidy libclang-rt-dev meson ninja-build pkg-config binutils
  nbdkit nbdkit-plugin-dev libnbd-dev libnbd-bin python3 python3-libnbd
  liburing-dev libzstd-dev libxxhash-dev libgnutls28-dev gnutls-bin libcli11-dev libfmt-dev nlohmann-json3-dev
  libgtest-dev libgmock-dev fio qemu-utils qemu-system-x86 nbd-client busybox-static
  kmod fuse3 e2fsprogs xfsprogs mount util-linux perl zsh systemd udev
  man-db chromium fonts-dejavu-core
)
soak_packages=(build-essential debhelper lintian)

usage() {
  sed -n 's/^#   //p' "$0"
}

parse_arguments() {
  case "${1:-}" in
    '') ;;
    --quick) tier=quick ;;
    --soak) tier=soak ;;
    --help | -h) usage; exit 0 ;;
    *) echo "tests/run.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
}

install_packages() {
  local missing=()
  if [ "$tier" = soak ]; then packages+=("${soak_packages[@]}"); fi
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    echo "== installing: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
      > "$logs/install.log" 2>&1 || { tail -n 20 "$logs/install.log"; exit 1; }
  fi
}

# Counts one result; a failure shows the end of its log.
count() { # status name log
  if [ "$1" -eq 0 ]; then
    passed=$((passed + 1))
    echo "PASS $2"
  else
    failed=$((failed + 1))
    failures+=("$2")
    echo "FAIL $2 (exit $1)"
    tail -n 60 "$3" | sed 's/^/    /'
  fi
}

# Runs a command as one test.
run() { # name command...
  local name=$1 status=0 began=$SECONDS
  shift
  local log="$logs/${name//[^a-zA-Z0-9]/-}.log"
  "$@" > "$log" 2>&1 || status=$?
  count "$status" "$name ($((SECONDS - began)) s)" "$log"
}

# Starts a command that is one test, beside what follows, up to end_beside. One at a time.
start_beside() { # name command...
  beside_name=$1 beside_began=$SECONDS
  beside_log="$logs/${1//[^a-zA-Z0-9]/-}.log"
  shift
  "$@" > "$beside_log" 2>&1 &
  beside=$!
  trap 'kill "$beside" 2> /dev/null || true' EXIT
}

end_beside() {
  local status=0
  wait "$beside" || status=$?
  trap - EXIT
  count "$status" "$beside_name ($((SECONDS - beside_began)) s)" "$beside_log"
}

# Runs a program that counts its own tests: of GoogleTest or of Python's unittest. Each counts.
run_counted() { # name command...
  local name=$1 status=0 began=$SECONDS
  shift
  local log="$logs/${name//[^a-zA-Z0-9]/-}.log"
  "$@" > "$log" 2>&1 || status=$?
  local total bad
  total=$(sed -nE 's/^\[==========\] ([0-9]+) tests? .*ran\..*/\1/p; s/^Ran ([0-9]+) tests? in .*/\1/p' "$log" | tail -n 1)
  bad=$(sed -nE 's/^ *([0-9]+) FAILED TESTS?$/\1/p; s/^FAILED \((.*)\)$/\1/p' "$log" | tail -n 1 |
    { grep -oE '[0-9]+' || true; } | awk '{sum += $1} END {print sum + 0}')
  if grep -qE '^\[  SKIPPED \]|^OK \(skipped|skipped=' "$log"; then
    status=99 # in CI a test that skips is a test that fails
  fi
  if [ "$status" -eq 0 ] && [ "${total:-0}" -gt 0 ] && [ "$bad" -eq 0 ]; then
    passed=$((passed + total))
    echo "PASS $name: $total tests ($((SECONDS - began)) s)"
  else
    [ "$bad" -gt 0 ] || bad=1
    passed=$((passed + (${total:-0} > bad ? total - bad : 0)))
    failed=$((failed + bad))
    failures+=("$name")
    echo "FAIL $name: $bad of ${total:-?} tests (exit $status)"
    tail -n 80 "$log" | sed 's/^/    /'
  fi
}

configure() { # folder options...
  local folder=$1
  shift
  [ -f "$folder/build.ninja" ] || meson setup "$folder" "$top" "$@"
}

build_product() {
  configure "$build" --werror && ninja -C "$build"
}

unit_tests() {
  local program
  for program in "$build"/tests/unit/unit_* "$build"/tests/integration/*_test \
    "$build"/tests/sim/*_test; do
    if [ -f "$program" ] && [ -x "$program" ]; then
      run_counted "$(basename "$program")" "$program"
    fi
  done
}

main() {
  parse_arguments "$@"
  install_packages
  run build build_product
  if [ "$failed" -eq 0 ]; then run_tiers; fi
  if [ "$failed" -eq 0 ]; then
    rm -rf "$logs"
  else
    echo "failed: ${failures[*]} (logs: $logs)"
  fi
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}

sim_seeds() {
  local seeds=1000
  if [ "$tier" = soak ]; then seeds=100000; fi
  run "simulator, $seeds seeds" "$build/tests/sim/sim" --seeds "$seeds"
  local bug
  for bug in skip_step6_on_error unmark_before_primary_sync answer_before_confirm_durable \
    preserve_own_epoch free_journal_before_image_sync narrow_by_digest_before_primary_sync \
    apply_before_handing_over; do
    run "simulator finds $bug" finds_bug "$bug"
  done
}

# A planted bug must make the simulator fail, with exit code 1 and not by crashing.
finds_bug() { # name
  local status=0
  "$build/tests/sim/sim" --seeds 5000 --planted "$1" || status=$?
  [ "$status" -eq 1 ]
}

# The logic may not reach the system but through its interfaces.
logic_is_pure() {
  local forbidden='open|openat|close|read|pread|preadv|write|pwrite|pwritev|fsync|fdatasync|fallocate'
  forbidden+='|ftruncate|lseek|mmap|clock_gettime|gettimeofday|time|nanosleep|getrandom|rand|random'
  forbidden+='|pthread_create|pthread_mutex_lock|pthread_cond_wait|socket|ioctl|syscall'
  local found
  found=$(nm -u --format=posix "$build"/tests/sim/libsim_logic.a | awk '{print $1}' |
    grep -xE "($forbidden)(64)?|_ZNSt6chrono.*now.*|_ZNSt13random_device.*" || true)
  [ -z "$found" ] || { echo "the logic calls: $found"; return 1; }
  nm --format=posix "$build"/tests/sim/libsim_logic.a | grep WritePath > /dev/null # it looked at something
}

# The usual build compiles each file by itself; here ten at once save two thirds of the time.
sanitized_build=(--unity=on -Dunity_size=10 -Dbuildtype=debug -Doptimization=1 -Dcpp_args=-g1
  -Db_lundef=false)

# The second compiler, which also checks the locks' annotations; its TSan finds what they cannot say.
clang_build() {
  CXX=clang++ configure "$build-clang" --werror -Db_sanitize=thread "${sanitized_build[@]}" &&
    ninja -C "$build-clang" plugin/nbdkit-ckpt-plugin.so tools/ckpt-tool \
      tests/integration/race_test tests/unit/unit_store tests/unit/unit_backupd tests/unit/unit_link
}

# .clang-tidy says what for. A quarter of an hour on two processors.
tidy() {
  (cd "$top" && printf '%s\n' {common,plugin,tools,backupd,backupd/store}/*.cc |
    xargs -P "$(nproc)" -n 1 clang-tidy -p "$build" --quiet)
}

# Threads of a whole volume, and of the store alone.
race_tests() {
  local races=(env TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1)
  run_counted "races in a volume" "${races[@]}" "$build-clang/tests/integration/race_test"
  run_counted "races in the store" "${races[@]}" "$build-clang/tests/unit/unit_store" \
    --gtest_filter='StoreThreads.*:ExportThreads.*'
  run_counted "races of connections" "${races[@]}" "$build-clang/tests/unit/unit_backupd"
  run_counted "races of links" "${races[@]}" "$build-clang/tests/unit/unit_link"
}

sanitized_units=(unit_common unit_store unit_backupd unit_link unit_plugin unit_control)

# The programs that load the plugin are not sanitized: the runtimes are loaded into them first.
sanitizer_build() {
  configure "$build-asan" -Db_sanitize=address,undefined "${sanitized_build[@]}" &&
    ninja -C "$build-asan" plugin/nbdkit-ckpt-plugin.so "${sanitized_units[@]/#/tests/unit/}" &&
    gcc -shared -fPIC -Wl,-z,initfirst -o "$build-asan/libasan_first.so" \
      "$top/tests/integration/asan_first.c" &&
    mkdir -p "$build-asan/served" &&
    ln -sfn "$build-asan/plugin" "$build-asan/served/plugin" &&
    ln -sfn "$build/tools" "$build-asan/served/tools" &&
    ln -sfn "$build/tests" "$build-asan/served/tests"
}

sanitized() { # command...
  local asan ubsan
  asan=$(gcc -print-file-name=libasan.so)
  ubsan=$(gcc -print-file-name=libubsan.so)
  CKPT_BUILD="$build-asan/served" CKPT_PRELOAD="$asan:$ubsan:$build-asan/libasan_first.so" \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 "$@"
}

sanitizer_tests() {
  local test
  for test in "${sanitized_units[@]}"; do
    UBSAN_OPTIONS=halt_on_error=1 run_counted "sanitized $test" "$build-asan/tests/unit/$test"
  done
  for test in test_basics test_rollback test_faults; do
    run_counted "sanitized $test" sanitized /usr/bin/python3 "$top/tests/integration/$test.py"
  done
}

host_tests() {
  local kills=100
  if [ "$tier" = soak ]; then kills=300; fi
  local test long=()
  if [ "$tier" = soak ]; then long=(test_all_direct); fi
  for test in test_oracle test_basics test_completion test_doctor test_packaging test_rollback \
    test_direct test_bad_volumes test_export test_rebuild test_verify test_faults test_remote test_link test_kill test_interval test_metrics \
    test_report test_watch "${long[@]}"; do
    CKPT_BUILD=$build CKPT_KILLS=$kills CKPT_VERIFY_SECONDS=120 \
      run_counted "$test" /usr/bin/python3 "$top/tests/integration/$test.py"
  done
}

# Exit code 1 because of what it found, not because it could not be built or served.
finds_sabotage() {
  local status=0 said="$logs/sabotage.out"
  "$top/tools/quickstart.sh" --demo --sabotage > "$said" 2>&1 || status=$?
  cat "$said"
  [ "$status" -eq 1 ] && grep -q 'the disk is not what it was: [1-9]' "$said"
}

run_tiers() {
  unit_tests
  run "the logic makes no system call" logic_is_pure
  sim_seeds
  if [ "$tier" = quick ]; then return; fi
  # The tool alone takes as long to compile as all the rest.
  if [ "$tier" = soak ]; then sanitized_units+=(unit_tool); fi
  host_tests
  # The guests leave a processor to the compilers.
  start_beside "guest: kernel mount and power cuts" "$top/tests/guest/run.sh" "$build"
  run "build with clang, TSan" clang_build
  run "build with ASan and UBSan" sanitizer_build
  end_beside
  race_tests
  sanitizer_tests
  if [ "$tier" = soak ]; then
    run "clang-tidy" tidy
    run "guest: systemd" "$top/tests/guest/run.sh" "$build" systemd_boot
    run "Debian package" "$top/tests/package/run.sh"
  fi
  run "quickstart --demo" "$top/tools/quickstart.sh" --demo
  run "quickstart --demo --sabotage exits 1" finds_sabotage
}

main "$@"
