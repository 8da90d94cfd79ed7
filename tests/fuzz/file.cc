// SPDX-License-Identifier: Apache-2.0
// docs/journal-format.md, docs/store-format.md, docs/volume-format.md
#include "backupd/store/journal_file.h"
#include "backupd/store/store_record.h"
#include "common/checksum.h"
#include "common/saved_map.h"
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
  // Where records begin, with their links.
  [[nodiscard]] const std::vector<JournalPosition>& records() const { return records_; }

 private:
  [[nodiscard]] ConstByteSpan part(uint64_t offset, uint64_t length) const {
    return ConstByteSpan(bytes_).subspan(offset, length);
  }

  void put(uint64_t offset, ConstByteSpan bytes) {
    copy_bytes(bytes, ByteSpan(bytes_).subspan(offset));
  }

  void seal_records() {
    uint64_t offset = kJournalHeaderBytes;
    while (bytes_.size() - offset >= kFrameBytes) {
      auto frame = decode_frame(sealed(part(offset, kFrameBytes)));
      const uint64_t rest = bytes_.size() - offset - kFrameBytes;
      if (!frame || frame->body_bytes > rest) {
        return;
      }
      seal_record(offset, *frame);
      records_.push_back({frame->epoch, offset, link_});
      offset += kFrameBytes + frame->body_bytes;
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
  std::vector<JournalPosition> records_;
  Digest link_;
};

// As recovery does: the batches before a record, then that one as a confirm record.
bool read_journal(Directory& directory, const JournalHeader& header,
                  const JournalPosition& record) {
  auto file = JournalFile::open(directory, header.volume, header.epoch);
  if (!file || !(*file)->load(record.offset, kDiskBytes, [](const Batch&) {})) {
    return false;
  }
  CKPT_CHECK((*file)->covered().end_offset == record.offset);
  return (*file)->read_confirm(record).has_value();
}

bool run_journal(ConstByteSpan input) {
  const Sealer journal(input);
  const auto header = decode_journal_header(
      ConstByteSpan(journal.bytes()).first(std::min(input.size(), kJournalHeaderBytes)));
  if (!header) {
    return false;
  }
  test::MemoryDisk disk;
  const auto directory = disk.root();
  put_file(*directory, journal_name(header->epoch), journal.bytes());
  bool is_read = false;
  for (const JournalPosition& record : journal.records()) {
    is_read = read_journal(*directory, *header, record) || is_read;
  }
  return is_read;
}

bool run_confirm(ConstByteSpan input) {
  return expect_same_bytes(input, decode_confirm, encode_confirm);
}

bool run_store_record(ConstByteSpan input) {
  return expect_same_meaning(input, decode_store_record, encode_store_record);
}

bool run_volume_record(ConstByteSpan input) {
  return expect_same_meaning(input, decode_volume_record, encode_volume_record);
}

// Of the volume that it says.
bool run_saved_map(ConstByteSpan input) {
  constexpr size_t kVolumeAt = 8;
  test::MemoryDisk disk;
  const auto directory = disk.root();
  put_file(*directory, "saved-map", input);
  Decoder decoder(input);
  (void)decoder.get_bytes(kVolumeAt);
  const Uuid volume{decoder.get_array<16>()};
  const uint64_t blocks = block_count(kDiskBytes);
  const auto runs = load_map(*directory, "saved-map", volume, digest_of(input), blocks);
  CKPT_CHECK(!runs || std::ranges::all_of(*runs, [&](const BlockRange& run) {
    return !run.empty() && run.end <= blocks;
  }));
  return runs.has_value();
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
