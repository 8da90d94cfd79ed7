// SPDX-License-Identifier: Apache-2.0
#include "common/store_link.h"

#include <algorithm>

#include "common/aligned_buffer.h"

namespace ckpt {
namespace {

// One range: its data as data, the rest as holes.
class RangeReader {
 public:
  RangeReader(StoreLink& store, ContentSink& sink) : store_(store), sink_(sink) {}

  Result<> read(ByteRange range) {
    uint64_t offset = range.offset;
    while (offset < range.end()) {
      CKPT_ASSIGN(const auto data, store_.next_confirmed_data(offset));
      const uint64_t begin = data ? std::clamp(data->offset, offset, range.end()) : range.end();
      if (begin > offset) {
        CKPT_TRY(sink_.zero({offset, begin - offset}));
      }
      offset = data ? std::clamp(data->end(), begin, range.end()) : begin;
      CKPT_TRY(pass_on({begin, offset - begin}));
    }
    return {};
  }

 private:
  Result<> pass_on(ByteRange data) {
    while (data.length > 0) {
      const ByteSpan piece = buffer_.span().first(std::min(data.length, kPieceBytes));
      CKPT_TRY(store_.read_confirmed(data.offset, piece));
      CKPT_TRY(sink_.write(data.offset, piece));
      data = {data.offset + piece.size(), data.length - piece.size()};
    }
    return {};
  }

  StoreLink& store_;
  ContentSink& sink_;
  const AlignedBuffer buffer_{kPieceBytes};
};

}  // namespace

Result<> StoreLink::read_ranges(std::span<const ByteRange> ranges, ContentSink& sink) {
  RangeReader reader(*this, sink);
  for (const ByteRange& range : ranges) {
    CKPT_TRY(reader.read(range));
  }
  return {};
}

}  // namespace ckpt
