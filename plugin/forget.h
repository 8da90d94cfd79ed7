// SPDX-License-Identifier: Apache-2.0
// The end of protection: removes a volume's state and back-up, and leaves its image as it is.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/result.h"

namespace ckpt {

struct ForgetOutcome {
  std::vector<std::string> left;  // folders that hold what is not ours
  std::string remote_left;        // a back-up behind backupd, which is not touched: its address
};

// Whether to go on. remote: the address of a back-up that is left; empty: it is removed.
using ForgetQuestion = std::function<bool(const std::string& remote)>;

// kBusy: a server or another tool has it. kInvalid: the store that the state names is another
// volume's. kVoid: agree, asked before anything is removed, says no. What is interrupted goes on
// when it is asked for again: what says where everything is, the state's `volume`, is removed last.
// image_path: absolute; need not exist.
Result<ForgetOutcome> forget_volume(const std::string& state_path, const std::string& image_path,
                                    const ForgetQuestion& agree);

}  // namespace ckpt
