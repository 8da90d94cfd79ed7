// SPDX-License-Identifier: Apache-2.0
#include "tools/attachment_destination.h"

#include <unistd.h>

#include "tools/descriptor.h"

namespace ckpt {
Result<AttachmentDestination> AttachmentDestination::open(const std::string& path, bool force) {
  std::unique_ptr<Destination> file;
  if (path != "-") {
    CKPT_ASSIGN(file, open_raw_destination(path, force));
  }
  return AttachmentDestination(std::move(file));
}

Result<> AttachmentDestination::begin(const AttachmentInfo& info) {
  expected_ = info;
  return file_ == nullptr ? Result<>() : file_->begin({}, info.size_bytes);
}

Result<> AttachmentDestination::take(const PieceHeader& header, ConstByteSpan piece) {
  CKPT_TRY(counter_.add(header, piece));
  CKPT_TRY(decode_piece(header, piece, raw_));
  return file_ == nullptr ? write_all(STDOUT_FILENO, raw_, "write to the standard output")
                          : file_->write(header.offset, raw_);
}

Result<> AttachmentDestination::finish() {
  AttachmentInfo came = counter_.info();
  came.name = expected_.name;
  if (came != expected_) {
    return fail(ErrorKind::kCorrupt,
                "attachment " + expected_.name + ": what came is not what the checkpoint says");
  }
  return file_ == nullptr ? Result<>() : file_->finish();
}

}  // namespace ckpt
