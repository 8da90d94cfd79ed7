// SPDX-License-Identifier: Apache-2.0
// The primary's durable record of itself: the content of `volume` in the state directory.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/file.h"
#include "common/mutex.h"
#include "common/slots.h"
#include "common/store_link.h"

namespace ckpt {

// A rollback that is under way: to which checkpoint, and the timeline that begins there.
struct RollbackTarget {
  CheckpointId checkpoint;
  Uuid to;
  bool fence = false;  // no client may connect afterwards until accept
};

struct VolumeRecord {
  Uuid volume;
  uint64_t size_bytes = 0;
  uint64_t region_bytes = 0;
  Uuid timeline;
  std::vector<CheckpointId> forks;     // where older timelines ended, oldest first
  std::optional<CheckpointInfo> last;  // the last checkpoint
  std::optional<CheckpointInfo> intent;
  Epoch highest;  // highest number that anybody was told
  std::optional<RollbackTarget> rollback;
  uint64_t accepted = 0;  // incarnation that the store named last
  uint64_t offered = 0;   // and the one offered to it last

  bool clean = false;        // stopped cleanly: the saved map and the image's stamp count
  bool everything = false;   // every block counts as changed
  bool suspect = false;      // a sync of the primary failed: no checkpoint before a rollback
  bool fenced = false;       // clients are refused until accept
  bool had_clients = false;  // the last server died with clients connected
  bool superseded = false;   // the back-up was promoted: this image is not served any more
  bool giving_up = false;  // the back-up was told to be the primary: not served before it is asked
  bool unplaced = false;   // itself promoted, and where its back-up will be is not said yet

  uint64_t nonce = 0;       // of this generation: written maps and the saved map name it
  std::string boot_id;      // of the boot in which it was written
  std::string maps_name;    // of the written maps' shared memory
  Digest saved_map;         // of the map saved at a clean stop
  FileStamp image;          // after a clean stop all of it counts, else only which file it is
  FileStamp self;           // of this file
  std::string store_place;  // where the store is, as backup_place.h has it
};

// Format: docs/volume-format.md
std::vector<std::byte> encode_volume_record(const VolumeRecord& record);
Result<VolumeRecord> decode_volume_record(ConstByteSpan payload);

// What is said of an image whose back-up was promoted, and what can be done.
std::string superseded_text();

// The record with the file that it lives in.
//
// Threads:    get() from any thread; change() too, one after the other.
// Durability: change() returns when the new record is durable; until then get() gives the old one.
// Failure:    after a failed write every change() fails.
class VolumeRecordFile {
 public:
  // Called around every write, while the old record still counts: prepare with the nonce of the
  // next generation, commit when that is durable.
  struct Observer {
    std::function<void(uint64_t nonce)> prepare;
    std::function<void(uint64_t nonce)> commit;
  };

  static Result<std::unique_ptr<VolumeRecordFile>> create(Directory& directory, VolumeRecord record,
                                                          Random& random);
  static Result<std::unique_ptr<VolumeRecordFile>> open(Directory& directory, Random& random);

  [[nodiscard]] VolumeRecord get();
  Result<> change(const std::function<void(VolumeRecord&)>& edit);
  Result<FileStamp> stamp() { return slots_.stamp(); }
  void set_observer(Observer observer) { observer_ = std::move(observer); }

 private:
  VolumeRecordFile(Slots slots, VolumeRecord record, Random& random)
      : slots_(std::move(slots)), random_(random), record_(std::move(record)) {}

  Slots slots_;  // guarded by writing_
  Random& random_;
  Observer observer_;
  Mutex writing_;  // before mutex_
  Mutex mutex_;
  VolumeRecord record_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt
