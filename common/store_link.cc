// SPDX-License-Identifier: Apache-2.0
#include "common/store_link.h"

#include <algorithm>
#include <array>

#include "common/aligned_buffer.h"
#include "common/checksum.h"

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

// The digests of blocks, from their content in order.
class DigestSink final : public ContentSink {
 public:
  explicit DigestSink(const DigestQuery& query)
      : query_(query), zero_(digest_of(kZeroes, query.seed)) {
    digests_.reserve(query.blocks.count());
  }

  // A piece may end within a block: holes do, where a file system tells of smaller ones.
  Result<> write(uint64_t offset, ConstByteSpan data) override {
    for (; !data.empty(); data = data.subspan(take(offset, data)), offset = next_) {
    }
    return {};
  }
  Result<> zero(ByteRange range) override {
    while (range.length > 0) {
      const bool is_whole = filled_ == 0 && range.length >= kBlockBytes;
      if (is_whole) {
        digests_.push_back(zero_);
        next_ = range.offset + kBlockBytes;
      } else {
        take(range.offset, ConstByteSpan(kZeroes).first(std::min(range.length, kBlockBytes)));
      }
      range = {next_, range.end() - next_};
    }
    return {};
  }
  std::vector<Digest> take_digests() { return std::move(digests_); }

 private:
  static constexpr std::array<std::byte, kBlockBytes> kZeroes{};

  // Of one block; how much it took.
  size_t take(uint64_t offset, ConstByteSpan data) {
    const uint64_t block = query_.blocks.first + digests_.size();
    const uint64_t length = bytes_of({block, block + 1}, query_.size_bytes).length;
    const ConstByteSpan part = data.first(std::min<uint64_t>(data.size(), length - filled_));
    next_ = offset + part.size();
    if (part.size() == length) {
      digests_.push_back(digest_of(part, query_.seed));
      return part.size();
    }
    copy_bytes(part, ByteSpan(block_).subspan(filled_));
    filled_ += part.size();
    if (filled_ == length) {
      digests_.push_back(digest_of(ConstByteSpan(block_).first(length), query_.seed));
      filled_ = 0;
    }
    return part.size();
  }

  const DigestQuery query_;
  const Digest zero_;
  std::vector<Digest> digests_;
  std::array<std::byte, kBlockBytes> block_{};
  size_t filled_ = 0;  // of block_, which is not whole yet
  uint64_t next_ = 0;
};

}  // namespace

Result<std::vector<Digest>> StoreLink::digests(const DigestQuery& query) {
  DigestSink sink(query);
  const std::array<ByteRange, 1> range{bytes_of(query.blocks, query.size_bytes)};
  CKPT_TRY(read_ranges(range, sink));
  return sink.take_digests();
}

Result<> StoreLink::read_ranges(std::span<const ByteRange> ranges, ContentSink& sink) {
  RangeReader reader(*this, sink);
  for (const ByteRange& range : ranges) {
    CKPT_TRY(reader.read(range));
  }
  return {};
}

}  // namespace ckpt
