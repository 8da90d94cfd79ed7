// SPDX-License-Identifier: Apache-2.0
// What every link can do by reading alone: content of ranges, and digests of blocks.
#include <gtest/gtest.h>

#include "common/checksum.h"
#include "common/store_link.h"

namespace ckpt {
namespace {

constexpr uint64_t kDigestSeed = 77;
constexpr uint64_t kLinkDiskBytes = 10 * kBlockBytes + 1000;  // the last block is short

// Content in memory; holes are told of at any byte, as some file systems do.
class MemoryLink final : public StoreLink {
 public:
  std::vector<std::byte> content = std::vector<std::byte>(kLinkDiskBytes);
  std::vector<ByteRange> data{};
  uint64_t read_bytes = 0;

  void put(ByteRange range) {
    for (uint64_t i = range.offset; i < range.end(); ++i) {
      content[i] = static_cast<std::byte>(i % 251 + 1);
    }
    data.push_back(range);
  }
  Result<> read_confirmed(uint64_t offset, ByteSpan buffer) override {
    read_bytes += buffer.size();
    copy_bytes(ConstByteSpan(content).subspan(offset, buffer.size()), buffer);
    return {};
  }
  Result<std::optional<ByteRange>> next_confirmed_data(uint64_t offset) override {
    for (const ByteRange& range : data) {
      if (range.end() > offset) {
        const uint64_t begin = std::max(range.offset, offset);
        return std::optional(ByteRange{begin, range.end() - begin});
      }
    }
    return std::optional<ByteRange>();
  }
  Result<StoreGreeting> begin_session() override { return none(); }
  Result<> accept(uint64_t) override { return none(); }
  Result<> receive(const EncodedBatch&) override { return none(); }
  Result<> attach(Epoch, uint32_t, ConstByteSpan) override { return none(); }
  Result<> read_attachment(Epoch, const std::string&, PieceSink&) override { return none(); }
  Result<> confirm(const Confirmation&) override { return none(); }
  Result<> roll_back(const CheckpointId&, const Uuid&) override { return none(); }
  Result<> export_checkpoint(std::optional<Epoch>, ExportSink&) override { return none(); }
  Result<std::vector<CheckpointInfo>> checkpoints() override { return none(); }
  StoreStatus status() override { return {}; }

 private:
  static Unexpected none() { return fail(ErrorKind::kInvalid, "not in this test"); }
};

std::vector<Digest> truth(const MemoryLink& link, BlockRange blocks) {
  std::vector<Digest> digests;
  for (uint64_t block = blocks.first; block < blocks.end; ++block) {
    const ByteRange range = bytes_of({block, block + 1}, kLinkDiskBytes);
    digests.push_back(
        digest_of(ConstByteSpan(link.content).subspan(range.offset, range.length), kDigestSeed));
  }
  return digests;
}

TEST(StoreLinkDigests, AreThoseOfEachBlock) {
  MemoryLink link;
  link.put({0, 3 * kBlockBytes});
  link.put({5 * kBlockBytes, kBlockBytes});
  link.put({10 * kBlockBytes, 1000});
  for (const BlockRange blocks : {BlockRange{0, 11}, BlockRange{2, 6}, BlockRange{10, 11}}) {
    EXPECT_EQ(*link.digests({blocks, kLinkDiskBytes, kDigestSeed}), truth(link, blocks))
        << blocks.first;
  }
}

// Data and holes that begin and end within blocks.
TEST(StoreLinkDigests, HolesOfAnySizeAreZeroes) {
  MemoryLink link;
  link.put({100, 50});
  link.put({kBlockBytes - 7, 14});
  link.put({3 * kBlockBytes + 512, 2 * kBlockBytes});
  link.put({10 * kBlockBytes + 999, 1});
  EXPECT_EQ(*link.digests({{0, 11}, kLinkDiskBytes, kDigestSeed}), truth(link, {0, 11}));
}

TEST(StoreLinkDigests, HolesAreNotRead) {
  MemoryLink link;
  link.put({4 * kBlockBytes, kBlockBytes});
  EXPECT_EQ(*link.digests({{0, 11}, kLinkDiskBytes, kDigestSeed}), truth(link, {0, 11}));
  EXPECT_EQ(link.read_bytes, kBlockBytes);
  EXPECT_EQ((*link.digests({{0, 1}, kLinkDiskBytes, 0}))[0],
            digest_of(std::vector<std::byte>(kBlockBytes)));
}

}  // namespace
}  // namespace ckpt
