// SPDX-License-Identifier: Apache-2.0
// What doctor makes of machines and volumes on which one thing is missing, and how it tells it.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "tests/unit/control_fake_volume.h"
#include "tools/doctor.h"
#include "tools/machine_checks.h"
#include "tools/volume_checks.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();
constexpr uint64_t kGib = uint64_t{1} << 30U;

MachineFacts good_machine() {
  MachineFacts facts;
  facts.kernel = "6.1.0";
  facts.nbd = NbdModule::kLoaded;
  facts.uring_disabled = "0";
  facts.nbdkit = "/usr/bin/nbdkit";
  facts.nbd_client = "/usr/sbin/nbd-client";
  facts.qemu = "/usr/bin/qemu-system-x86_64";
  facts.qemu_version = std::string("QEMU emulator version 7.2.22 (Debian)\nCopyright\n");
  facts.unprivileged_userfaultfd = "0";
  facts.may_trace = true;
  facts.criu = "/usr/sbin/criu";
  facts.soft_dirty = true;
  facts.nbdkit_version = std::string("nbdkit 1.32.5 (nbdkit-1.32.5)\n");
  facts.plugin = std::string("path=/plugins/ckpt.so\nname=ckpt\nckpt_version=" CKPT_VERSION "\n");
  facts.maps = MapsPlace{"/run/ckpt", kGib};
  facts.open_files_max = 1024;
  facts.file_bytes_max = kUnlimited;
  return facts;
}

Place good_place(const std::string& path) {
  Place place;
  place.path = path;
  place.exists = true;
  place.is_writable = true;
  place.file_system = "ext4";
  place.device = 1;
  place.free_bytes = 10 * kGib;
  return place;
}

VolumeFacts good_volume() {
  VolumeFacts facts;
  facts.paths = {"/srv/disk.img", "/srv/disk.img.ckpt"};
  facts.image.is_file = true;
  facts.image.size_bytes = kGib;
  facts.image.allocated_bytes = kGib / 2;
  facts.image.place = good_place("/srv");
  facts.has_state = true;
  facts.state = good_place("/srv/disk.img.ckpt");
  facts.backup = good_place("/srv/disk.img.ckpt/store");
  facts.room = {"/srv/disk.img.ckpt/store", kGib, kGib / 4, 10 * kGib};
  facts.maps_bytes = 65536;
  facts.has_proc = true;
  facts.status = Result<VolumeStatus>(FakeVolume::default_status());
  facts.served = true;
  return facts;
}

const Check* find(const std::vector<Check>& checks, const std::string& name) {
  for (const Check& check : checks) {
    if (check.name == name) {
      return &check;
    }
  }
  return nullptr;
}

// What one thing that is not well has to give; every other check stays ok.
struct Expected {
  const char* name;
  Outcome outcome;
  const char* detail;  // a part of it
  const char* advice;  // a part of it
};

void expect_only(const std::vector<Check>& checks, const Expected& expected) {
  const Check* check = find(checks, expected.name);
  ASSERT_NE(check, nullptr) << expected.name;
  EXPECT_EQ(check->outcome, expected.outcome) << check->name << ": " << check->detail;
  EXPECT_NE(check->detail.find(expected.detail), std::string::npos) << check->detail;
  EXPECT_NE(check->advice.find(expected.advice), std::string::npos) << check->advice;
  for (const Check& other : checks) {
    EXPECT_EQ(other.outcome == Outcome::kOk, other.advice.empty()) << other.name;
    if (other.name != expected.name) {
      EXPECT_EQ(other.outcome, Outcome::kOk) << other.name << ": " << other.detail;
    }
  }
}

struct MachineCase {
  std::function<void(MachineFacts&)> harm;
  Expected expected;
};

struct VolumeCase {
  std::function<void(VolumeFacts&)> harm;
  Expected expected;
};

void expect_machine_cases(const std::vector<MachineCase>& cases) {
  for (const auto& [harm, expected] : cases) {
    MachineFacts facts = good_machine();
    harm(facts);
    expect_only(check_machine(facts), expected);
  }
}

TEST(DoctorMachine, AllIsWell) {
  for (const Check& check : check_machine(good_machine())) {
    EXPECT_EQ(check.outcome, Outcome::kOk) << check.name << ": " << check.detail;
    EXPECT_EQ(check.advice, "") << check.name;
    EXPECT_NE(check.detail, "") << check.name;
  }
}

TEST(DoctorMachine, NbdkitAndPlugin) {
  expect_machine_cases({
      {[](auto& f) { f.nbdkit_version = fail(ErrorKind::kTimeout, "it does not end"); },
       {"nbdkit", Outcome::kFailed, "/usr/bin/nbdkit does not run: it does not end", "1.32"}},
      {[](auto& f) { f.nbdkit_version = std::string("what?"); },
       {"nbdkit", Outcome::kFailed, "does not say its version", "install nbdkit 1.32"}},
      {[](auto& f) { f.nbdkit_version = std::string("nbdkit 1.30.9\n"); },
       {"nbdkit", Outcome::kFailed, "nbdkit 1.30.9, /usr/bin/nbdkit: too old", "1.32 or later"}},
      {[](auto& f) { f.nbdkit_version = std::string("nbdkit 0.99.9\n"); },
       {"nbdkit", Outcome::kFailed, "too old", "1.32 or later"}},
      {[](auto& f) { f.plugin = fail(ErrorKind::kIo, "cannot open plugin 'ckpt'"); },
       {"plugin", Outcome::kFailed, "cannot open plugin 'ckpt'", "meson install"}},
      {[](auto& f) { f.plugin = std::string("path=/p.so\nckpt_version=0.0.1\n"); },
       {"plugin", Outcome::kFailed, "version 0.0.1, /p.so, but ckpt-tool is", "one build"}},
      {[](auto& f) { f.plugin = std::string("name=other\n"); },
       {"plugin", Outcome::kFailed, "but ckpt-tool is", "one build"}},
  });
  for (const char* version : {"nbdkit 1.32.0\n", "nbdkit 1.41.4\n", "nbdkit 2.0.0 (rc)"}) {
    MachineFacts facts = good_machine();
    facts.nbdkit_version = std::string(version);
    EXPECT_EQ(find(check_machine(facts), "nbdkit")->outcome, Outcome::kOk) << version;
  }
}

TEST(DoctorMachine, WithoutNbdkitThereIsNoPluginEither) {
  MachineFacts facts = good_machine();
  facts.nbdkit = "";
  const auto checks = check_machine(facts);
  EXPECT_EQ(find(checks, "nbdkit")->outcome, Outcome::kFailed);
  EXPECT_NE(find(checks, "nbdkit")->advice.find("PATH"), std::string::npos);
  EXPECT_EQ(find(checks, "plugin")->outcome, Outcome::kFailed);
  EXPECT_NE(find(checks, "plugin")->detail.find("not looked for"), std::string::npos);
}

TEST(DoctorMachine, WrittenMaps) {
  expect_machine_cases({
      {[](auto& f) { f.maps = fail(ErrorKind::kNotFound, "no tmpfs for the written maps"); },
       {"written-maps", Outcome::kFailed, "no tmpfs", "XDG_RUNTIME_DIR"}},
      {[](auto& f) { f.maps->free_bytes = 4096; },
       {"written-maps", Outcome::kNote, "/run/ckpt, 4.0 KiB free: little", "remount"}},
      {[](auto& f) { f.runtime_directory = "/home/me"; },
       {"written-maps", Outcome::kNote, "XDG_RUNTIME_DIR (/home/me) is no tmpfs", "unset"}},
  });
  MachineFacts facts = good_machine();
  facts.runtime_directory = "/run";
  EXPECT_EQ(find(check_machine(facts), "written-maps")->outcome, Outcome::kOk);
}

TEST(DoctorMachine, IoUring) {
  const auto refused = [](int number) { return fail_errno(number, "io_uring_setup"); };
  expect_machine_cases({
      {[&](auto& f) { f.uring = refused(ENOSYS); },
       {"io_uring", Outcome::kNote, "Function not implemented: io=auto does without", "kernel"}},
      {[&](auto& f) { f.uring = refused(ENOMEM); },
       {"io_uring", Outcome::kNote, "Cannot allocate memory", "ulimit -l"}},
      {[&](auto& f) { f.uring = refused(EPERM); },
       {"io_uring", Outcome::kNote, "Operation not permitted", "seccomp"}},
      {[&](auto& f) {
         f.uring = refused(EPERM);
         f.uring_disabled = "2";
       },
       {"io_uring", Outcome::kNote, "kernel.io_uring_disabled = 2", "sysctl"}},
      {[&](auto& f) {
         f.uring = refused(EPERM);
         f.uring_disabled = "";
       },
       {"io_uring", Outcome::kNote, "not permitted:", "seccomp"}},
      {[&](auto& f) { f.uring = refused(EMFILE); },
       {"io_uring", Outcome::kNote, "Too many open files", "io_uring_setup(2)"}},
  });
}

TEST(DoctorMachine, WhatNotEverybodyNeedsIsANote) {
  expect_machine_cases({
      {[](auto& f) { f.nbd = NbdModule::kLoadable; },
       {"nbd-module", Outcome::kNote, "not loaded", "modprobe nbd"}},
      {[](auto& f) { f.nbd = NbdModule::kMissing; },
       {"nbd-module", Outcome::kNote, "do with nbdfuse and a loop device", "install the module"}},
      {[](auto& f) {
         f.nbd = NbdModule::kMissing;
         f.no_fuse_disk = "losetup is not installed (package mount)";
       },
       {"nbd-module", Outcome::kNote, "none for kernel 6.1.0", "package mount"}},
      {[](auto& f) { f.nbd_client = ""; },
       {"nbd-client", Outcome::kNote, "not found", "nbd-client"}},
      {[](auto& f) { f.qemu = ""; }, {"qemu", Outcome::kNote, "not found", "qemu-system-x86"}},
      {[](auto& f) { f.criu = ""; }, {"criu", Outcome::kNote, "not found", "criu"}},
      {[](auto& f) { f.criu_problem = "vdso: Unexpected rt vDSO area bounds"; },
       {"criu", Outcome::kNote, "vDSO area bounds", "kernel 6.1.0"}},
      {[](auto& f) { f.open_files_max = 64; },
       {"open-files", Outcome::kNote, "limited to 64", "ulimit -n"}},
      {[](auto& f) { f.file_bytes_max = kGib; },
       {"file-size", Outcome::kNote, "1.0 GiB (1073741824 bytes)", "ulimit -f"}},
  });
}

TEST(DoctorMachine, Qemu) {
  expect_machine_cases({
      {[](auto& f) { f.qemu_version = fail(ErrorKind::kTimeout, "it does not end"); },
       {"qemu", Outcome::kNote, "does not run: it does not end", "QEMU 6.0"}},
      {[](auto& f) { f.qemu_version = std::string("what?"); },
       {"qemu", Outcome::kNote, "does not say its version", "QEMU 6.0"}},
      {[](auto& f) { f.qemu_version = std::string("QEMU emulator version 5.2.0 (Debian)\nC"); },
       {"qemu", Outcome::kNote, "version 5.2.0 (Debian), /usr/bin/qemu-system-x86_64: too old",
        "QEMU 6.0 or later"}},
  });
  MachineFacts facts = good_machine();
  facts.qemu_version = std::string("QEMU emulator version 10.0.2\n");
  EXPECT_EQ(find(check_machine(facts), "qemu")->detail,
            "QEMU emulator version 10.0.2, /usr/bin/qemu-system-x86_64");
}

TEST(DoctorMachine, SavingWhileAMachineRuns) {
  const auto refused = [](MachineFacts& facts, int number, const std::string& sysctl) {
    facts.may_trace = false;
    facts.write_protection = fail_errno(number, "userfaultfd");
    facts.unprivileged_userfaultfd = sysctl;
  };
  expect_machine_cases({
      {[&](auto& f) { refused(f, EPERM, "0"); },
       {"qemu-background", Outcome::kNote, "(vm.unprivileged_userfaultfd = 0): `vm checkpoint`",
        "sysctl vm.unprivileged_userfaultfd=1; or run QEMU as root"}},
      {[&](auto& f) {
         refused(f, EPERM, "0");
         f.may_trace = true;
       },
       {"qemu-background", Outcome::kNote, "Operation not permitted", "seccomp"}},
      {[&](auto& f) { refused(f, EPERM, "1"); },
       {"qemu-background", Outcome::kNote, "Operation not permitted", "seccomp"}},
      {[&](auto& f) { refused(f, ENOSYS, ""); },
       {"qemu-background", Outcome::kNote, "userfaultfd: Function not implemented: `vm",
        "kernel of 5.7"}},
      {[&](auto& f) { refused(f, EOPNOTSUPP, "1"); },
       {"qemu-background", Outcome::kNote, "not supported", "kernel of 5.7"}},
      {[&](auto& f) { refused(f, ENOMEM, "1"); },
       {"qemu-background", Outcome::kNote, "Cannot allocate memory", "userfaultfd(2)"}},
  });
  MachineFacts facts = good_machine();
  EXPECT_NE(find(check_machine(facts), "qemu-background")->detail.find("libvirt's"),
            std::string::npos);
  facts.unprivileged_userfaultfd = "1";
  EXPECT_EQ(find(check_machine(facts), "qemu-background")->detail,
            "a machine runs on while its memory is saved");
}

TEST(DoctorMachine, QemuOfThisMachineIsPreferred) {
  std::string pattern = testing::TempDir() + "qemu-XXXXXX";
  const fs::path root = ::mkdtemp(pattern.data());
  const std::string path = (root / "none").string() + ":" + root.string();
  EXPECT_EQ(find_qemu(path, "x86_64"), "");
  for (const char* name : {"qemu-system-x86_64", "qemu-system-arm"}) {
    std::ofstream(root / name) << "#!/bin/sh\n";
    fs::permissions(root / name, fs::perms::owner_all);
  }
  EXPECT_EQ(find_qemu(path, "x86_64"), root / "qemu-system-x86_64");
  fs::remove(root / "qemu-system-x86_64");
  EXPECT_EQ(find_qemu(path, "x86_64"), root / "qemu-system-arm");
  fs::remove_all(root);
}

TEST(DoctorMachine, NbdModuleIsFoundLoadedOrLoadable) {
  std::string pattern = testing::TempDir() + "machine-XXXXXX";
  const fs::path root = ::mkdtemp(pattern.data());
  EXPECT_EQ(find_nbd_module(root, "6.1.0"), NbdModule::kMissing);
  fs::create_directories(root / "lib/modules/6.1.0");
  std::ofstream dep(root / "lib/modules/6.1.0/modules.dep");
  dep << "kernel/drivers/block/aoe/aoe.ko:\nkernel/drivers/block/not-nbd.ko:\n" << std::flush;
  EXPECT_EQ(find_nbd_module(root, "6.1.0"), NbdModule::kMissing);
  dep << "kernel/drivers/block/nbd.ko.xz:\n" << std::flush;
  EXPECT_EQ(find_nbd_module(root, "6.1.0"), NbdModule::kLoadable);
  EXPECT_EQ(find_nbd_module(root, "6.1.1"), NbdModule::kMissing);
  fs::create_directories(root / "sys/module/nbd");
  EXPECT_EQ(find_nbd_module(root, "6.1.1"), NbdModule::kLoaded);
  fs::remove_all(root);
}

void expect_volume_cases(const std::vector<VolumeCase>& cases) {
  for (const auto& [harm, expected] : cases) {
    VolumeFacts facts = good_volume();
    harm(facts);
    expect_only(check_volume(facts, MapsPlace{"/run/ckpt", kGib}), expected);
  }
}

void expect_well(const VolumeFacts& facts) {
  for (const Check& check : check_volume(facts, MapsPlace{"/run/ckpt", kGib})) {
    EXPECT_EQ(check.outcome, Outcome::kOk) << check.name << ": " << check.detail;
    EXPECT_EQ(check.advice, "") << check.name;
  }
}

TEST(DoctorVolume, AllIsWell) {
  VolumeFacts facts = good_volume();
  expect_well(facts);
  facts.served = false;
  (*facts.status)->state = "stopped";
  expect_well(facts);
}

TEST(DoctorVolume, AnImageThatWasNeverServedIsWell) {
  VolumeFacts facts = good_volume();
  facts.has_state = false;
  facts.served = false;
  facts.status.reset();
  facts.state.exists = false;
  facts.backup.exists = false;
  facts.room.there = 0;
  expect_well(facts);
  const auto checks = check_volume(facts, MapsPlace{"/run/ckpt", kGib});
  EXPECT_EQ(find(checks, "state-directory")->detail, "/srv/disk.img.ckpt will be made, on ext4");
  EXPECT_NE(find(checks, "server")->detail.find("never served"), std::string::npos);
}

TEST(DoctorVolume, Image) {
  expect_volume_cases({
      {[](auto& f) { f.image.is_file = false; },
       {"image", Outcome::kFailed, "neither a regular file nor", "give one"}},
      {[](auto& f) { f.image.access = fail_errno(EACCES, "open /srv/disk.img"); },
       {"image", Outcome::kFailed, "Permission denied", "user who serves"}},
      {[](auto& f) { f.image.size_bytes = 0; },
       {"image", Outcome::kFailed, "has 0 bytes", "size=SIZE"}},
      {[](auto& f) { f.image.own = "nbd0"; },
       {"image", Outcome::kFailed, "is on, nbd0", "behind that device"}},
      {[](auto& f) { f.image.format = "qcow2"; },
       {"image", Outcome::kNote, "looks like a qcow2 image", "format=raw"}},
      {[](auto& f) {
         f.image.format = "qcow2";
         f.has_state = false;
         f.status.reset();
       },
       {"image", Outcome::kFailed, "looks like a qcow2 image", "qemu-img convert"}},
      {[](auto& f) { f.image.direct = fail(ErrorKind::kInvalid, "no direct I/O here"); },
       {"direct-io", Outcome::kNote, "no direct I/O here", "leave direct=on out"}},
      {[](auto& f) { f.image.direct = fail_errno(EACCES, "open"); },
       {"direct-io", Outcome::kNote, "not known: open: Permission denied", "user"}},
      {[](auto& f) { f.image.place.holes = fail(ErrorKind::kInvalid, "no holes"); },
       {"image-holes", Outcome::kNote, "ext4: no holes", "use ext4"}},
      {[](auto& f) { f.image.place.holes = fail_errno(EROFS, "make"); },
       {"image-holes", Outcome::kNote, "not known: make: Read-only", "another file system"}},
  });
}

TEST(DoctorVolume, ABlockDeviceNeedsItsStateElsewhere) {
  VolumeFacts facts = good_volume();
  facts.image.is_file = false;
  facts.image.is_device = true;
  facts.image.place = {};
  expect_well(facts);
  facts.has_state = false;
  facts.status.reset();
  facts.paths = {"/dev/vdb", "/dev/vdb.ckpt"};
  expect_only(check_volume(facts, MapsPlace{"/run/ckpt", kGib}),
              {"state-directory", Outcome::kFailed, "/dev/vdb is a block device", "state=DIR"});
  facts.paths.state = "/var/lib/vdb";
  expect_well(facts);
}

TEST(DoctorVolume, Places) {
  const auto own = [] { return fail(ErrorKind::kInvalid, "it is on nbd0"); };
  expect_volume_cases({
      {[&](auto& f) { f.state_export = own(); },
       {"state-directory", Outcome::kFailed, "it is on nbd0", "state=DIR"}},
      {[](auto& f) { f.state.is_writable = false; },
       {"state-directory", Outcome::kFailed, "cannot be written", "state=DIR"}},
      {[](auto& f) {
         f.state.is_writable = false;
         f.state.exists = false;
       },
       {"state-directory", Outcome::kFailed, "cannot be made", "state=DIR"}},
      {[](auto& f) { f.state.file_system = "tmpfs"; },
       {"state-directory", Outcome::kNote, "gone after a reboot", "state=DIR"}},
      {[&](auto& f) { f.backup_export = own(); },
       {"backup", Outcome::kFailed, "it is on nbd0", "backup=embedded:DIR"}},
      {[](auto& f) { f.backup.is_writable = false; },
       {"backup", Outcome::kFailed, "cannot be written", "backup=embedded:DIR"}},
      {[](auto& f) { f.backup.file_system = "tmpfs"; },
       {"backup", Outcome::kNote, "gone after a reboot", "backup=embedded:DIR"}},
      {[](auto& f) { f.backup.holes = fail(ErrorKind::kInvalid, "no holes"); },
       {"backup-holes", Outcome::kNote, "no holes", "use ext4"}},
  });
}

TEST(DoctorVolume, OneDiskForImageAndBackupIsSaid) {
  VolumeFacts facts = good_volume();
  const auto detail = [&] {
    return find(check_volume(facts, MapsPlace{"/run/ckpt", kGib}), "backup")->detail;
  };
  EXPECT_NE(detail().find("a disk that fails takes both"), std::string::npos);
  facts.backup.device = 2;
  EXPECT_EQ(detail().find("a disk that fails takes both"), std::string::npos);
}

TEST(DoctorVolume, Space) {
  expect_volume_cases({
      {[](auto& f) { f.room.free = kGib / 2; },
       {"backup-space", Outcome::kNote, "may grow to 1073741824 bytes", "free some space"}},
      {[](auto& f) {
         f.room.there = 0;
         f.room.free = kGib / 2 - 1;
       },
       {"backup-space", Outcome::kFailed, "the first copy takes up to 512 MiB", "another disk"}},
  });
  VolumeFacts facts = good_volume();
  facts.room.free = kGib - facts.room.there;  // just enough
  expect_well(facts);
}

TEST(DoctorVolume, MapSpace) {
  VolumeFacts facts = good_volume();
  const MapsPlace little{"/run/ckpt", 65535};
  EXPECT_EQ(find(check_volume(facts, little), "map-space")->outcome, Outcome::kOk);
  facts.served = false;
  (*facts.status)->state = "stopped";
  expect_only(check_volume(facts, little),
              {"map-space", Outcome::kNote, "64.0 KiB, 64.0 KiB are free in /run/ckpt", "remount"});
  expect_only(check_volume(facts, fail(ErrorKind::kNotFound, "none")),
              {"map-space", Outcome::kFailed, "no tmpfs", "written-maps"});
}

TEST(DoctorVolume, ControlSocketOfALongPath) {
  VolumeFacts facts = good_volume();
  const auto check = [&](size_t length) {
    facts.paths.state = "/" + std::string(length - 1 - sizeof("/control.sock") + 1, 'd');
    return *find(check_volume(facts, MapsPlace{"/run/ckpt", kGib}), "control-socket");
  };
  facts.has_proc = false;
  EXPECT_EQ(check(107).outcome, Outcome::kOk);
  EXPECT_EQ(check(108).outcome, Outcome::kFailed);
  facts.has_proc = true;
  EXPECT_EQ(check(108).outcome, Outcome::kOk);
  EXPECT_NE(check(108).detail.find("/proc/self/fd"), std::string::npos);
}

TEST(DoctorVolume, ServerThatRuns) {
  const auto say = [](VolumeFacts& f) -> VolumeStatus& { return **f.status; };
  expect_volume_cases({
      {[](auto& f) { f.status = Result<VolumeStatus>(fail(ErrorKind::kTimeout, "no answer")); },
       {"server", Outcome::kFailed, "no answer", "start"}},
      {[&](auto& f) {
         say(f).state = "";
         say(f).problem = "silent";
       },
       {"server", Outcome::kFailed, "does not answer: silent", "start it again"}},
      {[&](auto& f) { say(f).state = "fenced"; },
       {"server", Outcome::kFailed, "fenced", "ckpt-tool accept"}},
      {[&](auto& f) {
         say(f).state = "diverged";
         say(f).problem = "the store is newer";
       },
       {"server", Outcome::kFailed, "diverged: the store is newer", "decide"}},
      {[&](auto& f) { say(f).state = "rolling-back"; },
       {"server", Outcome::kNote, "a rollback is under way", "wait"}},
      {[&](auto& f) {
         say(f).store->state = "failed";
         say(f).store->error = "No space left";
       },
       {"server", Outcome::kFailed, "back-up failed: No space left", "ckpt-tool status"}},
      {[&](auto& f) { say(f).problem = "comparing"; },
       {"server", Outcome::kNote, "running: comparing", "ckpt-tool status"}},
      {[&](auto& f) { say(f).store.reset(); },
       {"backup", Outcome::kNote, "backup=none", "without backup=none"}},
  });
}

TEST(DoctorVolume, ServerThatDoesNotRun) {
  const auto stopped = [](VolumeFacts& f) -> VolumeStatus& {
    f.served = false;
    (*f.status)->state = "stopped";
    return **f.status;
  };
  expect_volume_cases({
      {[&](auto& f) { stopped(f).state = "rolling-back"; },
       {"server", Outcome::kNote, "no server runs", "serve the image"}},
      {[&](auto& f) {
         stopped(f).store->state = "failed";
         (*f.status)->store->error = "gone";
       },
       {"server", Outcome::kFailed, "cannot be read: gone", "bring the back-up back"}},
      {[&](auto& f) {
         stopped(f).store->state = "failed";
         (*f.status)->last_checkpoint.reset();
       },
       {"server", Outcome::kNote, "cannot be read", "backup=none"}},
  });
  VolumeFacts facts = good_volume();
  stopped(facts).problem = "the last server did not stop cleanly";
  expect_well(facts);
}

// What the console was told, as lines of people or of scripts.
struct Told {
  std::string text;
  int code = 0;
};

Told tell(const std::vector<Check>& checks, const Verbosity& verbosity, bool terminal = false) {
  char* memory = nullptr;
  size_t length = 0;
  std::FILE* file = ::open_memstream(&memory, &length);
  Streams streams{stdin, file, stderr, false, terminal, false};
  streams.colours = true;
  Console console(streams);
  console.set(verbosity);
  Told told;
  told.code = say_checks(console, checks);
  std::fclose(file);
  told.text = std::string(memory, length);
  std::free(memory);
  return told;
}

const std::vector<Check>& some_checks() {
  static const std::vector<Check> checks{passed("nbdkit", "1.32.5"),
                                         noted("io_uring", "not permitted", "allow it"),
                                         failed("plugin", "evil \x1b[2J", "install it")};
  return checks;
}

TEST(DoctorWords, ForPeople) {
  const Told told = tell(some_checks(), {});
  EXPECT_EQ(told.code, 3);
  EXPECT_EQ(told.text,
            "nbdkit    ok      1.32.5\n"
            "io_uring  note    not permitted\n"
            "                  allow it\n"
            "plugin    failed  evil ?[2J\n"
            "                  install it\n");
}

TEST(DoctorWords, WhenQuietOnlyWhatFailed) {
  EXPECT_EQ(tell(some_checks(), {.quiet = true}).text,
            "plugin    failed  evil ?[2J\n                  install it\n");
  const Told well =
      tell({passed("nbdkit", "1.32.5"), noted("qemu", "not found", "install it")}, {.quiet = true});
  EXPECT_EQ(well.text, "");
  EXPECT_EQ(well.code, 0);
}

TEST(DoctorWords, ColoursOnATerminalOnly) {
  const std::string text = tell(some_checks(), {}, true).text;
  EXPECT_NE(text.find("\x1b[32mok\x1b[0m      1.32.5"), std::string::npos) << text;
  EXPECT_NE(text.find("\x1b[33mnote\x1b[0m    not"), std::string::npos) << text;
  EXPECT_NE(text.find("\x1b[31mfailed\x1b[0m  evil ?"), std::string::npos) << text;
}

TEST(DoctorWords, ForScripts) {
  const Told told = tell(some_checks(), {.json = true});
  EXPECT_EQ(told.code, 3);
  const ParsedJson result = ParsedJson::parse(told.text, nullptr, false);
  ASSERT_TRUE(result.is_object()) << told.text;
  EXPECT_EQ(result["type"], "result");
  EXPECT_EQ(result["schema"], 1);
  ASSERT_EQ(result["checks"].size(), 3U);
  const ParsedJson& note = result["checks"][1];
  EXPECT_EQ(note.size(), 4U);
  EXPECT_EQ(note["name"], "io_uring");
  EXPECT_EQ(note["ok"], true);
  EXPECT_EQ(note["detail"], "not permitted");
  EXPECT_EQ(note["advice"], "allow it");
  EXPECT_EQ(result["checks"][0]["advice"], "");
  EXPECT_EQ(result["checks"][2]["ok"], false);
}

}  // namespace
}  // namespace ckpt
