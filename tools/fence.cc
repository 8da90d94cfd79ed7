// SPDX-License-Identifier: Apache-2.0
#include "tools/fence.h"

#include <chrono>

#include "tools/program.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kFencePatience{120};

}  // namespace

Result<> fence(const std::string& command) {
  const auto said = output_of({"/bin/sh", "-c", command}, kFencePatience);
  return said ? Result<>()
              : Result<>(within("the old primary is not fenced, and nothing was promoted",
                                said.error()));
}

}  // namespace ckpt
