// SPDX-License-Identifier: Apache-2.0
// The store's `volume` file: the one place that says what is confirmed and what is applied.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "backupd/store/store_record.h"
#include "common/mutex.h"
#include "common/slots.h"

namespace ckpt {

// Lifetime:   the directory must outlive the object.
// Threads:    all methods from any thread; record() does not wait for I/O.
// Failure:    update() either took place, or did not and says kNoSpace, or the outcome is unknown
// until
//             the store is opened again, and every later update returns that first error.
// Durability: when update() returns, the new record survives a loss of power.
class VolumeFile {
 public:
  static Result<std::unique_ptr<VolumeFile>> create(Directory& directory,
                                                    const StoreRecord& record);
  // Syncs before it reads. kNotFound, kCorrupt, kInvalid (a newer version).
  static Result<std::unique_ptr<VolumeFile>> open(Directory& directory);

  // The size of the disk that the store in there is of; if there is none yet, of_new.
  static Result<uint64_t> size_of_disk(Directory& directory, std::optional<uint64_t> of_new);

  [[nodiscard]] StoreRecord record() const CKPT_EXCLUDES(record_mutex_);
  // on_durable: called when the new record is durable, and before record() returns it. It may call
  // record(), not update().
  Result<> update(const std::function<void(StoreRecord&)>& change,
                  const std::function<void()>& on_durable = {}) CKPT_EXCLUDES(slots_mutex_);

 private:
  VolumeFile(Directory& directory, Slots slots, StoreRecord record);
  Result<> take_back(const StoreRecord& before) CKPT_REQUIRES(slots_mutex_);

  Directory& directory_;
  // Locked in this order. slots_mutex_ is held over I/O, record_mutex_ never.
  Mutex slots_mutex_;
  mutable Mutex record_mutex_;
  Slots slots_ CKPT_GUARDED_BY(slots_mutex_);
  StoreRecord record_ CKPT_GUARDED_BY(record_mutex_);
};

}  // namespace ckpt
