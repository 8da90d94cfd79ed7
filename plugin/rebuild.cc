// SPDX-License-Identifier: Apache-2.0
#include "plugin/rebuild.h"

#include "plugin/handshake.h"

namespace ckpt {
namespace {

Result<> check_store(const VolumeRecord& record, const StoreRecord& store,
                     const RebuildTarget& target) {
  if (!store.last) {
    return fail(ErrorKind::kNotFound, "the back-up has no checkpoint to rebuild from");
  }
  if (target.checkpoint && *target.checkpoint != store.last->id) {
    return fail(ErrorKind::kNotFound, "that checkpoint is no longer kept; the last is " +
                                          std::to_string(store.last->id.number.value));
  }
  const bool is_ours = store.volume == record.volume && store.size_bytes == record.size_bytes;
  if (!is_ours ||
      decide_handshake(record, {store.last, store.incarnation}) == HandshakeRow::kDiverged) {
    return fail(ErrorKind::kFenced,
                "image and back-up have diverged: look at the back-up's checkpoint with "
                "`ckpt-tool export` before anything is overwritten");
  }
  return {};
}

}  // namespace

Result<> plan_rebuild(VolumeRecord& record, const StoreRecord& store, const RebuildTarget& target) {
  CKPT_TRY(check_store(record, store, target));
  record.everything = true;
  if (record.rollback) {
    record.rollback->fence = record.rollback->fence || target.fence;
    return {};
  }
  // What the store confirmed and nobody recorded here, or what it was restored to.
  record.last = store.last;
  record.intent.reset();
  record.rollback = RollbackTarget{store.last->id, target.to, target.fence};
  return {};
}

}  // namespace ckpt
