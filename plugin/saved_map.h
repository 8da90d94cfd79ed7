// SPDX-License-Identifier: Apache-2.0
// The map of changed blocks that a clean stop leaves in the state directory.
#pragma once

#include "common/file.h"
#include "plugin/change_map.h"

namespace ckpt {

// Durable when it returns. The digest goes into the record, which says whether the file counts.
// Format: docs/volume-format.md, "Saved map"
Result<Digest> save_map(Directory& directory, const Uuid& volume, const ChangeMap& map);

// The runs of the saved map with this digest. kNotFound, kCorrupt.
Result<std::vector<BlockRange>> load_map(Directory& directory, const Uuid& volume,
                                         const Digest& digest, const Geometry& geometry);

}  // namespace ckpt
