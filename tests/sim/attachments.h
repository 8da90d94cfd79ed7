// SPDX-License-Identifier: Apache-2.0
// Attachments of checkpoints: whoever brings them, and what they must be when they are read. Their
// content follows from the checkpoint's name, so that nothing need be remembered.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/store_link.h"
#include "plugin/attachment_feed.h"
#include "tests/sim/scheduler.h"

namespace ckpt::sim {

// Of the checkpoint of that name, in their order; every second one has none.
std::vector<std::string> attachment_names(const std::string& checkpoint);
std::vector<std::byte> attachment_content(const std::string& checkpoint, const std::string& name);

// A feed, and a fiber of the calling fiber's process that brings all of them, piece by piece; with
// breaks_off it gives up in the middle.
std::shared_ptr<AttachmentFeed> bring_attachments(Scheduler& scheduler,
                                                  const std::string& checkpoint, bool breaks_off);

// What was read.
class ReadAttachment final : public PieceSink {
 public:
  Result<> take(const PieceHeader& header, ConstByteSpan piece) override;
  [[nodiscard]] const std::vector<std::byte>& content() const { return content_; }

 private:
  std::vector<std::byte> content_;
};

}  // namespace ckpt::sim
