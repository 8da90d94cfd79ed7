// SPDX-License-Identifier: Apache-2.0
// What the tool can do with a volume that nobody serves, on real files.
#include <gtest/gtest.h>

#include "backupd/store/volume_file.h"
#include "plugin/control_server.h"
#include "plugin/offline_volume.h"
#include "tests/unit/control_fake_volume.h"
#include "tests/unit/memory_sink.h"
#include "tests/unit/plugin_fakes.h"
#include "tests/unit/volume_on_files.h"

namespace ckpt::test {
namespace {

namespace fs = std::filesystem;

const Progress kGoOn = [](uint64_t, uint64_t) { return true; };

class OfflineVolumeTest : public testing::Test {
 protected:
  static constexpr uint64_t kSize = VolumeOnFiles::kSizeBytes;

  [[nodiscard]] Result<std::unique_ptr<VolumeApi>> open(const std::string& backup = "embedded") const {
    return open_offline(files_.image, files_.state, backup, {});
  }
  // The status of a volume whose record was changed so.
  VolumeStatus status_of(const std::function<void(VolumeRecord&)>& edit) const {
    files_.change_record(edit);
    const auto volume = open();
    EXPECT_TRUE(volume) << volume.error().message();
    return (*volume)->status();
  }
  // What the image should hold: all of this, but for the first block.
  static std::string disk(char first, char rest) {
    return std::string(kBlockBytes, first) + std::string(kSize - kBlockBytes, rest);
  }
  void expect_image(char first, char rest) const {
    EXPECT_TRUE(VolumeOnFiles::content(files_.image) == disk(first, rest));
  }
  // Written by somebody who is no server.
  void spoil(uint64_t offset) const {
    std::fstream file(files_.image, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file << "spoilt";
  }

  VolumeOnFiles files_;
};

void expect_says(const Error& error, const std::string& part) {
  EXPECT_NE(error.message().find(part), std::string::npos) << error.message();
}

TEST_F(OfflineVolumeTest, StatusSaysWhatTheFilesSay) {
  files_.serve_checkpoint_and_write('a', 'b');
  const auto volume = open();
  ASSERT_DONE(volume);
  const VolumeStatus status = (*volume)->status();
  EXPECT_EQ(status.state, "stopped");
  EXPECT_EQ(status.role, "primary");
  EXPECT_EQ(status.image, files_.image);
  EXPECT_EQ(status.volume, files_.record().volume);
  EXPECT_EQ(status.timeline, files_.record().timeline);
  EXPECT_EQ(status.size_bytes, kSize);
  EXPECT_EQ(status.problem, "");
  EXPECT_FALSE(status.protection);
  ASSERT_TRUE(status.last_checkpoint);
  EXPECT_EQ(status.last_checkpoint->name, "first");
  EXPECT_GT(status.epoch, status.last_checkpoint->id.number);
  ASSERT_TRUE(status.store);
  EXPECT_EQ(status.store->address, "embedded:" + files_.store);
  EXPECT_EQ(status.store->state, "detached");
  EXPECT_EQ(status.store->error, "");
  EXPECT_EQ(status.store->confirmed->id, status.last_checkpoint->id);
}

TEST_F(OfflineVolumeTest, ReadingChangesNothing) {
  files_.serve_checkpoint_and_write('a', 'b');
  const auto before = files_.everything();
  const auto volume = open();
  ASSERT_DONE(volume);
  (void)(*volume)->status();
  const auto kept = (*volume)->checkpoints();
  ASSERT_DONE(kept);
  ASSERT_EQ(kept->size(), 1U);
  EXPECT_EQ(kept->front().name, "first");
  EXPECT_TRUE(files_.everything() == before);
}

TEST_F(OfflineVolumeTest, WithoutACheckpointThereIsNone) {
  files_.serve([](Volume&) {});
  // A server makes the first one by itself; this one has just begun.
  fs::remove_all(files_.store);
  const auto volume = open();
  ASSERT_DONE(volume);
  const auto kept = (*volume)->checkpoints();
  EXPECT_KIND(kNotFound, kept);
  expect_says(kept.error(), files_.store);
  const VolumeStatus status = (*volume)->status();
  EXPECT_EQ(status.store->state, "failed");
  EXPECT_NE(status.store->error.find(files_.store), std::string::npos) << status.store->error;
}

TEST_F(OfflineVolumeTest, StateIsTheGravestOfThoseOnRecord) {
  files_.serve_checkpoint_and_write('a', 'b');
  EXPECT_EQ(status_of([](VolumeRecord& r) { r.fenced = true; }).state, "fenced");
  EXPECT_EQ(status_of([](VolumeRecord& r) { r.rollback.emplace(); }).state, "rolling-back");
  EXPECT_EQ(status_of([](VolumeRecord& r) { r.superseded = true; }).state, "diverged");
}

TEST_F(OfflineVolumeTest, StatusSaysWhyItCannotBeServed) {
  files_.serve_checkpoint_and_write('a', 'b');
  const std::string unclean = status_of([](VolumeRecord& r) { r.clean = false; }).problem;
  EXPECT_NE(unclean.find("did not stop cleanly"), std::string::npos) << unclean;
  fs::resize_file(files_.image, kSize + 512);
  const std::string grown = (*open())->status().problem;
  EXPECT_EQ(grown.find(files_.image + " has " + std::to_string(kSize + 512) +
                       " bytes, and the disk " + std::to_string(kSize)),
            0U)
      << grown;
  fs::remove(files_.image);
  const std::string gone = (*open())->status().problem;
  EXPECT_EQ(gone.find(files_.image + " is gone: `ckpt-tool rollback --rebuild`"), 0U) << gone;
}

TEST_F(OfflineVolumeTest, OneThatIsItselfPromotedHasNoBackupYet) {
  files_.serve_checkpoint_and_write('a', 'b');
  EXPECT_FALSE(status_of([](VolumeRecord& r) { r.unplaced = true; }).store);
}

TEST_F(OfflineVolumeTest, APromotedBackupIsNobodysAnyMore) {
  files_.serve_checkpoint_and_write('a', 'b');
  const auto directory = PosixDirectory::open(files_.store, false, RingUse{});
  ASSERT_DONE(directory);
  const auto store = VolumeFile::open(**directory);
  ASSERT_DONE(store);
  ASSERT_DONE((*store)->update([](StoreRecord& record) { record.promoted = true; }));
  const auto kept = (*open())->checkpoints();
  EXPECT_KIND(kFenced, kept);
  expect_says(kept.error(), files_.store + " was promoted");
}

TEST_F(OfflineVolumeTest, RollsBackWhatAServerLeft) {
  files_.serve_checkpoint_and_write('a', 'b');
  const Uuid before = files_.record().timeline;
  const auto volume = open();
  ASSERT_DONE(volume);
  RollbackRequest request;
  request.dry_run = true;
  const auto would = (*volume)->roll_back(request, kGoOn);
  ASSERT_DONE(would);
  EXPECT_EQ(would->restored_bytes, kBlockBytes);
  expect_image('b', 'a');
  request.dry_run = false;
  const auto outcome = (*volume)->roll_back(request, kGoOn);
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->checkpoint.name, "first");
  EXPECT_EQ(outcome->restored_bytes, kBlockBytes);
  EXPECT_FALSE(outcome->fenced);
  expect_image('a', 'a');
  EXPECT_TRUE(files_.record().clean) << "as a server that stops";
  EXPECT_NE((*volume)->status().timeline, before) << "what it says is what there is now";
}

TEST_F(OfflineVolumeTest, AfterADeathWithClientsTheyAreFencedUntilAccept) {
  files_.serve_checkpoint_and_write('a', 'b');
  files_.serve_and_kill([](Volume& volume) {
    ASSERT_DONE(volume.gate().connect());
    VolumeOnFiles::write(volume, 0, "c");
  });
  const auto volume = open();
  ASSERT_DONE(volume);
  const auto outcome = (*volume)->roll_back({}, kGoOn);
  ASSERT_DONE(outcome);
  EXPECT_TRUE(outcome->fenced);
  EXPECT_EQ((*volume)->status().state, "fenced");
  ASSERT_DONE((*volume)->accept());
  EXPECT_EQ((*volume)->status().state, "stopped");
  EXPECT_FALSE(files_.record().fenced);
}

TEST_F(OfflineVolumeTest, MakesACheckpointOfWhatThereIs) {
  files_.serve_checkpoint_and_write('a', 'b');
  const auto volume = open();
  ASSERT_DONE(volume);
  CheckpointRequest request;
  request.name = "second";
  ASSERT_DONE((*volume)->checkpoint(request));
  EXPECT_EQ((*volume)->status().last_checkpoint->name, "second");
  ASSERT_DONE((*volume)->roll_back({}, kGoOn));
  expect_image('b', 'a');
}

TEST_F(OfflineVolumeTest, ACheckpointThatIsNotThereIsNotRolledBackTo) {
  files_.serve_checkpoint_and_write('a', 'b');
  RollbackRequest request;
  request.checkpoint = "other";
  for (const bool rebuild : {false, true}) {
    request.rebuild = rebuild;
    const auto refused = (*open())->roll_back(request, kGoOn);
    EXPECT_KIND(kNotFound, refused);
    expect_says(refused.error(), "\"other\"");
  }
  expect_image('b', 'a');
}

TEST_F(OfflineVolumeTest, ADivergedOneIsNotRolledBack) {
  files_.serve_checkpoint_and_write('a', 'b');
  files_.change_record([](VolumeRecord& r) { r.superseded = true; });
  RollbackRequest request;
  for (const bool rebuild : {false, true}) {
    request.rebuild = rebuild;
    const auto refused = (*open())->roll_back(request, kGoOn);
    EXPECT_KIND(kFenced, refused);
    expect_says(refused.error(), files_.image);
  }
  expect_image('b', 'a');
}

TEST_F(OfflineVolumeTest, VerifyComparesWhatIsNotChanged) {
  files_.serve_checkpoint_and_write('a', 'b');
  const auto verified = (*open())->verify(kGoOn);
  ASSERT_DONE(verified);
  EXPECT_EQ(verified->checkpoint.name, "first");
  EXPECT_EQ(verified->checked_bytes, kSize - kBlockBytes);
  EXPECT_EQ(verified->skipped_bytes, kBlockBytes);
  EXPECT_EQ(verified->mismatched_bytes, 0U);
}

// Every block counts as changed then, until it was compared.
TEST_F(OfflineVolumeTest, VerifyFirstFindsOutWhatSomebodyElseWrote) {
  files_.serve_checkpoint_and_write('a', 'b');
  spoil(5 * kBlockBytes);
  const auto verified = (*open())->verify(kGoOn);
  ASSERT_DONE(verified);
  EXPECT_EQ(verified->checked_bytes, kSize - 2 * kBlockBytes);
  EXPECT_EQ(verified->skipped_bytes, 2 * kBlockBytes);
}

TEST_F(OfflineVolumeTest, VerifyStopsWhenItIsTold) {
  files_.serve_checkpoint_and_write('a', 'b');
  const auto verified = (*open())->verify([](uint64_t, uint64_t) { return false; });
  EXPECT_KIND(kVoid, verified);
  EXPECT_TRUE(files_.record().clean);
}

TEST_F(OfflineVolumeTest, ARebuildMakesAnImageThatIsGone) {
  files_.serve_checkpoint_and_write('a', 'b');
  fs::remove(files_.image);
  const auto volume = open();
  ASSERT_DONE(volume);
  RollbackRequest request;
  request.rebuild = true;
  request.dry_run = true;
  const auto would = (*volume)->roll_back(request, kGoOn);
  ASSERT_DONE(would);
  EXPECT_EQ(would->restored_bytes, kSize);
  EXPECT_FALSE(fs::exists(files_.image));
  EXPECT_FALSE(files_.record().rollback);
  request.dry_run = false;
  const auto outcome = (*volume)->roll_back(request, kGoOn);
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->checkpoint.name, "first");
  EXPECT_EQ(outcome->restored_bytes, kSize);
  EXPECT_FALSE(outcome->fenced);
  expect_image('a', 'a');
  EXPECT_EQ((*volume)->status().problem, "");
}

TEST_F(OfflineVolumeTest, ARebuildGivesAnImageItsSizeBackAndFences) {
  files_.serve_checkpoint_and_write('a', 'b');
  fs::resize_file(files_.image, 512);
  RollbackRequest request;
  request.rebuild = true;
  request.clients = ClientPolicy::kFence;
  const auto outcome = (*open())->roll_back(request, kGoOn);
  ASSERT_DONE(outcome);
  EXPECT_TRUE(outcome->fenced);
  EXPECT_EQ((*open())->status().state, "fenced");
  expect_image('a', 'a');
}

// What stops it after it is on record is gone on with by the next, whoever that is.
TEST_F(OfflineVolumeTest, ARebuildThatStopsHalfwaySaysSo) {
  files_.serve_checkpoint_and_write('a', 'b');
  fs::remove(files_.image);
  fs::create_directory(files_.image);
  RollbackRequest request;
  request.rebuild = true;
  const auto stopped = (*open())->roll_back(request, kGoOn);
  EXPECT_KIND(kHalfway, stopped);
  expect_says(stopped.error(), "goes on with `ckpt-tool rollback --rebuild`");
  EXPECT_EQ((*open())->status().state, "rolling-back");
  fs::remove(files_.image);
  ASSERT_DONE((*open())->roll_back(request, kGoOn));
  expect_image('a', 'a');
}

TEST_F(OfflineVolumeTest, ExportsWithoutAnImage) {
  files_.serve_checkpoint_and_write('a', 'b');
  fs::remove(files_.image);
  MemorySink sink;
  ASSERT_DONE((*open())->export_checkpoint("first", sink));
  EXPECT_TRUE(sink.has_all());
  const std::string disk_then = disk('a', 'a');
  EXPECT_TRUE(std::ranges::equal(sink.content, std::as_bytes(std::span(disk_then))));
  EXPECT_KIND(kNotFound, (*open())->export_checkpoint("other", sink));
}

class NoPieces : public PieceSink {
 public:
  Result<> take(const PieceHeader&, ConstByteSpan) override {
    return fail(ErrorKind::kIo, "there is none to take");
  }
};

TEST_F(OfflineVolumeTest, AnAttachmentThatIsNotThere) {
  files_.serve_checkpoint_and_write('a', 'b');
  NoPieces sink;
  const auto read = (*open())->read_attachment("last", "vm", sink);
  EXPECT_KIND(kNotFound, read);
  expect_says(read.error(), "vm");
}

// A server that answers: nobody waits for it to end.
TEST_F(OfflineVolumeTest, WhatAnotherHasIsBusy) {
  files_.serve_checkpoint_and_write('a', 'b');
  FakeVolume served;
  const auto server = ControlServer::start(files_.state, served);
  ASSERT_DONE(server);
  const UniqueFd lock = VolumeOnFiles::locked(files_.image);
  const auto volume = open();
  ASSERT_DONE(volume);
  EXPECT_EQ((*volume)->status().state, "stopped") << "it only looks at files";
  const auto rolled = (*volume)->roll_back({}, kGoOn);
  EXPECT_KIND(kBusy, rolled);
  expect_says(rolled.error(), files_.image + " is in use by another");
  EXPECT_KIND(kBusy, (*volume)->verify(kGoOn));
  EXPECT_KIND(kBusy, (*volume)->accept());
  EXPECT_KIND(kBusy, (*volume)->checkpoint({}));
  expect_image('b', 'a');
}

TEST_F(OfflineVolumeTest, ARebuildOfWhatAnotherHasIsBusy) {
  files_.serve_checkpoint_and_write('a', 'b');
  const UniqueFd lock = VolumeOnFiles::locked(files_.state);
  RollbackRequest request;
  request.rebuild = true;
  const auto refused = (*open())->roll_back(request, kGoOn);
  EXPECT_KIND(kBusy, refused);
  expect_says(refused.error(), files_.state + " is in use by another");
  EXPECT_FALSE(files_.record().rollback);
}

TEST_F(OfflineVolumeTest, NoSuchVolume) {
  const auto none = open();
  EXPECT_KIND(kNotFound, none);
  expect_says(none.error(), files_.state);
  EXPECT_FALSE(fs::exists(files_.state)) << "it was not made";
  fs::create_directory(files_.state);
  const auto empty = open();
  EXPECT_KIND(kNotFound, empty);
  expect_says(empty.error(), "volume");
}

TEST_F(OfflineVolumeTest, APlaceThatIsNoneIsRefused) {
  files_.serve_checkpoint_and_write('a', 'b');
  const auto refused = open("nowhere");
  EXPECT_KIND(kInvalid, refused);
  expect_says(refused.error(), "--backup=nowhere: must be embedded");
}

}  // namespace
}  // namespace ckpt::test
