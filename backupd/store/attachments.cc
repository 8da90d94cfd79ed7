// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/attachments.h"

#include <algorithm>
#include <charconv>

#include "backupd/store/latch.h"
#include "common/checksum.h"

namespace ckpt {
namespace {

constexpr uint32_t kFileMagic = 0x54504b43;  // "CKPT" in the order of the bytes
constexpr uint16_t kFileVersion = 1;
constexpr size_t kFileHeaderBytes = 64;
// As a journal file does.
constexpr uint64_t kPiecesWriteOutBytes = uint64_t{8} << 20U;

std::string name_of(const AttachmentPlace& place) {
  return std::to_string(place.epoch.value) + "." + std::to_string(place.index);
}

// Nothing: a name that is none of ours.
std::optional<AttachmentPlace> parse_name(const std::string& name) {
  AttachmentPlace place;
  const char* const end = name.data() + name.size();
  const auto epoch = std::from_chars(name.data(), end, place.epoch.value);
  if (epoch.ec != std::errc() || epoch.ptr == end || *epoch.ptr != '.') {
    return std::nullopt;
  }
  const auto index = std::from_chars(epoch.ptr + 1, end, place.index);
  return index.ec == std::errc() && name == name_of(place) ? std::optional(place) : std::nullopt;
}

std::vector<std::byte> encode_file_header(const Uuid& volume, const AttachmentPlace& place) {
  Encoder encoder;
  encoder.put(kFileMagic);
  encoder.put(kFileVersion);
  encoder.put_zeroes(2);
  encoder.put_array(volume.bytes);
  encoder.put(place.epoch.value);
  encoder.put(place.index);
  encoder.put_zeroes(kFileHeaderBytes - encoder.size() - sizeof(uint32_t));
  encoder.put(crc32c(encoder.bytes()));
  return encoder.take();
}

// Reads a file from its header to its last piece.
class AttachmentFile {
 public:
  AttachmentFile(std::unique_ptr<File> file, std::string path)
      : file_(std::move(file)), path_(std::move(path)) {}

  Result<> check_header(const std::vector<std::byte>& expected) {
    std::vector<std::byte> header(kFileHeaderBytes);
    CKPT_TRY(file_->read(0, header));
    return header == expected ? Result<>() : corrupt("is not the file of this attachment");
  }
  // Until the counter has so many bytes.
  Result<> hand_over(const AttachmentInfo& info, PieceSink& sink) {
    while (offset_ - kFileHeaderBytes < info.stored_bytes) {
      CKPT_TRY(hand_over_piece(sink));
    }
    AttachmentInfo found = counter_.info();
    found.name = info.name;
    return found == info ? Result<>() : corrupt("is not what the checkpoint says");
  }

 private:
  Result<> hand_over_piece(PieceSink& sink) {
    piece_.resize(kPieceHeaderBytes);
    CKPT_TRY(file_->read(offset_, piece_));
    const auto header = decode_piece_header(piece_);
    if (!header) {
      return corrupt(header.error().context);
    }
    piece_.resize(kPieceHeaderBytes + header->stored_bytes);
    CKPT_TRY(file_->read(offset_ + kPieceHeaderBytes, ByteSpan(piece_).subspan(kPieceHeaderBytes)));
    auto checked = check_piece(piece_);
    if (!checked || !counter_.add(*checked, piece_)) {
      return corrupt(checked ? "a piece is not the next one" : checked.error().context);
    }
    offset_ += piece_.size();
    return sink.take(*checked, piece_);
  }
  [[nodiscard]] Unexpected corrupt(const std::string& what) const {
    return fail(ErrorKind::kCorrupt, path_ + ", offset " + std::to_string(offset_) + ": " + what);
  }

  const std::unique_ptr<File> file_;
  const std::string path_;
  uint64_t offset_ = kFileHeaderBytes;
  AttachmentCounter counter_;
  std::vector<std::byte> piece_;
};

}  // namespace

Result<Attachments::Coming*> Attachments::coming(const AttachmentPlace& place) {
  auto found = coming_.find(place);
  if (found == coming_.end()) {
    if (place.index >= kAttachmentsMax ||
        (!names_.empty() && place.epoch < names_.rbegin()->epoch)) {
      return fail(ErrorKind::kInvalid,
                  folder_.path() + ": no attachment " + name_of(place) + " can come any more");
    }
    CKPT_TRY(remove_before(place.epoch));
    names_.insert(place);
    CKPT_ASSIGN(auto file, folder_.open(name_of(place), OpenMode::kCreate));
    CKPT_TRY(file->write(0, encode_file_header(volume_, place)));
    found = coming_.emplace(place, Coming{std::move(file), {}}).first;
  }
  return &found->second;
}

Result<> Attachments::receive(const AttachmentPlace& place, ConstByteSpan piece) {
  CKPT_ASSIGN(const PieceHeader header, check_piece(piece));
  CKPT_ASSIGN(Coming* const attachment, coming(place));
  const uint64_t offset = kFileHeaderBytes + attachment->counter.info().stored_bytes;
  CKPT_TRY(attachment->counter.add(header, piece));
  CKPT_TRY(attachment->file->write(offset, piece));
  return free_memory(*attachment, offset + piece.size());
}

// A large one is written out as it comes, and does not push other things out of memory.
Result<> Attachments::free_memory(Coming& attachment, uint64_t end) {
  if (end < attachment.written_out_to + kPiecesWriteOutBytes) {
    return {};
  }
  attachment.file->write_out({attachment.written_out_to, end - attachment.written_out_to});
  const ByteRange done{attachment.let_go_to, attachment.written_out_to - attachment.let_go_to};
  CKPT_TRY(final_failure(attachment.file->let_go(done)));
  attachment.let_go_to = attachment.written_out_to;
  attachment.written_out_to = end;
  return {};
}

Result<> Attachments::check(const CheckpointInfo& checkpoint) const {
  const std::string name = "checkpoint " + std::to_string(checkpoint.id.number.value);
  const auto is_of_it = [&](const auto& one) { return one.first.epoch == checkpoint.id.number; };
  const bool is_too_many = std::ranges::any_of(coming_, [&](const auto& one) {
    return is_of_it(one) && one.first.index >= checkpoint.attachments.size();
  });
  bool same = !is_too_many;
  for (uint32_t i = 0; same && i < checkpoint.attachments.size(); ++i) {
    const auto found = coming_.find({checkpoint.id.number, i});  // one without content has no file
    AttachmentInfo info = found == coming_.end() ? AttachmentInfo{} : found->second.counter.info();
    info.name = checkpoint.attachments[i].name;
    same = info == checkpoint.attachments[i];
  }
  return same ? Result<>()
              : fail(ErrorKind::kCorrupt, name +
                                              ": the attachments that arrived are not those "
                                              "that were sent");
}

Result<> Attachments::make_durable(Epoch epoch) {
  bool is_any = false;
  for (const auto& [place, attachment] : coming_) {
    if (place.epoch == epoch) {
      if (!CKPT_PLANTED(attachment_not_synced)) {
        CKPT_TRY(final_failure(attachment.file->sync()));
      }
      is_any = true;
    }
  }
  return is_any ? final_failure(folder_.sync()) : Result<>();
}

// What is confirmed is first of all no longer among what drop() unlinks.
void Attachments::keep(Epoch epoch, const std::optional<CheckpointInfo>& before) {
  const auto is_of_it = [epoch](const AttachmentPlace& place) { return place.epoch == epoch; };
  std::erase_if(names_, is_of_it);
  std::erase_if(coming_, [&](const auto& one) { return is_of_it(one.first); });
  const size_t count = before ? before->attachments.size() : 0;
  for (uint32_t i = 0; i < count; ++i) {
    names_.insert({before->id.number, i});
  }
  (void)remove_before(epoch);  // else they stay among the names
}

Result<> Attachments::remove_before(Epoch epoch) {
  while (!names_.empty() && names_.begin()->epoch < epoch) {
    const AttachmentPlace place = *names_.begin();
    coming_.erase(place);
    CKPT_TRY(remove(place));
    names_.erase(place);
  }
  return {};
}

Result<> Attachments::remove(const AttachmentPlace& place) {
  auto removed = folder_.remove(name_of(place));
  const bool is_gone = removed || removed.error().kind == ErrorKind::kNotFound;
  return is_gone ? Result<>() : removed;
}

Result<> Attachments::drop() {
  if (names_.empty()) {
    return {};
  }
  coming_.clear();
  for (const AttachmentPlace& place : names_) {
    CKPT_TRY(remove(place));
  }
  CKPT_TRY(final_failure(folder_.sync()));
  names_.clear();
  return {};
}

uint64_t Attachments::pending_bytes() const {
  uint64_t total = 0;
  for (const auto& [place, attachment] : coming_) {
    total += attachment.counter.info().stored_bytes;
  }
  return total;
}

Result<> Attachments::read(const CheckpointInfo& checkpoint, uint32_t index,
                           PieceSink& sink) const {
  if (checkpoint.attachments[index].size_bytes == 0) {
    return {};
  }
  const AttachmentPlace place{checkpoint.id.number, index};
  const std::string path = folder_.path() + "/" + name_of(place);
  auto file = folder_.open(name_of(place), OpenMode::kRead);
  if (!file) {
    const bool is_gone = file.error().kind == ErrorKind::kNotFound;
    return is_gone ? fail(ErrorKind::kCorrupt, path + ": is missing, and belongs to checkpoint " +
                                                   std::to_string(place.epoch.value))
                   : Result<>(Unexpected(file.error()));
  }
  AttachmentFile attachment(std::move(*file), path);
  CKPT_TRY(attachment.check_header(encode_file_header(volume_, place)));
  return attachment.hand_over(checkpoint.attachments[index], sink);
}

Result<std::vector<std::string>> Attachments::find_leftovers(
    Directory& folder, const std::optional<CheckpointInfo>& last) {
  CKPT_ASSIGN(auto names, folder.list());
  std::erase_if(names, [&](const std::string& name) {
    const auto place = parse_name(name);
    const bool is_kept =
        place && last && place->epoch == last->id.number && place->index < last->attachments.size();
    return !place || is_kept;  // a name that is none of ours is left alone
  });
  return names;
}

Result<> Attachments::remove_leftovers(Directory& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    CKPT_TRY(folder.remove(name));
  }
  return names.empty() ? Result<>() : final_failure(folder.sync());
}

}  // namespace ckpt
