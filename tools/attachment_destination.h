// SPDX-License-Identifier: Apache-2.0
// Where an attachment is copied to.
#pragma once

#include "tools/destination.h"

namespace ckpt {

// A file or block device, as open_raw_destination() says, or the standard output ("-").
class AttachmentDestination final : public PieceSink {
 public:
  // Nothing is changed yet.
  static Result<AttachmentDestination> open(const std::string& path, bool force);

  // shared with whoever wants what has come.
  static AttachmentDestination into(std::shared_ptr<Destination> file) {
    return AttachmentDestination(std::move(file));
  }

  // Before the first piece.
  Result<> begin(const AttachmentInfo& info);
  Result<> take(const PieceHeader& header, ConstByteSpan piece) override;
  // kCorrupt: what came is not what the checkpoint says, and is given up.
  Result<> finish();

 private:
  explicit AttachmentDestination(std::shared_ptr<Destination> file) : file_(std::move(file)) {}

  std::shared_ptr<Destination> file_;  // nothing: the standard output
  AttachmentInfo expected_;
  AttachmentCounter counter_;
  std::vector<std::byte> raw_;
};

}  // namespace ckpt
