// SPDX-License-Identifier: Apache-2.0
#include "plugin/role_change.h"

#include "backupd/store/store.h"
#include "common/mutex.h"
#include "common/saved_map.h"

namespace ckpt {

VolumeRecord origin_of(const StoreRecord& promoted) {
  VolumeRecord record;
  record.volume = promoted.volume;
  record.timeline = promoted.last->id.timeline;
  record.forks = promoted.forks;
  record.last = promoted.last;
  record.highest = promoted.last->id.number;
  record.unplaced = true;
  return record;
}

Result<StoreRecord> save_stale(Directory& folder, const VolumeRecord& primary,
                               const ChangeMap& changed, bool with_bases) {
  StoreRecord store;
  store.volume = primary.volume;
  store.size_bytes = primary.size_bytes;
  RejoinedImage& image = store.rejoined.emplace();
  const std::vector<BlockRange> stale =
      CKPT_PLANTED(rejoin_forgets_stale) ? std::vector<BlockRange>() : changed.runs(kSavedRunsMax);
  CKPT_ASSIGN(image.stale, save_map(folder, kStaleName, primary.volume, stale));
  // The one that was intended may be what the back-up was promoted at.
  for (const auto& checkpoint : {primary.last, primary.intent}) {
    if (checkpoint && with_bases) {
      image.bases.push_back({checkpoint->id, checkpoint->digest});
    }
  }
  return store;
}

}  // namespace ckpt
