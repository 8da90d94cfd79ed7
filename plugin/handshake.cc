// SPDX-License-Identifier: Apache-2.0
#include "plugin/handshake.h"

#include <algorithm>

namespace ckpt {
namespace {

bool is_rollback_target(const VolumeRecord& record, const CheckpointId& found) {
  const RollbackTarget& rollback = *record.rollback;
  return found == rollback.checkpoint ||
         found == CheckpointId{rollback.to, rollback.checkpoint.number};
}

bool is_own_fork(const VolumeRecord& record, const CheckpointId& found) {
  return std::ranges::find(record.forks, found) != record.forks.end();
}

bool is_older(const VolumeRecord& record, const CheckpointId& found) {
  const auto at_or_before = [&found](const CheckpointId& end) {
    return end.timeline == found.timeline && found.number <= end.number;
  };
  return std::any_of(record.forks.begin(), record.forks.end(), at_or_before) ||
         (record.last && at_or_before(record.last->id));
}

// Of a store whose image was a primary's. What that one answered for has to be on our line: else it
// would be lost here.
HandshakeRow decide_rejoin(const VolumeRecord& record, const std::vector<BaseCheckpoint>& bases) {
  const auto is_last = [&record](const BaseCheckpoint& base) {
    return base.id.number == record.last->id.number && base.digest == record.last->digest &&
           (base.id == record.last->id || is_own_fork(record, base.id));
  };
  const bool is_ours = is_last(bases.front()) || is_older(record, bases.front().id);
  if (!is_ours) {
    return HandshakeRow::kDiverged;
  }
  return std::ranges::any_of(bases, is_last) ? HandshakeRow::kRejoin : HandshakeRow::kResync;
}

}  // namespace

HandshakeRow decide_handshake(const VolumeRecord& record, const StoreGreeting& greeting) {
  if (!greeting.last) {
    if (record.rollback) {
      return HandshakeRow::kDiverged;
    }
    if (!greeting.bases.empty()) {
      return record.last ? decide_rejoin(record, greeting.bases) : HandshakeRow::kDiverged;
    }
    return record.last ? HandshakeRow::kResync : HandshakeRow::kFirstCopy;
  }
  const CheckpointId found = greeting.last->id;
  // Another incarnation in between means a copied or restored image or store.
  const bool ours =
      greeting.incarnation == record.accepted || greeting.incarnation == record.offered;
  if (record.rollback) {
    return ours && is_rollback_target(record, found) ? HandshakeRow::kRollBack
                                                     : HandshakeRow::kDiverged;
  }
  if (record.last && found == record.last->id) {
    return ours ? HandshakeRow::kGoOn : HandshakeRow::kDiverged;
  }
  if (record.intent && found == record.intent->id &&
      greeting.last->digest == record.intent->digest) {
    return ours ? HandshakeRow::kAdopt : HandshakeRow::kDiverged;
  }
  return is_older(record, found) ? HandshakeRow::kResync : HandshakeRow::kDiverged;
}

}  // namespace ckpt
