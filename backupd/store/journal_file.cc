// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/journal_file.h"

#include <algorithm>

#include "backupd/store/latch.h"
#include "common/checksum.h"

namespace ckpt {
namespace {

// The first step is small, for epochs of a few blocks; large ones soon take large steps.
constexpr uint64_t kFirstStepBytes = uint64_t{1} << 20U;
constexpr uint64_t kStepBytes = uint64_t{16} << 20U;
// Written out at once; as much again is on its way meanwhile.
constexpr uint64_t kWriteOutBytes = uint64_t{8} << 20U;

}  // namespace

JournalFile::JournalFile(std::unique_ptr<File> file, std::string path, const JournalHeader& header)
    : file_(std::move(file)),
      path_(std::move(path)),
      header_(header),
      link_(digest_of(encode_journal_header(header))) {}

Result<std::unique_ptr<JournalFile>> JournalFile::create(Directory& journal,
                                                         const JournalHeader& header) {
  const std::string name = journal_name(header.epoch);
  CKPT_ASSIGN(auto file, journal.open(name, OpenMode::kCreate));
  std::unique_ptr<JournalFile> created(
      new JournalFile(std::move(file), journal.path() + "/" + name, header));
  CKPT_TRY(created->allocate_to(kJournalHeaderBytes));
  CKPT_TRY(created->file_->write(0, encode_journal_header(header)));
  return created;
}

Result<std::unique_ptr<JournalFile>> JournalFile::open(Directory& journal, const Uuid& volume,
                                                       Epoch epoch) {
  const std::string name = journal_name(epoch);
  const std::string path = journal.path() + "/" + name;
  CKPT_ASSIGN(auto file, journal.open(name, OpenMode::kReadWrite));
  // What a killed process wrote may be in the page cache only.
  if (!CKPT_PLANTED(recover_without_sync)) {
    CKPT_TRY(final_failure(file->sync()));
  }
  std::unique_ptr<JournalFile> opened(
      new JournalFile(std::move(file), path, {volume, {}, epoch, 0}));
  CKPT_ASSIGN(const auto bytes, opened->read_bytes(0, kJournalHeaderBytes));
  auto header = decode_journal_header(bytes);
  if (!header) {
    return within(path, header.error());
  }
  if (header->volume != volume || header->epoch != epoch) {
    return fail(ErrorKind::kCorrupt, path + ": is epoch " + std::to_string(header->epoch.value) +
                                         " of volume " + header->volume.to_string() +
                                         ", not what its name says");
  }
  opened->header_ = *header;
  opened->link_ = digest_of(bytes);
  return opened;
}

Result<> JournalFile::allocate_to(uint64_t end_offset) {
  if (end_offset <= allocated_to_) {
    return {};
  }
  const uint64_t step = allocated_to_ == 0 ? kFirstStepBytes : kStepBytes;
  const uint64_t ahead = (end_offset + step - 1) / step * step;
  auto allocated = file_->allocate({allocated_to_, ahead - allocated_to_});
  if (allocated) {
    allocated_to_ = ahead;
  } else if (allocated.error().kind == ErrorKind::kNoSpace) {
    // A nearly full file system may still have room for what is needed now.
    allocated = file_->allocate({allocated_to_, end_offset - allocated_to_});
    allocated_to_ = allocated ? end_offset : allocated_to_;
  }
  return allocated;
}

Result<> JournalFile::append_record(RecordType type, ConstByteSpan head, ConstByteSpan rest) {
  Frame frame{type, head.size() + rest.size(), header_.epoch, end_offset_, {}};
  frame.link = link_of(link_, frame, head);
  const uint64_t end = end_offset_ + kFrameBytes + frame.body_bytes;
  CKPT_TRY(allocate_to(end));
  Encoder start;
  start.put_bytes(encode_frame(frame));
  start.put_bytes(head);
  CKPT_TRY(file_->write(end_offset_, start.bytes()));
  if (!rest.empty()) {
    CKPT_TRY(file_->write(end_offset_ + start.size(), rest));
  }
  link_ = frame.link;
  end_offset_ = end;
  return free_memory();
}

Result<> JournalFile::free_memory() {
  if (end_offset_ < written_out_to_ + kWriteOutBytes) {
    return {};
  }
  file_->write_out({written_out_to_, end_offset_ - written_out_to_});
  CKPT_TRY(final_failure(file_->let_go({let_go_to_, written_out_to_ - let_go_to_})));
  let_go_to_ = written_out_to_;
  written_out_to_ = end_offset_;
  return {};
}

void JournalFile::note(const JournalBatch& batch) {
  batches_.emplace(batch.header.sequence, batch);
  stored_bytes_ += batch.header.stored_bytes;
}

Result<> JournalFile::append(const EncodedBatch& batch) {
  if (batches_.contains(batch.header.sequence)) {
    return fail(ErrorKind::kInvalid,
                path_ + ": sequence number " + std::to_string(batch.header.sequence) + " again");
  }
  const JournalBatch entry{end_offset_, batch.header};
  CKPT_TRY(append_record(RecordType::kBatch, encode_batch_header(batch.header), batch.payload));
  note(entry);
  return {};
}

Result<JournalPosition> JournalFile::append(const ConfirmRecord& record) {
  const uint64_t offset = end_offset_;
  CKPT_TRY(append_record(RecordType::kConfirm, encode_confirm(record), {}));
  return JournalPosition{header_.epoch, offset, link_};
}

Result<> JournalFile::sync() {
  auto synced = file_->sync();
  if (!synced && CKPT_PLANTED(retry_failed_sync)) {
    synced = file_->sync();
  }
  return final_failure(synced);
}

CoveredSegment JournalFile::covered() const {
  CoveredSegment segment{header_.epoch, end_offset_, {}, link_};
  for (const auto& [sequence, batch] : batches_) {
    segment.chain = chain(segment.chain, batch.header);
  }
  return segment;
}

std::string JournalFile::at(uint64_t offset) const {
  return path_ + ": offset " + std::to_string(offset);
}

Result<std::vector<std::byte>> JournalFile::read_bytes(uint64_t offset, uint64_t length) {
  std::vector<std::byte> bytes;
  CKPT_TRY(read_bytes_into(bytes, offset, length));
  return bytes;
}

Result<> JournalFile::read_bytes_into(std::vector<std::byte>& bytes, uint64_t offset,
                                      uint64_t length) {
  CKPT_ASSIGN(const uint64_t size, file_->size());
  if (offset > size || length > size - offset) {
    return fail(ErrorKind::kCorrupt, at(offset) + ": the file is too short");
  }
  bytes.resize(length);
  return file_->read(offset, bytes);
}

// A frame whose body ends at or before end_offset.
Result<Frame> JournalFile::read_frame(uint64_t offset, uint64_t end_offset) {
  CKPT_ASSIGN(const auto bytes, read_bytes(offset, kFrameBytes));
  auto frame = decode_frame(bytes);
  if (!frame) {
    return within(at(offset), frame.error());
  }
  const bool inside =
      offset + kFrameBytes <= end_offset && frame->body_bytes <= end_offset - offset - kFrameBytes;
  if (frame->epoch != header_.epoch || frame->offset != offset || !inside) {
    return fail(ErrorKind::kCorrupt, at(offset) + ": this record does not belong here");
  }
  return frame;
}

Result<> JournalFile::load(uint64_t end_offset, uint64_t size_bytes,
                           const std::function<void(const Batch&)>& visit) {
  while (end_offset_ < end_offset) {
    CKPT_TRY(load_batch(end_offset, size_bytes, visit));
  }
  if (end_offset_ != end_offset) {
    return fail(ErrorKind::kCorrupt, at(end_offset_) + ": the records do not end as confirmed");
  }
  return {};
}

Result<> JournalFile::load_batch(uint64_t end_offset, uint64_t size_bytes,
                                 const std::function<void(const Batch&)>& visit) {
  CKPT_ASSIGN(const Frame frame, read_frame(end_offset_, end_offset));
  if (frame.type != RecordType::kBatch) {
    return fail(ErrorKind::kCorrupt, at(end_offset_) + ": not a batch");
  }
  CKPT_ASSIGN(const auto body, read_bytes(end_offset_ + kFrameBytes, frame.body_bytes));
  const ConstByteSpan head = ConstByteSpan(body).first(kBatchHeaderBytes);
  auto header = decode_batch_header(head);
  if (!header) {
    return within(at(end_offset_), header.error());
  }
  const bool ours = header->volume == header_.volume && header->timeline == header_.timeline &&
                    header->epoch == header_.epoch && !batches_.contains(header->sequence);
  if (!ours || frame.link != link_of(link_, frame, head)) {
    return fail(ErrorKind::kCorrupt, at(end_offset_) + ": this batch does not belong here");
  }
  auto batch = decode_batch(*header, ConstByteSpan(body).subspan(kBatchHeaderBytes), size_bytes);
  if (!batch) {
    return within(at(end_offset_), batch.error());
  }
  visit(*batch);
  note({end_offset_, *header});
  link_ = frame.link;
  end_offset_ += kFrameBytes + frame.body_bytes;
  return {};
}

Result<ConfirmRecord> JournalFile::read_confirm(const JournalPosition& position) {
  CKPT_CHECK(position.offset == end_offset_);
  CKPT_ASSIGN(const Frame frame, read_frame(position.offset, UINT64_MAX));
  if (frame.type != RecordType::kConfirm) {
    return fail(ErrorKind::kCorrupt, at(position.offset) + ": not a confirm record");
  }
  CKPT_ASSIGN(const auto body, read_bytes(position.offset + kFrameBytes, frame.body_bytes));
  auto record = decode_confirm(body);
  if (!record) {
    return within(at(position.offset), record.error());
  }
  if (frame.link != position.link || frame.link != link_of(link_, frame, body)) {
    return fail(ErrorKind::kCorrupt,
                at(position.offset) + ": not the confirm record expected here");
  }
  return record;
}

Result<> JournalFile::read_into(BatchBuffer& buffer, const JournalBatch& batch,
                                uint64_t size_bytes) {
  const ByteRange payload{batch.offset + kFrameBytes + kBatchHeaderBytes,
                          batch.header.stored_bytes};
  CKPT_TRY(read_bytes_into(buffer.payload, payload.offset, payload.length));
  if (payload.offset >= kCachedBytes) {
    CKPT_TRY(final_failure(file_->let_go(payload)));
  }
  auto decoded = decode_batch_into(buffer.batch, batch.header, buffer.payload, size_bytes);
  return decoded ? Result<>() : Result<>(within(at(batch.offset), decoded.error()));
}

}  // namespace ckpt
