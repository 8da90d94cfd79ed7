// SPDX-License-Identifier: Apache-2.0
// What a command says, out of the file that its output goes to.
#pragma once

#include <cstdint>
#include <string>

namespace ckpt {

// Threads: one.
class CommandOutput {
 public:
  // What is in the file by now is left out. It need not be there.
  explicit CommandOutput(std::string path);

  // What came since, at most 64 KiB. Empty: nothing, or it cannot be read.
  std::string next();

 private:
  const std::string path_;
  uint64_t offset_ = 0;
};

}  // namespace ckpt
