// SPDX-License-Identifier: Apache-2.0
// Where blocks of a checkpoint go that are passed on to a further store.
#pragma once

#include "backupd/store/block_set.h"
#include "backupd/store/store_record.h"

namespace ckpt {

// Threads: choose() and rest() by who relays; what an ExportSink does by the applier too, at once
//          with rest().
class RelaySink : public ExportSink {
 public:
  // The image is the record's last checkpoint from now on: which blocks of it are wanted. The
  // applier waits meanwhile.
  virtual BlockSet choose(const StoreRecord& record) = 0;
  // Between two parts; nothing waits meanwhile.
  virtual Result<> rest() = 0;
};

}  // namespace ckpt
