// SPDX-License-Identifier: Apache-2.0
// A volume's primary gives its role up.
#include "plugin/volume.h"

namespace ckpt {
namespace {

// It was not done, and is not on record there. A disk that fails may do so after that.
bool is_refusal(const Error& error) {
  return error.kind == ErrorKind::kVoid || error.kind == ErrorKind::kDenied ||
         error.kind == ErrorKind::kInvalid || error.kind == ErrorKind::kFenced;
}

}  // namespace

Result<> Volume::check_backup_promotes() {
  ++work_wanted_;
  const MutexLock work(work_mutex_);
  --work_wanted_;
  CKPT_TRY(check_not_superseded());
  if (!session_.is_open()) {
    CKPT_TRY(open_session());
  }
  return store_.check_promotes();
}

// On record before the back-up is told: whatever is lost then, nobody serves this image before the
// back-up was asked what it is.
Result<CheckpointInfo> Volume::promote_backup() {
  ++work_wanted_;
  const MutexLock work(work_mutex_);
  --work_wanted_;
  const VolumeRecord record = started_.record->get();
  if (!session_.is_open() || !record.last || record.intent || record.rollback) {
    return fail(ErrorKind::kVoid, "there is no checkpoint, or something is under way");
  }
  CKPT_TRY(started_.record->change([](VolumeRecord& giving) { giving.giving_up = true; }));
  const Uuid timeline = surroundings_.random.uuid();
  if (auto promoted = store_.promote(record.last->id, timeline); !promoted) {
    if (!is_refusal(promoted.error())) {
      return fail(ErrorKind::kHalfway,
                  "the back-up may have become the primary, or not: " + promoted.error().message());
    }
    // Where this fails, the next start asks the back-up.
    (void)started_.record->change([](VolumeRecord& kept) { kept.giving_up = false; });
    return Unexpected(promoted.error());
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
