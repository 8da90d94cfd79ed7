// SPDX-License-Identifier: Apache-2.0
// The write-ahead guard's rules about a store, wherever on the disk it is.
#pragma once

#include <map>
#include <optional>

#include "backupd/store/store_record.h"
#include "tests/sim/guard.h"
#include "tests/sim/sim_disk.h"

namespace ckpt::sim {

// The image of a store is written only while its record says, durably, that a checkpoint is
// confirmed that the image does not have. A journal file is freed only when it was never confirmed,
// or when `applied`, durably, is past it and all of the image is durable.
class StoreGuard : public IoGuard {
 public:
  StoreGuard(SimDisk& disk, Report report) : IoGuard(std::move(report)), disk_(disk) {}

  void on_write(const std::string& path, ByteRange range) override;
  // Space that was never written to: it reads as before.
  void on_give_back(const std::string& path, ByteRange range) override;
  void on_synced(const std::string& path, bool done) override;
  void on_remove(const std::string& path) override;
  void restart() override;

 protected:
  // What the newest whole slot of such a file says (docs/volume-format.md, "Slots"); empty: none is.
  static ConstByteSpan newest_slot(ConstByteSpan file);

  SimDisk& disk_;  // outlives this

 private:
  const std::optional<StoreRecord>& durable_record(const std::string& folder);
  std::optional<StoreRecord> read_record(const std::string& folder) const;

  std::map<std::string, std::optional<StoreRecord>> records_;  // of each folder; until it is synced
};

}  // namespace ckpt::sim
