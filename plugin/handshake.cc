// SPDX-License-Identifier: Apache-2.0
#include "plugin/handshake.h"

#include <algorithm>
#include <array>

#include "common/lineage.h"

namespace ckpt {
namespace {

// What the store has, as the primary's record sees it.
enum class Found {
  kNothing,    // and the primary never had a checkpoint
  kLost,       // nothing, though the primary had one
  kBase,       // an image that was a primary's, at our last checkpoint but for what is stale
  kOlderBase,  // the same, at an older one of ours
  kLast,       // our last checkpoint
  kIntent,     // the one that we intended
  kOlder,      // an older one of ours
  kTarget,     // what our rollback leads to
  kForeign,    // anything else
};

// Whose incarnation the store accepted last. Another one in between means a copied or restored
// image or store.
enum class Whose { kOurs, kAny };

struct Rule {
  bool is_rolling_back;
  Found found;
  Whose whose;
  HandshakeRow row;
};

// Design 3, "Session and handshake". What no rule names has diverged.
constexpr std::array<Rule, 8> kRules{{
    {false, Found::kNothing, Whose::kAny, HandshakeRow::kFirstCopy},
    {false, Found::kLost, Whose::kAny, HandshakeRow::kResync},
    {false, Found::kBase, Whose::kAny, HandshakeRow::kRejoin},
    {false, Found::kOlderBase, Whose::kAny, HandshakeRow::kResync},
    {false, Found::kLast, Whose::kOurs, HandshakeRow::kGoOn},
    {false, Found::kIntent, Whose::kOurs, HandshakeRow::kAdopt},
    {false, Found::kOlder, Whose::kAny, HandshakeRow::kResync},
    {true, Found::kTarget, Whose::kOurs, HandshakeRow::kRollBack},
}};

bool is_rollback_target(const VolumeRecord& record, const CheckpointId& found) {
  const RollbackTarget& rollback = *record.rollback;
  return found == rollback.checkpoint ||
         found == CheckpointId{rollback.to, rollback.checkpoint.number};
}

bool is_own_fork(const VolumeRecord& record, const CheckpointId& found) {
  return std::ranges::find(record.forks, found) != record.forks.end();
}

bool is_older(const VolumeRecord& record, const CheckpointId& found) {
  return is_on_line(found, record.forks,
                    record.last ? std::optional(record.last->id) : std::nullopt);
}

// What that primary answered for has to be on our line: else it would be lost here.
Found find_base(const VolumeRecord& record, const std::vector<BaseCheckpoint>& bases) {
  const auto is_last = [&record](const BaseCheckpoint& base) {
    return base.id.number == record.last->id.number && base.digest == record.last->digest &&
           (base.id == record.last->id || is_own_fork(record, base.id));
  };
  if (!record.last || !(is_last(bases.front()) || is_older(record, bases.front().id))) {
    return Found::kForeign;
  }
  return std::ranges::any_of(bases, is_last) ? Found::kBase : Found::kOlderBase;
}

Found find_without_checkpoint(const VolumeRecord& record, const StoreGreeting& greeting) {
  if (!greeting.bases.empty()) {
    return find_base(record, greeting.bases);
  }
  return record.last ? Found::kLost : Found::kNothing;
}

Found find(const VolumeRecord& record, const StoreGreeting& greeting) {
  if (!greeting.last) {
    return find_without_checkpoint(record, greeting);
  }
  const CheckpointId found = greeting.last->id;
  if (record.rollback) {
    return is_rollback_target(record, found) ? Found::kTarget : Found::kForeign;
  }
  if (record.last && found == record.last->id) {
    return Found::kLast;
  }
  if (record.intent && found == record.intent->id &&
      greeting.last->digest == record.intent->digest) {
    return Found::kIntent;
  }
  return is_older(record, found) ? Found::kOlder : Found::kForeign;
}

}  // namespace

HandshakeRow decide_handshake(const VolumeRecord& record, const StoreGreeting& greeting) {
  const Found found = find(record, greeting);
  const bool is_ours =
      greeting.incarnation == record.accepted || greeting.incarnation == record.offered;
  const auto* const rule = std::ranges::find_if(kRules, [&](const Rule& one) {
    return one.is_rolling_back == record.rollback.has_value() && one.found == found &&
           (is_ours || one.whose == Whose::kAny);
  });
  return rule == kRules.end() ? HandshakeRow::kDiverged : rule->row;
}

}  // namespace ckpt
