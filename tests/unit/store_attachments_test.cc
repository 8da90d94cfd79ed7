// SPDX-License-Identifier: Apache-2.0
// Attachments in a store: part of their checkpoint, gone if it is void, and checked when they are
// read. That they survive is store_crash_test.cc's.
#include <gtest/gtest.h>

#include "common/checksum.h"
#include "tests/unit/golden_file.h"
#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

class StoreAttachments : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_DONE(peer_.open());
    ASSERT_DONE(peer_.begin());
  }
  // Names in attachments/.
  std::vector<std::string> files() {
    std::vector<std::string> found;
    const std::string folder = "attachments/";
    for (const auto& [path, content] : disk_.snapshot()) {
      if (path.rfind(folder, 0) == 0) {
        found.push_back(path.substr(folder.size()));
      }
    }
    return found;
  }
  Result<Content> read(uint64_t number, const std::string& name) {
    PieceCopy copy;
    CKPT_TRY(peer_.store().read_attachment({number}, name, copy));
    return copy.content;
  }
  static std::vector<std::byte> piece(uint64_t offset, uint64_t bytes) {
    return encode_piece(offset, pattern(1, bytes), {Codec::kNone, 1});
  }
  Result<> put(uint64_t epoch, uint32_t index, const std::vector<std::byte>& bytes) {
    return peer_.store().attach({epoch}, index, bytes);
  }

  MemoryDisk disk_;
  StorePeer peer_{disk_};
};

TEST_F(StoreAttachments, AreReadBackByTheirNames) {
  ASSERT_DONE(peer_.ship(1, {data(0, 2)}));
  ASSERT_DONE(peer_.attach(1, "memory", 100'000));
  ASSERT_DONE(peer_.attach(1, "empty", 0));
  ASSERT_DONE(peer_.attach(1, "state", 1));
  EXPECT_GT(peer_.store().status().pending_bytes, 100'000U / 2);
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.expect_exact();
  EXPECT_EQ(peer_.store().checkpoints()->front().attachments.size(), 3U);
  EXPECT_EQ(*read(1, "empty"), Content());
  EXPECT_KIND(kNotFound, read(1, "other"));
  EXPECT_KIND(kNotFound, read(2, "memory"));
  ASSERT_DONE(peer_.open());
  peer_.expect_exact();
  EXPECT_EQ(files(), (std::vector<std::string>{"1.0", "1.2"}));
}

TEST_F(StoreAttachments, TheNextCheckpointHasItsOwn) {
  ASSERT_DONE(peer_.attach(1, "a", 5000));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.attach(2, "b", 5000));
  ASSERT_DONE(peer_.checkpoint(2));
  peer_.expect_exact();
  EXPECT_KIND(kNotFound, read(1, "a"));
  EXPECT_EQ(files(), std::vector<std::string>{"2.0"});
  ASSERT_DONE(peer_.checkpoint(3));
  EXPECT_TRUE(files().empty());
}

TEST_F(StoreAttachments, OfAVoidCheckpointAreGone) {
  ASSERT_DONE(peer_.attach(1, "void", 5000));
  EXPECT_EQ(files(), std::vector<std::string>{"1.0"});
  ASSERT_DONE(peer_.attach(2, "good", 5000));
  EXPECT_EQ(files(), std::vector<std::string>{"2.0"}) << "a later one says that it is void";
  ASSERT_DONE(peer_.checkpoint(2));
  peer_.expect_exact();
  ASSERT_DONE(peer_.attach(3, "later", 5000));
  EXPECT_EQ(files(), (std::vector<std::string>{"2.0", "3.0"}));
  ASSERT_DONE(peer_.begin());
  EXPECT_EQ(files(), std::vector<std::string>{"2.0"});
  EXPECT_EQ(peer_.store().status().pending_bytes, 0U);
  ASSERT_DONE(peer_.attach(3, "later", 5000));
  ASSERT_DONE(peer_.open());  // killed
  EXPECT_EQ(files(), std::vector<std::string>{"2.0"});
}

TEST_F(StoreAttachments, ARollbackKeepsThem) {
  ASSERT_DONE(peer_.attach(1, "a", 5000));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.attach(2, "b", 5000));
  ASSERT_DONE(peer_.roll_back(test_uuid(0x33)));
  peer_.expect_exact();
  EXPECT_EQ(files(), std::vector<std::string>{"1.0"});
}

// What arrived must be what the checkpoint says: nothing missing, nothing more, nothing else.
TEST_F(StoreAttachments, ThatDoNotFitTheCheckpointConfirmNothing) {
  const std::function<void(std::vector<AttachmentInfo>&)> lies[] = {
      [](auto& all) { all.pop_back(); },
      [](auto& all) { all.push_back({.name = "more", .size_bytes = 1}); },
      [](auto& all) { std::swap(all[0], all[1]); },
      [](auto& all) { all[0].size_bytes += 1; },
      [](auto& all) { all[0].stored_bytes += 1; },
      [](auto& all) { all[0].digest.bytes[3] ^= 1; },
      [](auto& all) { all[1].name = all[0].name; },
      [](auto& all) { all[0].name = "a/b"; },
  };
  for (const auto& lie : lies) {
    ASSERT_DONE(peer_.begin());
    ASSERT_DONE(peer_.attach(1, "one", 5000));
    ASSERT_DONE(peer_.attach(1, "two", 100));
    Confirmation confirmation = peer_.confirmation(1);
    lie(confirmation.checkpoint.attachments);
    EXPECT_FALSE(peer_.store().confirm(confirmation));
    EXPECT_TRUE(peer_.store().checkpoints()->empty());
  }
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.attach(1, "one", 5000));
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.expect_exact();
}

TEST_F(StoreAttachments, BadPiecesAreRefusedAndEndTheSessionOnly) {
  auto flipped = piece(0, 100);
  flipped.back() ^= std::byte{1};
  auto longer = piece(0, 100);
  longer.push_back(std::byte{0});
  const std::vector<std::vector<std::byte>> bad{
      {},
      std::vector<std::byte>(48),
      flipped,
      longer,
      piece(1, 100),
      encode_piece(0, Content(kPieceBytes + 1), {Codec::kNone, 1})};
  for (const auto& one : bad) {
    ASSERT_DONE(peer_.begin());
    EXPECT_KIND(kCorrupt, put(1, 0, one));
    EXPECT_FALSE(put(1, 0, piece(0, 100))) << "the session is over";
  }
  ASSERT_DONE(peer_.begin());
  EXPECT_KIND(kInvalid, put(1, kAttachmentsMax, piece(0, 1)));
  ASSERT_DONE(peer_.begin());
  EXPECT_KIND(kInvalid, put(0, 0, piece(0, 1)));
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.checkpoint(1));
  EXPECT_KIND(kInvalid, put(1, 0, piece(0, 1)));
  ASSERT_DONE(peer_.open());
  peer_.expect_exact();
}

TEST_F(StoreAttachments, NothingIsTakenWithoutASession) {
  ASSERT_DONE(peer_.open());
  EXPECT_KIND(kInvalid, put(1, 0, piece(0, 1)));
  ASSERT_DONE(peer_.begin());
  for (uint64_t epoch = 1; epoch <= 100; ++epoch) {
    ASSERT_DONE(put(epoch, 0, piece(0, 1)));
    ASSERT_DONE(put(epoch, 1, piece(0, 1)));
  }
  EXPECT_EQ(files().size(), 2U);
  EXPECT_KIND(kInvalid, put(99, 2, piece(0, 1)));  // of one that is void
}

// What cannot be unlinked is no reason to lose what is confirmed.
TEST(StoreAttachmentsFault, AnErrorAtAnyOperationOfAConfirmationLosesNothing) {
  for (const int number : {ENOSPC, EPERM, EIO}) {
    bool has_failed = true;
    for (uint64_t nth = 1; has_failed; ++nth) {
      SCOPED_TRACE("operation " + std::to_string(nth) + ", errno " + std::to_string(number));
      MemoryDisk disk;
      StorePeer peer(disk);
      ASSERT_DONE(peer.open());
      ASSERT_DONE(peer.begin());
      ASSERT_DONE(peer.attach(1, "old", 5000));
      ASSERT_DONE(peer.checkpoint(1));
      ASSERT_DONE(peer.attach(2, "void", 5000));
      ASSERT_DONE(peer.attach(3, "new", 5000));
      disk.count_from_here();
      disk.fail_operation(nth, number);
      (void)peer.checkpoint(3);
      has_failed = disk.operations() >= nth;
      disk.fail_operation(UINT64_MAX, number);
      if (peer.begin()) {
        peer.expect_exact();
      }
      ASSERT_DONE(peer.open());
      peer.expect_exact();
    }
  }
}

// The disk is not worse for it.
TEST_F(StoreAttachments, ADamagedOneIsFoundWhenItIsRead) {
  ASSERT_DONE(peer_.ship(1, {data(0, 2)}));
  ASSERT_DONE(peer_.attach(1, "memory", 10'000));
  ASSERT_DONE(peer_.checkpoint(1));
  const std::string path = "attachments/1.0";
  const size_t bytes = disk_.snapshot().at(path).size();
  for (const size_t at : {size_t{5}, size_t{70}, bytes / 2, bytes - 1}) {
    const auto flip = [at](std::vector<std::byte>& content) { content[at] ^= std::byte{4}; };
    disk_.damage(path, flip);
    ASSERT_DONE(peer_.open());
    const auto found = read(1, "memory");
    EXPECT_KIND(kCorrupt, found);
    EXPECT_NE(found.error().message().find("1.0"), std::string::npos);
    Content content(kPeerDiskBytes);
    EXPECT_TRUE(peer_.store().read_confirmed(0, content));
    disk_.damage(path, flip);
  }
  disk_.damage(path, [](std::vector<std::byte>& content) { content.resize(content.size() - 10); });
  ASSERT_DONE(peer_.open());
  EXPECT_FALSE(read(1, "memory"));
  ASSERT_DONE(disk_.root()->subdirectory("attachments", false).value()->remove("1.0"));
  ASSERT_DONE(peer_.open());
  EXPECT_KIND(kCorrupt, read(1, "memory"));
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.attach(2, "memory", 10));
  ASSERT_DONE(peer_.checkpoint(2));
  peer_.expect_exact();
}

TEST_F(StoreAttachments, NoSpaceForOneIsRecoverable) {
  ASSERT_DONE(peer_.checkpoint(1));
  disk_.fail_operation(1, ENOSPC);
  EXPECT_KIND(kNoSpace, put(2, 0, piece(0, 1000)));
  ASSERT_DONE(peer_.begin());
  EXPECT_TRUE(files().empty());
  ASSERT_DONE(peer_.attach(2, "now", 1000));
  ASSERT_DONE(peer_.checkpoint(2));
  peer_.expect_exact();
}

// A piece as the format page shows it.
TEST(AttachmentFormat, TheExampleIsThis) {
  expect_golden("attachment/piece",
                encode_piece(4096, Content(20, std::byte{0x2a}), {Codec::kNone, 1}));
  expect_documented("attachment-format.md", "attachment/piece");
}

TEST(AttachmentFormat, NoFlippedBitPasses) {
  const Content raw = pattern(3, 500);
  for (const Codec codec : {Codec::kNone, Codec::kZstd}) {
    auto whole = encode_piece(77, raw, {codec, 1});
    const auto header = check_piece(whole);
    ASSERT_DONE(header);
    std::vector<std::byte> back;
    ASSERT_DONE(decode_piece(*header, whole, back));
    EXPECT_EQ(back, raw);
    for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
      whole[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
      EXPECT_FALSE(check_piece(whole)) << bit;
      whole[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    }
    for (size_t length = 0; length < whole.size(); ++length) {
      EXPECT_FALSE(check_piece(ConstByteSpan(whole).first(length)));
    }
  }
}

TEST(AttachmentFormat, NamesAreThoseThatAFileCouldHave) {
  for (const char* name : {"a", "memory image", ".x", "...", "\xc3\xa4"}) {
    EXPECT_TRUE(valid_attachment_name(name)) << name;
  }
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("a\nb"),
        std::string("a\0b", 3), std::string("a\xff"), std::string(256, 'x')}) {
    EXPECT_FALSE(valid_attachment_name(name)) << name;
  }
}

}  // namespace
}  // namespace ckpt::test
