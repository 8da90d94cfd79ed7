// SPDX-License-Identifier: Apache-2.0
// The copy of a checkpoint's attachments near the primary.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "tests/unit/control_fake_volume.h"
#include "tools/attachment_copy.h"
#include "tools/saved_attachments.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

class Pieces final : public PieceSink {
 public:
  Result<> take(const PieceHeader& header, ConstByteSpan piece) override {
    CKPT_TRY(counter_.add(header, piece));
    CKPT_TRY(decode_piece(header, piece, raw_));
    content_ += std::string(reinterpret_cast<const char*>(raw_.data()), raw_.size());  // NOLINT
    return {};
  }
  [[nodiscard]] AttachmentInfo info(const std::string& name) const {
    AttachmentInfo info = counter_.info();
    info.name = name;
    return info;
  }
  [[nodiscard]] const std::string& content() const { return content_; }

 private:
  AttachmentCounter counter_;
  std::vector<std::byte> raw_;
  std::string content_;
};

class AttachmentCopyTest : public testing::Test {
 protected:
  // Two pieces of the first, nothing of the second.
  AttachmentInfo keep(Epoch checkpoint, const Uuid& volume) {
    auto copy = AttachmentCopy::make(base_.path(), volume, {"processes", "criu-0"});
    EXPECT_TRUE(copy);
    Pieces made;
    for (const uint64_t offset : {uint64_t{0}, uint64_t{5}}) {
      const auto piece = encode_piece(offset, as_bytes(std::span("12345", 5)), {});
      copy->add(0, piece);
      EXPECT_TRUE(made.take(*check_piece(piece), piece));
    }
    EXPECT_TRUE(copy->keep(checkpoint));
    return made.info("processes");
  }
  Result<> read(Epoch checkpoint, Pieces& pieces, const std::string& name = "processes") {
    return read_attachment_copy(base_.path(), kVolume, checkpoint, {name, 10}, pieces);
  }
  [[nodiscard]] size_t folders() const {
    const auto all = fs::directory_iterator(base_.path());
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }
  [[nodiscard]] std::string path() const {
    return base_.path() + "/" + kVolume.to_string() + ".7/processes";
  }

  const Uuid kVolume = *Uuid::parse("0e5a1d2c-3b4a-4c5d-8e6f-708192a3b4c5");
  const Uuid kOther = *Uuid::parse("1e5a1d2c-3b4a-4c5d-8e6f-708192a3b4c5");
  WorkFolder base_ = *WorkFolder::make(fs::temp_directory_path().string(), "ckpt-copy-test");
};

TEST_F(AttachmentCopyTest, IsWhatWasStored) {
  const AttachmentInfo stored = keep(Epoch{7}, kVolume);
  Pieces pieces;
  ASSERT_TRUE(read(Epoch{7}, pieces));
  EXPECT_EQ(pieces.content(), "1234512345");
  EXPECT_EQ(pieces.info("processes"), stored);
  Pieces none;
  EXPECT_TRUE(read(Epoch{7}, none, "criu-0"));
  EXPECT_EQ(none.content(), "");
}

TEST_F(AttachmentCopyTest, IsOfTheLastCheckpointOfEachVolume) {
  keep(Epoch{7}, kVolume);
  keep(Epoch{3}, kOther);
  keep(Epoch{9}, kVolume);
  Pieces pieces;
  EXPECT_EQ(read(Epoch{7}, pieces).error().kind, ErrorKind::kNotFound);
  EXPECT_TRUE(read(Epoch{9}, pieces));
  EXPECT_EQ(folders(), 2U);
}

TEST_F(AttachmentCopyTest, OfNoCheckpointNothingIsLeft) {
  { EXPECT_TRUE(AttachmentCopy::make(base_.path(), kVolume, {"processes"})); }
  EXPECT_EQ(folders(), 0U);
  EXPECT_FALSE(AttachmentCopy::make(base_.path() + "/none", kVolume, {}));
}

TEST_F(AttachmentCopyTest, DamageIsSeen) {
  keep(Epoch{7}, kVolume);
  const auto size = fs::file_size(path());
  for (uint64_t at = 0; at < size; ++at) {
    std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte ^ 1));
    file.close();
    Pieces pieces;
    const auto got = read(Epoch{7}, pieces);
    ASSERT_FALSE(got) << at;
    EXPECT_EQ(got.error().kind, ErrorKind::kCorrupt) << at;
    file.open(path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte));
  }
  for (uint64_t left = 1; left < size; ++left) {
    fs::resize_file(path(), size - left);
    Pieces pieces;
    const auto got = read(Epoch{7}, pieces);
    EXPECT_TRUE(!got || pieces.content().size() < 10) << left;
  }
}

// A checkpoint with one attachment, which a back-up has and a copy may.
class SavedAttachmentsTest : public testing::Test {
 protected:
  SavedAttachmentsTest() {
    checkpoint_.attachments = {info_of("of the checkpoint")};
    volume_.told_status.attachments_folder = base_.path();
    volume_.on_read_attachment = [this](const std::string& id, const std::string& name,
                                        PieceSink& sink) {
      asked_.push_back(id + " " + name);
      const auto piece = piece_of(stored_);
      return sink.take(*check_piece(piece), piece);
    };
  }
  static std::vector<std::byte> piece_of(const std::string& content) {
    return encode_piece(0, as_bytes(std::span(content)), {});
  }
  static AttachmentInfo info_of(const std::string& content) {
    Pieces made;
    const auto piece = piece_of(content);
    EXPECT_TRUE(made.take(*check_piece(piece), piece));
    return made.info("processes");
  }
  void copy(const std::string& content) {
    auto copy = AttachmentCopy::make(base_.path(), volume_.told_status.volume, {"processes"});
    ASSERT_TRUE(copy);
    copy->add(0, piece_of(content));
    ASSERT_TRUE(copy->keep(checkpoint_.id.number));
  }
  Result<std::string> fetch() {
    saved_.emplace(volume_, checkpoint_);
    return saved_->fetch_text("processes", 100);
  }

  WorkFolder base_ = *WorkFolder::make(fs::temp_directory_path().string(), "ckpt-saved-test");
  CheckpointInfo checkpoint_ = sample_checkpoint(7);
  FakeVolume volume_;
  std::string stored_ = "of the checkpoint";
  std::vector<std::string> asked_;
  std::optional<SavedAttachments> saved_;
};

TEST_F(SavedAttachmentsTest, AGoodCopyIsTaken) {
  copy("of the checkpoint");
  EXPECT_EQ(*fetch(), "of the checkpoint");
  EXPECT_TRUE(saved_->is_from_copy());
  EXPECT_TRUE(asked_.empty());
}

// One of the same number and size, and whole in itself: a promoted back-up counts on, too.
TEST_F(SavedAttachmentsTest, ACopyOfAnotherTimelineGivesWayToTheBackUp) {
  copy("of another!!!!!!!");
  EXPECT_EQ(*fetch(), "of the checkpoint");
  EXPECT_FALSE(saved_->is_from_copy());
  EXPECT_EQ(asked_, std::vector<std::string>{"7 processes"});
}

TEST_F(SavedAttachmentsTest, SoDoesADamagedOne) {
  copy("of the checkpoint");
  const std::string path =
      base_.path() + "/" + volume_.told_status.volume.to_string() + ".7/processes";
  fs::resize_file(path, fs::file_size(path) - 1);
  EXPECT_EQ(*fetch(), "of the checkpoint");
  EXPECT_FALSE(saved_->is_from_copy());
}

TEST_F(SavedAttachmentsTest, WhatTheBackUpHasOfAnotherIsRefused) {
  stored_ = "of another!!!!!!!";
  const auto fetched = fetch();
  ASSERT_FALSE(fetched);
  EXPECT_EQ(fetched.error().kind, ErrorKind::kCorrupt);
  EXPECT_NE(fetched.error().message().find("attachment processes"), std::string::npos);
}

}  // namespace
}  // namespace ckpt
