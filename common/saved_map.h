// SPDX-License-Identifier: Apache-2.0
// A map of blocks in a file: those that have changed, which a clean stop leaves in the state
// directory, or those that are stale in an image which has become a back-up.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/block.h"
#include "common/bytes.h"
#include "common/file.h"

namespace ckpt {

// More runs are not saved; whoever has more saves a superset of fewer.
inline constexpr size_t kSavedRunsMax = size_t{1} << 20U;

// Replaces the file of that name. Durable when it returns. The digest goes into a record, which
// says whether the file counts.
// Format: docs/volume-format.md, "Saved map"
Result<Digest> save_map(Directory& directory, const std::string& name, const Uuid& volume,
                        std::span<const BlockRange> runs);

// The runs of the saved map with this digest, of a disk of so many blocks. kNotFound, kCorrupt.
Result<std::vector<BlockRange>> load_map(Directory& directory, const std::string& name,
                                         const Uuid& volume, const Digest& digest, uint64_t blocks);

}  // namespace ckpt
