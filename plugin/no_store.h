// SPDX-License-Identifier: Apache-2.0
// The store of a volume without a back-up (backup=none).
#pragma once

#include "common/store_link.h"

namespace ckpt {

// Takes nothing: the volume only keeps account of what changes, as for a store that is not
// reachable.
//
// Threads: any.
class NoStore : public StoreLink {
 public:
  Result<StoreGreeting> begin_session() override { return none(); }
  Result<> accept(uint64_t /*incarnation*/) override { return none(); }
  Result<> receive(const EncodedBatch& /*batch*/) override { return none(); }
  Result<> attach(Epoch /*epoch*/, uint32_t /*index*/, ConstByteSpan /*piece*/) override {
    return none();
  }
  Result<> read_attachment(Epoch /*number*/, const std::string& /*name*/,
                           PieceSink& /*sink*/) override {
    return none();
  }
  Result<> confirm(const Confirmation& /*confirmation*/) override { return none(); }
  Result<> roll_back(const CheckpointId& /*from*/, const Uuid& /*to*/) override { return none(); }
  Result<> read_confirmed(uint64_t /*offset*/, ByteSpan /*buffer*/) override { return none(); }
  Result<std::optional<ByteRange>> next_confirmed_data(uint64_t /*offset*/) override {
    return none();
  }
  Result<> export_checkpoint(std::optional<Epoch> /*number*/, ExportSink& /*sink*/) override {
    return none();
  }
  Result<std::vector<CheckpointInfo>> checkpoints() override { return none(); }
  StoreStatus status() override { return {}; }

 private:
  static Unexpected none() {
    return fail(ErrorKind::kUnreachable,
                "this volume is served without a back-up (backup=none): there are no checkpoints. "
                "Serve it with backup=embedded");
  }
};

}  // namespace ckpt
