// SPDX-License-Identifier: Apache-2.0
#include "tools/attachment_copy.h"

#include <array>
#include <cerrno>
#include <filesystem>

namespace ckpt {
namespace {

namespace fs = std::filesystem;

std::string prefix_of(const Uuid& volume) { return volume.to_string() + "."; }

std::string folder_of(const Uuid& volume, Epoch checkpoint) {
  return prefix_of(volume) + std::to_string(checkpoint.value);
}

void remove_others(const std::string& base, const Uuid& volume, const std::string& kept) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(base, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix_of(volume)) && name != kept) {
      fs::remove_all(entry.path(), ignored);
    }
  }
}

bool read_exactly(std::istream& file, ByteSpan buffer) {
  file.read(reinterpret_cast<char*>(buffer.data()),  // NOLINT: as istream has it
            static_cast<std::streamsize>(buffer.size()));
  return file.gcount() == static_cast<std::streamsize>(buffer.size());
}

// The next piece, checked. Nothing: the file has ended.
Result<std::optional<PieceHeader>> read_piece(std::istream& file, std::vector<std::byte>& piece) {
  std::array<std::byte, kPieceHeaderBytes> head{};
  if (file.peek() == std::istream::traits_type::eof()) {
    return std::optional<PieceHeader>();
  }
  if (!read_exactly(file, head)) {
    return fail(ErrorKind::kCorrupt, "it ends within a piece");
  }
  CKPT_ASSIGN(const PieceHeader header, decode_piece_header(head));
  piece.assign(head.begin(), head.end());
  piece.resize(kPieceHeaderBytes + header.stored_bytes);
  if (!read_exactly(file, ByteSpan(piece).subspan(kPieceHeaderBytes))) {
    return fail(ErrorKind::kCorrupt, "it ends within a piece");
  }
  CKPT_TRY(check_piece(piece));
  return std::optional<PieceHeader>(header);
}

}  // namespace

Result<AttachmentCopy> AttachmentCopy::make(const std::string& base, const Uuid& volume,
                                            const std::vector<std::string>& names) {
  CKPT_ASSIGN(WorkFolder folder, WorkFolder::make(base, "ckpt-copy"));
  AttachmentCopy copy(base, volume, std::move(folder));
  for (const std::string& name : names) {
    copy.files_.emplace_back(copy.folder_.path() + "/" + name, std::ios::binary);
  }
  return copy;
}

// A stream that has failed takes no more, and says so at its end.
void AttachmentCopy::add(size_t index, ConstByteSpan piece) {
  files_[index].write(reinterpret_cast<const char*>(piece.data()),  // NOLINT: as ostream has it
                      static_cast<std::streamsize>(piece.size()));
}

Result<> AttachmentCopy::keep(Epoch checkpoint) {
  for (std::ofstream& file : files_) {
    file.close();
    if (!file) {
      return fail(ErrorKind::kIo, "write into " + folder_.path() + ": is there space?");
    }
  }
  const std::string name = folder_of(volume_, checkpoint);
  remove_others(base_, volume_, name);
  const std::string kept = folder_.keep_as(name);
  return kept == base_ + "/" + name
             ? Result<>()
             : Result<>(fail(ErrorKind::kIo, "rename " + kept + " to " + name));
}

Result<> read_attachment_copy(const std::string& base, const Uuid& volume, Epoch checkpoint,
                              const AttachmentInfo& info, PieceSink& sink) {
  const std::string path = base + "/" + folder_of(volume, checkpoint) + "/" + info.name;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return fail_errno(ENOENT, path);
  }
  std::vector<std::byte> piece;
  for (;;) {
    const auto header = read_piece(file, piece);
    if (!header) {
      return within(path, header.error());
    }
    if (!*header) {
      return {};
    }
    CKPT_TRY(sink.take(**header, piece));
  }
}

}  // namespace ckpt
