// SPDX-License-Identifier: Apache-2.0
// docs/journal-format.md, docs/store-format.md, docs/volume-format.md
#include "backupd/store/journal_file.h"
#include "backupd/store/store_record.h"
#include "common/checksum.h"
#include "plugin/saved_map.h"
#include "plugin/volume_record.h"
#include "tests/fuzz/target.h"
#include "tests/unit/memory_directory.h"

namespace ckpt::fuzz {
namespace {

constexpr size_t kHeadBytesMax = kBatchHeaderBytes;

// A file with these bytes, in a folder of its own.
void put_file(Directory& directory, const std::string& name, ConstByteSpan bytes) {
  auto file = directory.open(name, OpenMode::kCreate);
  CKPT_CHECK(file && (*file)->write(0, bytes));
}

// Checksums and links of a journal made right, as far as its records can be told.
class Sealer {
 public:
  explicit Sealer(ConstByteSpan input) : bytes_(input.begin(), input.end()) {
    if (bytes_.size() >= kJournalHeaderBytes) {
      put(0, sealed(part(0, kJournalHeaderBytes)));
      link_ = digest_of(part(0, kJournalHeaderBytes));
      seal_records();
    }
  }

  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }
  // Where records begin, and where the last ends.
  [[nodiscard]] const std::vector<uint64_t>& offsets() const { return offsets_; }

 private:
  [[nodiscard]] ConstByteSpan part(uint64_t offset, uint64_t length) const {
    return ConstByteSpan(bytes_).subspan(offset, length);
  }

  void put(uint64_t offset, ConstByteSpan bytes) {
    copy_bytes(bytes, ByteSpan(bytes_).subspan(offset));
  }

  void seal_records() {
    uint64_t offset = kJournalHeaderBytes;
    offsets_.push_back(offset);
    while (bytes_.size() - offset >= kFrameBytes) {
      auto frame = decode_frame(sealed(part(offset, kFrameBytes)));
      const uint64_t rest = bytes_.size() - offset - kFrameBytes;
      if (!frame || frame->body_bytes > rest) {
        return;
      }
      seal_record(offset, *frame);
      offset += kFrameBytes + frame->body_bytes;
      offsets_.push_back(offset);
    }
  }

  void seal_record(uint64_t offset, Frame frame) {
    const uint64_t body = offset + kFrameBytes;
    uint64_t head_bytes = frame.body_bytes;
    if (frame.type == RecordType::kBatch) {
      head_bytes = std::min<uint64_t>(head_bytes, kHeadBytesMax);
      seal_batch(body, frame.body_bytes);
    }
    frame.link = link_ = link_of(link_, frame, part(body, head_bytes));
    put(offset, encode_frame(frame));
  }

  void seal_batch(uint64_t body, uint64_t body_bytes) {
    if (auto header = decode_batch_header(sealed(part(body, kBatchHeaderBytes)))) {
      header->stored_bytes = body_bytes - kBatchHeaderBytes;
      header->payload_digest =
          digest_of(part(body + kBatchHeaderBytes, body_bytes - kBatchHeaderBytes));
      put(body, encode_batch_header(*header));
    }
  }

  std::vector<std::byte> bytes_;
  std::vector<uint64_t> offsets_;
  Digest link_;
};

// As recovery does: the batches before a position, then the confirm record there.
void read_journal(Directory& directory, const JournalHeader& header, uint64_t offset) {
  auto file = JournalFile::open(directory, header.volume, header.epoch);
  if (file && (*file)->load(offset, kDiskBytes, [](const Batch&) {})) {
    CKPT_CHECK((*file)->covered().end_offset == offset);
    (void)(*file)->read_confirm({header.epoch, offset, (*file)->covered().link});
  }
}

void run_journal(ConstByteSpan input) {
  const Sealer journal(input);
  const auto header = decode_journal_header(
      ConstByteSpan(journal.bytes()).first(std::min(input.size(), kJournalHeaderBytes)));
  if (!header) {
    return;
  }
  test::MemoryDisk disk;
  const auto directory = disk.root();
  put_file(*directory, journal_name(header->epoch), journal.bytes());
  for (const uint64_t offset : journal.offsets()) {
    read_journal(*directory, *header, offset);
  }
}

void run_confirm(ConstByteSpan input) { expect_same_bytes(input, decode_confirm, encode_confirm); }

void run_store_record(ConstByteSpan input) {
  expect_same_meaning(input, decode_store_record, encode_store_record);
}

void run_volume_record(ConstByteSpan input) {
  expect_same_meaning(input, decode_volume_record, encode_volume_record);
}

// Of the volume that it says.
void run_saved_map(ConstByteSpan input) {
  constexpr size_t kVolumeAt = 8;
  test::MemoryDisk disk;
  const auto directory = disk.root();
  put_file(*directory, "saved-map", input);
  Decoder decoder(input);
  (void)decoder.get_bytes(kVolumeAt);
  const Uuid volume{decoder.get_array<16>()};
  const Geometry geometry = Geometry::of_disk(kDiskBytes);
  if (const auto runs = load_map(*directory, volume, digest_of(input), geometry)) {
    for (const BlockRange& run : *runs) {
      CKPT_CHECK(!run.empty() && run.end <= geometry.blocks());
    }
  }
}

}  // namespace

std::vector<Target> file_targets() {
  return {{"journal", run_journal},
          {"confirm", run_confirm},
          {"store-record", run_store_record},
          {"volume-record", run_volume_record},
          {"saved-map", run_saved_map}};
}

}  // namespace ckpt::fuzz
