// SPDX-License-Identifier: Apache-2.0
// A primary, as far as its store can tell, that knows what the store must hold.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "backupd/store/store.h"
#include "tests/unit/memory_directory.h"

namespace ckpt::test {

using Content = std::vector<std::byte>;

inline constexpr uint64_t kPeerDiskBytes = 15 * kBlockBytes + 512;  // the last block is short

Uuid test_uuid(uint8_t value);

// Bytes that differ from place to place and from seed to seed.
Content pattern(uint64_t seed, uint64_t bytes);

Extent data(uint64_t first_block, uint64_t count, uint64_t size_bytes = kPeerDiskBytes);
Extent zeroes(uint64_t first_block, uint64_t count, uint64_t size_bytes = kPeerDiskBytes);

// Ships batches with content of its own making, confirms, and keeps the oracle: what the last
// answered checkpoint holds, and what one in flight would.
//
// Threads: one at a time.
class StorePeer {
 public:
  struct Known {
    CheckpointInfo checkpoint;
    Content content;
  };

  explicit StorePeer(MemoryDisk& disk, uint64_t size_bytes = kPeerDiskBytes);

  // Opens the store. No check of what it holds.
  Result<> open();
  void close() { store_.reset(); }
  Store& store() { return *store_; }
  [[nodiscard]] StoreOptions options() const;

  // begin_session and accept. What is pending is gone.
  Result<> begin();
  Result<> ship(uint64_t epoch, const std::vector<Extent>& extents);
  // With a sequence number of the caller's.
  Result<> ship_as(uint64_t sequence, uint64_t epoch, const std::vector<Extent>& extents);
  // A whole attachment of the checkpoint that the epoch will be, in pieces of at most 3000 bytes.
  Result<> attach(uint64_t epoch, const std::string& name, uint64_t bytes);
  Result<> checkpoint(uint64_t number);
  Result<> roll_back(const Uuid& to);

  // What ship and checkpoint hand over.
  EncodedBatch batch(uint64_t sequence, uint64_t epoch, const std::vector<Extent>& extents);
  [[nodiscard]] Confirmation confirmation(uint64_t number) const;

  // Asserts that the store holds exactly the last answered checkpoint, or the one in flight, which
  // then is the last; every byte of it.
  void expect_exact();

  Compression compression{Codec::kNone, 1};
  uint64_t unapplied_bytes_max = uint64_t{1} << 30U;
  uint64_t incarnation = 7;
  Uuid timeline = test_uuid(0x22);
  uint64_t next_sequence = 1;
  std::optional<Known> last;
  std::optional<Known> in_flight;  // a checkpoint or a fork, not answered

 private:
  struct Sent {
    BatchHeader header;
    std::vector<Extent> extents;
    Content bytes;
  };
  [[nodiscard]] Content content_at(uint64_t number) const;
  void settle(const std::optional<CheckpointInfo>& confirmed);
  void expect_attachments();
  void forget_all();
  // Forgets what was sent for epochs up to that number.
  void forget(uint64_t number);

  MemoryDisk& disk_;
  const uint64_t size_bytes_;
  // What there is of a first copy: a primary compares, and sends what differs.
  Content base_;
  std::map<uint64_t, std::map<uint64_t, Sent>> sent_;         // by epoch and sequence
  std::map<uint64_t, std::vector<AttachmentInfo>> attached_;  // by epoch
  std::unique_ptr<Store> store_;
};

// What that attachment holds.
Content attachment_content(uint64_t epoch, const std::string& name, uint64_t bytes);

// Puts the pieces of an attachment together again.
class PieceCopy final : public PieceSink {
 public:
  Result<> take(const PieceHeader& header, ConstByteSpan piece) override;
  Content content{};
};

}  // namespace ckpt::test

// For a Result that must be there, and for one that must be an error of a kind.
#define ASSERT_DONE(expression)                  \
  do {                                           \
    const auto& done = (expression);             \
    ASSERT_TRUE(done) << done.error().message(); \
  } while (false)
#define EXPECT_KIND(error_kind, expression)                                        \
  do {                                                                             \
    const auto& done = (expression);                                               \
    ASSERT_FALSE(done);                                                            \
    EXPECT_EQ(done.error().kind, ErrorKind::error_kind) << done.error().message(); \
  } while (false)
