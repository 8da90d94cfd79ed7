// SPDX-License-Identifier: Apache-2.0
// To where checkpoints are passed on, and of which volumes.
#pragma once

#include <algorithm>
#include <vector>

#include "common/address.h"
#include "common/block.h"
#include "common/tls_options.h"

namespace ckpt {

struct RelayTarget {
  Address to;                   // of a further backupd
  TlsOptions tls{};             // of this one, as its client
  std::vector<Uuid> volumes{};  // none: all

  [[nodiscard]] bool is_of(const Uuid& volume) const {
    return volumes.empty() || std::ranges::find(volumes, volume) != volumes.end();
  }
};

}  // namespace ckpt
