// SPDX-License-Identifier: Apache-2.0
// The copy of a checkpoint's attachments near the primary.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tools/attachment_copy.h"

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

}  // namespace
}  // namespace ckpt
