// SPDX-License-Identifier: Apache-2.0
// What is known of an image when its role changes: of a back-up's that becomes a primary's, and of
// a primary's that becomes a back-up's.
#pragma once

#include "backupd/store/store_record.h"
#include "common/file.h"
#include "plugin/change_map.h"
#include "plugin/volume_record.h"

namespace ckpt {

// What the state of a promoted store's image begins with: it is the store's last checkpoint.
VolumeRecord origin_of(const StoreRecord& promoted);

// Saves, in a store's folder, which blocks of an old primary's image have changed since its last
// checkpoint; the store's record with that. with_bases: without them all of the disk is compared.
// Durable, but for the record, when it returns.
Result<StoreRecord> save_stale(Directory& folder, const VolumeRecord& primary,
                               const ChangeMap& changed, bool with_bases);

}  // namespace ckpt
