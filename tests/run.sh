#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what the tests need, builds, runs everything, and ends with "N passed, N failed".
#
#   tests/run.sh           units, simulator, both compilers, sanitizers, host, guest, quickstart
#   tests/run.sh --quick   build, unit tests and simulator only
#   tests/run.sh --soak    all, with more seeds and kills; also clang-tidy, fuzzing, the Debian package, systemd in a guest, and virt tools
#   tests/run.sh --proof   what dies, fails and loses its power, as often as docs/reliability.md says, and a summary
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
build=${CKPT_BUILD:-$top/build}
tier=full
logs=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-tests.XXXXXX")
results=$logs/results
# One more than processors, since most tests wait most of the time.
workers=$(($(nproc) + 1))
# Seconds for one program: one that hangs is one that fails.
limit=1500

packages=(
  g++ clang clang-tidy libclang-rt-dev meson ninja-build pkg-config binutils
  nbdkit nbdkit-plugin-dev libnbd-dev libnbd-bin python3 python3-libnbd
  liburing-dev libzstd-dev libxxhash-dev libgnutls28-dev gnutls-bin openssl libtomlplusplus-dev libcli11-dev libfmt-dev nlohmann-json3-dev
  libgtest-dev libgmock-dev fio qemu-utils qemu-system-x86 nbd-client busybox-static
  kmod fuse3 e2fsprogs xfsprogs dmsetup iproute2 criu runc podman libvirt-daemon libvirt-clients mount util-linux perl zsh systemd udev
  man-db chromium fonts-dejavu-core git syslinux mtools dosfstools fdisk
  corosync pacemaker pacemaker-cli-utils resource-agents jq libxml2-utils
)
soak_packages=(build-essential debhelper lintian guestfs-tools libguestfs-tools)

usage() {
  sed -n 's/^#   //p' "$0"
}

parse_arguments() {
  case "${1:-}" in
    '') ;;
    --quick) tier=quick ;;
    --soak) tier=soak limit=14400 ;;
    --proof) tier=proof limit=14400 ;;
    --help | -h) usage; exit 0 ;;
    *) echo "tests/run.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
}

# How often, how many.
is_long() {
  [ "$tier" = soak ] || [ "$tier" = proof ]
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

# Every result is a line "PASSED FAILED NAME", since most come from jobs; a test without one fails.
begin() { # name
  echo "began $1" >> "$results"
}

end() { # passed failed name
  echo "$*" >> "$results"
}

count_failed() {
  awk '$1 == "began" {open++; next} {open--; sum += $2} END {print sum + open}' "$results"
}

count_passed() {
  awk '$1 != "began" {sum += $1} END {print sum + 0}' "$results"
}

# The names of those that failed, or were not heard of again.
failures() {
  awk '$1 == "began" {open[substr($0, 7)] = 1; next}
    {name = substr($0, length($1 " " $2 " ") + 1); delete open[name]} $2 > 0 {print name}
    END {for (name in open) print name}' "$results" | paste -sd ';' | sed 's/;/; /g'
}

log_of() { # name
  echo "$logs/${1//[^a-zA-Z0-9]/-}.log"
}

# In one write, so that jobs do not mix.
show_failure() { # text log lines
  printf 'FAIL %s\n%s\n' "$1" "$(tail -n "$3" "$2" | sed 's/^/    /')"
}

# Programs have a limit; functions see to theirs themselves.
limited() { # command...
  if [ "$(type -t "$1")" = function ]; then "$@"; else timeout --foreground -k 30 "$limit" "$@"; fi
}

# Runs a command as one test.
run() { # name command...
  local name=$1 status=0 began=$SECONDS log
  shift
  log=$(log_of "$name")
  begin "$name"
  limited "$@" > "$log" 2>&1 || status=$?
  if [ "$status" -eq 0 ]; then
    end 1 0 "$name"
    echo "PASS $name ($((SECONDS - began)) s)"
  else
    end 0 1 "$name"
    show_failure "$name (exit $status)" "$log" 60
  fi
}

# Runs a program that counts its own tests: of GoogleTest or of Python's unittest. Each counts.
run_counted() { # name command...
  local name=$1 status=0 began=$SECONDS log total bad
  shift
  log=$(log_of "$name")
  begin "$name"
  limited "$@" > "$log" 2>&1 || status=$?
  total=$(sed -nE 's/^\[==========\] ([0-9]+) tests? .*ran\..*/\1/p; s/^Ran ([0-9]+) tests? in .*/\1/p' "$log" | tail -n 1)
  bad=$(sed -nE 's/^ *([0-9]+) FAILED TESTS?$/\1/p; s/^FAILED \((.*)\)$/\1/p' "$log" | tail -n 1 |
    { grep -oE '[0-9]+' || true; } | awk '{sum += $1} END {print sum + 0}')
  if grep -qE '^\[  SKIPPED \]|^OK \(skipped|skipped=' "$log"; then
    status=99 # in CI a test that skips is a test that fails
  fi
  if [ "$status" -eq 0 ] && [ "${total:-0}" -gt 0 ] && [ "$bad" -eq 0 ]; then
    end "$total" 0 "$name"
    echo "PASS $name: $total tests ($((SECONDS - began)) s)"
  else
    [ "$bad" -gt 0 ] || bad=1
    end $((${total:-0} > bad ? total - bad : 0)) "$bad" "$name"
    show_failure "$name: $bad of ${total:-?} tests (exit $status)" "$log" 80
  fi
}

# Starts a job when fewer than $workers run.
start() { # command...
  while [ "$(jobs -rp | wc -l)" -ge "$workers" ]; do wait -n || true; done
  "$@" < /dev/null &
}

# Whatever ends this script, its jobs and what they started end, too.
stop_jobs() {
  local job
  for job in $(jobs -rp); do kill -- -"$job" 2> /dev/null || true; done
}

configure() { # folder options...
  local folder=$1
  shift
  [ -f "$folder/build.ninja" ] || meson setup "$folder" "$top" "$@"
}

# Thirty files at once, for most of the time goes into headers and templates; each_file looks at them
# one by one. A precompiled header is not worth its making where it is read once or twice. Of what is
# told to debuggers only lines are needed here, and gcc takes a quarter longer for all of it.
unity=(--unity=on -Dunity_size=30 -Db_pch=false -Dcpp_args=-g1)

build_product() {
  configure "$build" --werror "${unity[@]}" && ninja -C "$build"
}

unit_tests() {
  local program
  for program in "$build"/tests/unit/unit_* "$build"/tests/integration/*_test \
    "$build"/tests/sim/*_test; do
    if [ -f "$program" ] && [ -x "$program" ]; then
      start run_counted "$(basename "$program")" "$program"
    fi
  done
}

main() {
  parse_arguments "$@"
  install_packages
  : > "$results"
  set -m # each job is a process group
  trap stop_jobs EXIT
  run build build_product
  if [ "$(count_failed)" -eq 0 ]; then run_tiers; fi
  local failed
  failed=$(count_failed)
  echo "$(count_passed) passed, $failed failed" > "$logs/closing"
  if [ "$failed" -ne 0 ]; then echo "failed: $(failures) (logs: $logs)"; fi
  cat "$logs/closing"
  [ "$failed" -eq 0 ] || exit 1
  rm -rf "$logs"
}

sim_tests() {
  local seeds=5000 acts=2
  if [ "$tier" = soak ]; then seeds=100000 acts=4; fi
  run "simulator, $seeds seeds" "$build/tests/sim/sim" --seeds "$seeds"
  run "rare situations came up" probes_hit "$(log_of "simulator, $seeds seeds")"
  run "every crash in histories of $acts acts" "$build/tests/sim/sim" --histories "$acts"
  local bug bugs
  bugs=$(planted_bugs)
  run "bugs are planted" [ "$(wc -w <<< "$bugs")" -ge 25 ]
  for bug in $bugs; do
    run "simulator finds $bug" finds_bug "$bug"
  done
}

# Every one that the product counts, and enough of them.
probes_hit() { # log
  local name missing=()
  for name in $(grep -rhoP 'CKPT_PROBE\(\K\w+' "$top"/{plugin,backupd,common}/ --exclude=mutex.h | sort -u); do
    grep -qE "^ *[0-9]+  $name$" "$1" || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] || { echo "never: ${missing[*]}"; return 1; }
  [ "$(grep -cE '^ *[1-9][0-9]*  [a-z]' "$1")" -ge 40 ]
}

planted_bugs() {
  grep -rhoP 'CKPT_PLANTED\(\K\w+' "$top"/{plugin,backupd,common}/ --exclude=mutex.h | sort -u
}

# A planted bug must make the simulator fail, with exit code 1 and not by crashing.
finds_bug() { # name
  local status=0
  limited "$build/tests/sim/sim" --seeds 5000 --planted "$1" || status=$?
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

sanitized_build=("${unity[@]}" -Dbuildtype=debug -Db_lundef=false)

# The second compiler's TSan finds what the annotations of the locks cannot say.
clang_build() {
  CXX=clang++ configure "$build-clang" --werror -Db_sanitize=thread -Doptimization=1 "${sanitized_build[@]}" &&
    ninja -C "$build-clang" plugin/nbdkit-ckpt-plugin.so \
      tests/integration/race_test tests/unit/unit_store tests/unit/unit_backupd tests/unit/unit_link
}

# The second compiler's warnings, those of the locks' annotations too. A file that lacks an include fails.
each_file() {
  CXX=clang++ configure "$build-each" --werror -Db_pch=false -Dtests=false &&
    "$top/tests/each_file.py" "$build-each"
}

# .clang-tidy says what for. A quarter of an hour on two processors.
tidy() {
  (cd "$top" && printf '%s\n' {common,plugin,tools,backupd,backupd/store}/*.cc |
    xargs -P "$(nproc)" -n 1 clang-tidy -p "$build" --quiet)
}

# Half an hour each.
fuzz() {
  local target
  for target in "$top"/tests/fuzz/corpus/*; do
    run "fuzz $(basename "$target")" "$top/tests/fuzz/run.sh" "$build-fuzz" 1800 "$(basename "$target")"
  done
}

# Threads of a whole volume, and of the store alone.
race_tests() {
  export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
  start run_counted "races in a volume" "$build-clang/tests/integration/race_test"
  start run_counted "races in the store" "$build-clang/tests/unit/unit_store" \
    --gtest_filter='StoreThreads.*:ExportThreads.*'
  start run_counted "races of connections" "$build-clang/tests/unit/unit_backupd"
  start run_counted "races of links" "$build-clang/tests/unit/unit_link"
}

# The longest first, so that no job is left for the end.
sanitized_units=(unit_store unit_common unit_backupd unit_link unit_plugin unit_control)
sanitized_programs=(plugin/nbdkit-ckpt-plugin.so)

# UBSan's is in it.
asan_runtime() {
  clang++ -print-file-name="libclang_rt.asan-$(uname -m).so"
}

# With the second compiler and not optimized: what these sanitizers add to the code takes the first one,
# or an optimizer, several times as long to compile, and the tests are hardly faster then. (What TSan
# adds is little, and its tests are three times as fast when it is optimized.)
# The programs that load the plugin are not sanitized: the runtime is loaded into them first.
sanitizer_build() {
  CXX=clang++ configure "$build-asan" --werror -Db_sanitize=address,undefined -Doptimization=0 \
    "${sanitized_build[@]}" -Dcpp_link_args="-shared-libsan -Wl,-rpath,$(dirname "$(asan_runtime)")" &&
    ninja -C "$build-asan" "${sanitized_programs[@]}" "${sanitized_units[@]/#/tests/unit/}" &&
    gcc -shared -fPIC -Wl,-z,initfirst -o "$build-asan/libasan_first.so" \
      "$top/tests/integration/asan_first.c" &&
    mkdir -p "$build-asan/served" &&
    ln -sfn "$build-asan/plugin" "$build-asan/served/plugin" &&
    ln -sfn "$build-asan/backupd" "$build-asan/served/backupd" &&
    ln -sfn "$build/tools" "$build-asan/served/tools" &&
    ln -sfn "$build/tests" "$build-asan/served/tests"
}

sanitized() { # command...
  local options=detect_leaks=0:abort_on_error=1
  # It has a bar for memory, and what was freed counts as long as it is kept.
  case "$*" in */test_attachments.py) options+=:quarantine_size_mb=16 ;; esac
  CKPT_BUILD="$build-asan/served" CKPT_PRELOAD="$(asan_runtime):$build-asan/libasan_first.so" \
    ASAN_OPTIONS=$options \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 limited "$@"
}

# The longest first.
hosts=(
  test_direct test_kill test_file_faults test_kill_points test_rollback test_link_cuts test_verify test_vm
  test_pacemaker test_rejoin test_standby test_switch test_relay test_vm_faults test_vm_groups test_store_dies test_remote test_two_primaries test_tls test_link test_faults test_full_disks test_hosts test_namespaces
  test_doctor test_attachments test_basics test_completion test_watch test_oracle test_export test_metrics
  test_rebuild test_promote test_release test_report test_bad_volumes test_bad_stores test_peers test_held_writes test_packaging test_figures
)

# They load a library of their own into the server, or start QEMU, which loads those of the sanitizers,
# or look at a whole build folder.
not_sanitized='test_kill_points|test_file_faults|test_vm|test_vm_faults|test_vm_groups|test_packaging'

sanitized_hosts() {
  if [ "$tier" != soak ]; then
    echo test_rollback test_faults test_full_disks test_basics
  else
    printf '%s\n' "${hosts[@]}" | grep -vxE "$not_sanitized"
  fi
}

sanitizer_tests() {
  local test
  for test in "${sanitized_units[@]}"; do
    UBSAN_OPTIONS=halt_on_error=1 start run_counted "sanitized $test" "$build-asan/tests/unit/$test"
  done
  for test in $(sanitized_hosts); do
    start run_counted "sanitized $test" sanitized /usr/bin/python3 "$top/tests/integration/$test.py"
  done
}

host_test() { # name
  local kills=100 points=each rounds=1 cuts=some links=some fail_overs=20
  if is_long; then kills=1000 rounds=10 fail_overs=200; fi
  # Every time that a step is made, every frame of a trace, and as much over a link as without: hours.
  if [ "$tier" = soak ]; then points=all cuts=all links=all; fi
  CKPT_BUILD=$build CKPT_KILLS=$kills CKPT_POINTS=$points CKPT_POINT_ROUNDS=$rounds CKPT_LINK_CUTS=$cuts \
    CKPT_OVER_LINKS=$links CKPT_FAIL_OVERS=$fail_overs CKPT_VERIFY_SECONDS=120 \
    start run_counted "$1" /usr/bin/python3 "$top/tests/integration/$1.py"
}

host_tests() {
  local test
  if [ "$tier" = soak ]; then host_test test_all_direct; fi
  for test in "${hosts[@]}"; do host_test "$test"; done
}

guest_test() { # name
  local rounds=3 states=60
  if is_long; then rounds=20 states=1400; fi
  CKPT_GUEST_ROUNDS=$rounds CKPT_POWER_CUT_STATES=$states \
    start run "guest: $1" "$top/tests/guest/run.sh" "$build" "$1"
}

guest_tests() {
  local test guests
  guests=$("$top/tests/guest/run.sh" --list)
  [ -n "$guests" ]
  for test in $guests; do guest_test "$test"; done
}

# Exit code 1 because of what it found, not because it could not be built or served.
finds_sabotage() {
  local status=0 said="$logs/sabotage.out"
  "$top/tools/quickstart.sh" --no-build --demo --sabotage > "$said" 2>&1 || status=$?
  cat "$said"
  [ "$status" -eq 1 ] && grep -q 'the disk is not what it was: [1-9]' "$said"
}

# What is tested later is built meanwhile, with what the tests leave of the processors.
other_builds() {
  renice -n 19 "$BASHPID" > /dev/null
  run "build with clang, TSan" clang_build
  run "build with ASan and UBSan" sanitizer_build
  run "each file, with clang" each_file
}

# What docs/reliability.md has of a run: how much of what was done to it.
prove() {
  local test
  start run "simulator, 100000 seeds" "$build/tests/sim/sim" --seeds 100000
  for test in test_kill_points test_file_faults test_kill test_link_cuts; do host_test "$test"; done
  guest_test power_cut_states
  guest_test flaky_disk
  wait
  echo "== commit $(git -C "$top" rev-parse --short HEAD), $(date -u +%F), $((SECONDS / 60)) minutes, $(nproc) processors"
  grep -hE '^[0-9]+ (seeds|kills|points|cuts)|^flips|^# .*(seed| states$|torn|dropped|failed$)' "$logs"/*.log || true
}

run_tiers() {
  local builds
  if [ "$tier" = proof ]; then
    prove
    return
  fi
  # The tool alone takes as long to compile as all the rest.
  if [ "$tier" = soak ]; then sanitized_units+=(unit_tool) sanitized_programs+=(backupd/backupd); fi
  if [ "$tier" != quick ]; then
    start other_builds
    builds=$!
  fi
  start sim_tests
  unit_tests
  start run "the logic makes no system call" logic_is_pure
  start run "corpora of fuzzing" "$build/tests/fuzz/fuzz_replay" "$top/tests/fuzz/corpus"
  if [ "$tier" = quick ]; then
    wait
    return
  fi
  guest_tests
  host_tests
  wait "$builds" || true
  sanitizer_tests
  race_tests
  wait
  if [ "$tier" = soak ]; then
    run "clang-tidy" tidy
    fuzz
    run "guest: systemd" "$top/tests/guest/run.sh" "$build" systemd_boot
    run "Debian package" "$top/tests/package/run.sh"
    host_test test_virt_tools
    wait
  fi
  # It crowds the processors itself, and counts what is done in seconds.
  # Others take loop devices.
  CKPT_BUILD=$build run_counted test_fuse_disk /usr/bin/python3 "$top/tests/integration/test_fuse_disk.py"
  CKPT_BUILD=$build run_counted test_interval /usr/bin/python3 "$top/tests/integration/test_interval.py"
  run "quickstart --demo" "$top/tests/tutorial_quickstart.sh"
  run "quickstart --demo --sabotage exits 1" finds_sabotage
  run "quickstart IMAGE" "$top/tests/quickstart_image.sh"
}

main "$@"
