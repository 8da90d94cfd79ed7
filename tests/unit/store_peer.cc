// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/store_peer.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ckpt::test {
namespace {

bool same(const CheckpointInfo& a, const CheckpointInfo& b) {
  return a.id == b.id && a.parent == b.parent && a.digest == b.digest && a.time == b.time &&
         a.name == b.name && a.message == b.message && a.changed_bytes == b.changed_bytes &&
         a.shipped_bytes == b.shipped_bytes && a.attachments == b.attachments;
}

}  // namespace

Uuid test_uuid(uint8_t value) {
  Uuid uuid;
  uuid.bytes.fill(value);
  return uuid;
}

Content pattern(uint64_t seed, uint64_t bytes) {
  Content content(bytes);
  for (uint64_t i = 0; i < bytes; ++i) {
    // Runs of 16: compressible, and no two places or seeds alike.
    content[i] = static_cast<std::byte>((seed * 0x9e3779b97f4a7c15U + i / 16 * 0x2545f491U) >> 24U);
  }
  return content;
}

Extent data(uint64_t first_block, uint64_t count, uint64_t size_bytes) {
  const ByteRange range = bytes_of({first_block, first_block + count}, size_bytes);
  return {range.offset, range.length, ExtentKind::kData};
}

Extent zeroes(uint64_t first_block, uint64_t count, uint64_t size_bytes) {
  Extent extent = data(first_block, count, size_bytes);
  extent.kind = ExtentKind::kZero;
  return extent;
}

StorePeer::StorePeer(MemoryDisk& disk, uint64_t size_bytes)
    : disk_(disk), size_bytes_(size_bytes) {}

StoreOptions StorePeer::options() const {
  return {test_uuid(0x11), size_bytes_, "embedded", unapplied_bytes_max};
}

Result<> StorePeer::open() {
  store_.reset();
  forget_all();
  CKPT_ASSIGN(store_, Store::open(disk_.root(), options()));
  return {};
}

Result<> StorePeer::begin() {
  CKPT_ASSIGN(const StoreGreeting greeting, store_->begin_session());
  forget_all();
  base_ = Content(size_bytes_);
  if (greeting.is_begun) {
    CKPT_TRY(store_->read_confirmed(0, base_));
  }
  return store_->accept(incarnation);
}

EncodedBatch StorePeer::batch(uint64_t sequence, uint64_t epoch,
                              const std::vector<Extent>& extents) {
  uint64_t total = 0;
  for (const Extent& extent : extents) {
    total += extent.kind == ExtentKind::kData ? extent.length : 0;
  }
  BatchHeader identity;
  identity.volume = test_uuid(0x11);
  identity.timeline = timeline;
  identity.epoch = {epoch};
  identity.sequence = sequence;
  identity.incarnation = incarnation;
  return encode_batch(identity, extents, pattern(sequence, total), compression);
}

Result<> StorePeer::ship(uint64_t epoch, const std::vector<Extent>& extents) {
  const uint64_t sequence = next_sequence++;
  return ship_as(sequence, epoch, extents);
}

Result<> StorePeer::ship_as(uint64_t sequence, uint64_t epoch, const std::vector<Extent>& extents) {
  const EncodedBatch encoded = batch(sequence, epoch, extents);
  if (auto received = store_->receive(encoded); !received) {
    forget_all();
    return received;
  }
  sent_[epoch][sequence] = {encoded.header, extents, pattern(sequence, encoded.header.data_bytes)};
  return {};
}

Content StorePeer::content_at(uint64_t number) const {
  Content content = last ? last->content : base_;
  for (const auto& [epoch, batches] : sent_) {
    for (const auto& [sequence, sent] : batches) {
      uint64_t taken = 0;
      for (const Extent& extent : sent.extents) {
        const auto to = content.begin() + static_cast<ptrdiff_t>(extent.offset);
        if (epoch > number) {
          continue;
        }
        if (extent.kind == ExtentKind::kZero) {
          std::fill_n(to, extent.length, std::byte{0});
        } else {
          std::copy_n(sent.bytes.begin() + static_cast<ptrdiff_t>(taken), extent.length, to);
          taken += extent.length;
        }
      }
    }
  }
  return content;
}

Confirmation StorePeer::confirmation(uint64_t number) const {
  Confirmation confirmation;
  CheckpointInfo& checkpoint = confirmation.checkpoint;
  checkpoint.id = {timeline, {number}};
  checkpoint.parent = last ? last->checkpoint.id : CheckpointId{timeline, {0}};
  checkpoint.time = WallTime(1700000000000000000 + static_cast<int64_t>(number));
  checkpoint.name = "cp" + std::to_string(number);
  checkpoint.message = "checkpoint " + std::to_string(number);
  for (const auto& [epoch, batches] : sent_) {
    CoveredEpoch covered{{epoch}, {}};
    for (const auto& [sequence, sent] : batches) {
      covered.chain = chain(covered.chain, sent.header);
      checkpoint.shipped_bytes += epoch <= number ? sent.header.stored_bytes : 0;
    }
    if (epoch <= number) {
      confirmation.covered.push_back(covered);
    }
  }
  if (const auto attached = attached_.find(number); attached != attached_.end()) {
    checkpoint.attachments = attached->second;
  }
  const Digest parent = last ? last->checkpoint.digest : Digest{};
  checkpoint.digest = checkpoint_digest(parent, timeline, {number}, confirmation.covered);
  return confirmation;
}

Result<> StorePeer::checkpoint(uint64_t number) {
  const Confirmation request = confirmation(number);
  in_flight = Known{request.checkpoint, content_at(number)};
  if (auto confirmed = store_->confirm(request); !confirmed) {
    if (confirmed.error().kind == ErrorKind::kNoSpace) {
      in_flight.reset();  // that one is no longer possible
    }
    forget_all();
    return confirmed;
  }
  last = std::move(in_flight);
  in_flight.reset();
  forget(number);
  return {};
}

void StorePeer::forget(uint64_t number) {
  sent_.erase(sent_.begin(), sent_.upper_bound(number));
  attached_.erase(attached_.begin(), attached_.upper_bound(number));
}

void StorePeer::forget_all() {
  sent_.clear();
  attached_.clear();
}

Content attachment_content(uint64_t epoch, const std::string& name, uint64_t bytes) {
  return pattern(epoch * 1000 + name.size(), bytes);
}

Result<> PieceCopy::take(const PieceHeader& header, ConstByteSpan piece) {
  std::vector<std::byte> raw;
  CKPT_TRY(decode_piece(header, piece, raw));
  content.insert(content.end(), raw.begin(), raw.end());
  return {};
}

Result<> StorePeer::attach(uint64_t epoch, const std::string& name, uint64_t bytes) {
  constexpr uint64_t kPart = 3000;
  const Content all = attachment_content(epoch, name, bytes);
  const auto index = static_cast<uint32_t>(attached_[epoch].size());
  AttachmentCounter counter;
  for (uint64_t offset = 0; offset < bytes; offset += kPart) {
    const ConstByteSpan part = ConstByteSpan(all).subspan(offset, std::min(kPart, bytes - offset));
    const auto piece = encode_piece(offset, part, compression);
    EXPECT_TRUE(counter.add(*check_piece(piece), piece));
    if (auto taken = store_->attach({epoch}, index, piece); !taken) {
      forget_all();
      return taken;
    }
  }
  attached_[epoch].push_back(counter.info());
  attached_[epoch].back().name = name;
  return {};
}

// Each byte of them.
void StorePeer::expect_attachments() {
  for (const AttachmentInfo& attachment : last->checkpoint.attachments) {
    PieceCopy copy;
    const Epoch number = last->checkpoint.id.number;
    auto read = store_->read_attachment(number, attachment.name, copy);
    ASSERT_TRUE(read) << read.error().message();
    ASSERT_TRUE(copy.content ==
                attachment_content(number.value, attachment.name, attachment.size_bytes));
  }
}

Result<> StorePeer::roll_back(const Uuid& to) {
  forget_all();
  in_flight = last;
  in_flight->checkpoint.id.timeline = to;
  CKPT_TRY(store_->roll_back(last->checkpoint.id, to));
  last = std::move(in_flight);
  in_flight.reset();
  timeline = to;
  return {};
}

void StorePeer::settle(const std::optional<CheckpointInfo>& confirmed) {
  if (in_flight && confirmed && same(*confirmed, in_flight->checkpoint)) {
    last = std::move(in_flight);
    timeline = last->checkpoint.id.timeline;
  }
  in_flight.reset();
  ASSERT_EQ(confirmed.has_value(), last.has_value());
  if (last) {
    ASSERT_TRUE(same(*confirmed, last->checkpoint))
        << "has " << confirmed->id.number.value << ", not " << last->checkpoint.id.number.value;
  }
}

void StorePeer::expect_exact() {
  auto kept = store_->checkpoints();
  ASSERT_TRUE(kept);
  settle(kept->empty() ? std::nullopt : std::optional(kept->front()));
  if (!last || ::testing::Test::HasFatalFailure()) {
    return;
  }
  Content content(size_bytes_);
  auto read = store_->read_confirmed(0, content);
  ASSERT_TRUE(read) << read.error().message();
  ASSERT_TRUE(content == last->content)
      << "first difference at "
      << std::mismatch(content.begin(), content.end(), last->content.begin()).first -
             content.begin();
  expect_attachments();
}

}  // namespace ckpt::test
