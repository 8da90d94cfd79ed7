// SPDX-License-Identifier: Apache-2.0
// What doctor says of a kernel on which processes are to be saved.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "tools/machine_checks.h"

namespace ckpt {
namespace {

Check check_named(const MachineFacts& facts, const std::string& name) {
  const auto checks = check_machine(facts);
  const auto found = std::ranges::find(checks, name, &Check::name);
  return found != checks.end() ? *found : Check{};
}

TEST(DoctorProcesses, SoftDirtyIsForPreDumpOnly) {
  MachineFacts facts;
  facts.kernel = "6.1.0";
  Check check = check_named(facts, "soft-dirty");
  EXPECT_EQ(check.outcome, Outcome::kNote);
  EXPECT_NE(check.detail.find("6.1.0 does not tell"), std::string::npos) << check.detail;
  EXPECT_NE(check.advice.find("CONFIG_MEM_SOFT_DIRTY"), std::string::npos) << check.advice;
  facts.soft_dirty = true;
  check = check_named(facts, "soft-dirty");
  EXPECT_EQ(check.name, "soft-dirty");
  EXPECT_EQ(check.outcome, Outcome::kOk);
}

TEST(DoctorProcesses, NamespacesAreForRootAndRun) {
  struct Case {
    int number;
    bool is_root;
    const char* advice;
  };
  for (const Case& one :
       {Case{EPERM, false, "as root"}, Case{EPERM, true, "CAP_SYS_ADMIN"},
        Case{ENOSPC, true, "user.max_pid_namespaces"}, Case{EINVAL, true, "CONFIG_PID_NS"}}) {
    MachineFacts facts;
    facts.is_root = one.is_root;
    facts.namespaces = fail_errno(one.number, "namespaces");
    const Check check = check_named(facts, "pid-namespace");
    EXPECT_EQ(check.outcome, Outcome::kNote);
    EXPECT_NE(check.detail.find("`ckpt-tool run` cannot"), std::string::npos) << check.detail;
    EXPECT_NE(check.advice.find(one.advice), std::string::npos) << check.advice;
  }
  EXPECT_EQ(check_named(MachineFacts{}, "pid-namespace").outcome, Outcome::kOk);
}

}  // namespace
}  // namespace ckpt
