// SPDX-License-Identifier: Apache-2.0
// The journal file of one epoch.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "backupd/store/journal_format.h"
#include "common/file.h"

namespace ckpt {

// Where one batch stands in a journal file.
struct JournalBatch {
  uint64_t offset = 0;  // of its frame
  BatchHeader header;
};

// So much of a journal file may stay in memory for the applier. A long epoch would push out the
// disk's own blocks, and fresh memory costs more than writing.
inline constexpr uint64_t kCachedBytes = uint64_t{64} << 20U;

// What a batch is read into: the payload as stored, and decoded.
struct BatchBuffer {
  std::vector<std::byte> payload;
  Batch batch;
};

// Batches of one epoch in the order of their arrival, then perhaps the confirm record of the
// checkpoint of that number. Space is taken ahead, so appending seldom changes the file's metadata.
//
// Lifetime:   the directory must outlive the object. The destructor closes; it does not sync.
// Threads:    one at a time; a file passes from the session to the applier when it is confirmed.
// Failure:    after a failed append or sync the file is fit for removal only.
// Durability: what was appended survives after sync(); the entry of a created file when its
// directory is
//             synced.
// Format:     docs/journal-format.md
class JournalFile {
 public:
  // kNoSpace leaves the name behind or not; remove it.
  static Result<std::unique_ptr<JournalFile>> create(Directory& journal,
                                                     const JournalHeader& header);
  // Syncs before it reads. kCorrupt if it is not the file of that volume and epoch.
  static Result<std::unique_ptr<JournalFile>> open(Directory& journal, const Uuid& volume,
                                                   Epoch epoch);

  // kInvalid if the sequence number is there already; nothing is appended then.
  Result<> append(const EncodedBatch& batch);
  // Returns where it stands.
  Result<JournalPosition> append(const ConfirmRecord& record);
  Result<> sync();

  // Of a file that was opened: reads all batches up to end, checks them, and shows each to the
  // visitor. kCorrupt names file and offset.
  Result<> load(uint64_t end_offset, uint64_t size_bytes,
                const std::function<void(const Batch&)>& visit);
  // The confirm record that stands just after what was loaded.
  Result<ConfirmRecord> read_confirm(const JournalPosition& position);
  // A batch of it, checked and decoded, into memory that is used again.
  Result<> read_into(BatchBuffer& buffer, const JournalBatch& batch, uint64_t size_bytes);

  [[nodiscard]] const JournalHeader& header() const { return header_; }
  [[nodiscard]] Epoch epoch() const { return header_.epoch; }
  // In the order of their sequence numbers.
  [[nodiscard]] const std::map<uint64_t, JournalBatch>& batches() const { return batches_; }
  // As a checkpoint covers it now.
  [[nodiscard]] CoveredSegment covered() const;
  [[nodiscard]] uint64_t end_offset() const { return end_offset_; }
  // Payload bytes of all batches.
  [[nodiscard]] uint64_t stored_bytes() const { return stored_bytes_; }

 private:
  JournalFile(std::unique_ptr<File> file, std::string path, const JournalHeader& header);
  Result<> allocate_to(uint64_t end_offset);
  Result<> append_record(RecordType type, ConstByteSpan head, ConstByteSpan rest);
  Result<> free_memory();
  Result<> load_batch(uint64_t end_offset, uint64_t size_bytes,
                      const std::function<void(const Batch&)>& visit);
  Result<Frame> read_frame(uint64_t offset, uint64_t end_offset);
  Result<std::vector<std::byte>> read_bytes(uint64_t offset, uint64_t length);
  Result<> read_bytes_into(std::vector<std::byte>& bytes, uint64_t offset, uint64_t length);
  [[nodiscard]] std::string at(uint64_t offset) const;
  void note(const JournalBatch& batch);

  std::unique_ptr<File> file_;
  std::string path_;
  JournalHeader header_;
  std::map<uint64_t, JournalBatch> batches_;
  Digest link_;  // of the last record, at first of the header
  uint64_t end_offset_ = kJournalHeaderBytes;
  uint64_t allocated_to_ = 0;
  uint64_t let_go_to_ = kCachedBytes;  // what is cached beyond the first bytes begins here
  uint64_t written_out_to_ = kCachedBytes;
  uint64_t stored_bytes_ = 0;
};

}  // namespace ckpt
