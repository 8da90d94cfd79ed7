// SPDX-License-Identifier: Apache-2.0
// A parcel: what of a checkpoint a further store lacks becomes batches for it.
#pragma once

#include <functional>
#include <span>

#include "backupd/relay_queue.h"
#include "common/draft.h"
#include "common/store_link.h"

namespace ckpt {

// Threads:  none of its own.
// Lifetime: the further store outlives it.
// Failure:  errors are the further store's.
class RelayParcel {
 public:
  // Sends a batch of these; nothing more is known of what it holds.
  using Send = std::function<Result<>(const std::vector<Extent>& extents, ConstByteSpan data)>;

  // is_fresh: nothing is there yet, so there is nothing to compare.
  RelayParcel(StoreLink& further, uint64_t size_bytes, bool is_fresh, Send send);

  // In this order. What is compared, and is there already, is left out.
  Result<> add(std::span<const RelayPart> parts);
  // Sends what is left.
  Result<> flush();

 private:
  Result<> add_data(ByteRange range, ConstByteSpan data);
  Result<> add_hole(ByteRange range);
  Result<> compare_data(std::span<const RelayPart> parts);
  Result<> compare_hole(ByteRange range);
  Result<> make_room(ByteRange range, uint64_t data_bytes);

  StoreLink& further_;
  const uint64_t size_bytes_;
  const bool is_fresh_;
  const Send send_;
  Draft draft_;
};

}  // namespace ckpt
