// SPDX-License-Identifier: Apache-2.0
// A volume's primary gives its role up.
#include "plugin/volume.h"

namespace ckpt {

Result<CheckpointInfo> Volume::promote_backup() {
  ++work_wanted_;
  const MutexLock work(work_mutex_);
  --work_wanted_;
  CKPT_TRY(check_not_superseded());
  if (!session_.is_open()) {
    CKPT_TRY(open_session());
  }
  const VolumeRecord record = started_.record->get();
  if (!record.last || record.intent || record.rollback) {
    return fail(ErrorKind::kVoid, "there is no checkpoint, or one is under way");
  }
  const Uuid timeline = surroundings_.random.uuid();
  if (auto promoted = store_.promote(record.last->id, timeline); !promoted) {
    return promoted.error().kind == ErrorKind::kUnreachable
               ? fail(ErrorKind::kHalfway,
                      "the back-up may have become the primary, or not: its answer was lost (" +
                          promoted.error().message() + ")")
               : Result<CheckpointInfo>(Unexpected(promoted.error()));
  }
  session_.lose({ErrorKind::kFenced, 0, "the back-up is the primary"});
  if (auto recorded = session_.supersede(); !recorded) {
    return fail(ErrorKind::kHalfway,
                "the back-up is the primary, and that is not on record here: " +
                    recorded.error().message());
  }
  CheckpointInfo last = *record.last;
  last.id.timeline = timeline;
  return last;
}

}  // namespace ckpt
