// SPDX-License-Identifier: Apache-2.0
// The attachments of a checkpoint, fetched and checked.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "plugin/volume_api.h"
#include "tools/attachment_destination.h"

namespace ckpt {

std::optional<AttachmentInfo> find_attachment(const CheckpointInfo& checkpoint,
                                              const std::string& name);

// Out of the copy in attachments= where there is a good one, else from the back-up.
//
// Threads: one.
class SavedAttachments {
 public:
  // The volume outlives it.
  SavedAttachments(VolumeApi& volume, CheckpointInfo checkpoint)
      : volume_(volume), checkpoint_(std::move(checkpoint)) {}

  // To where `open` says, which is asked once more if the copy is no good. kNotFound: there is none
  // of this name. kCorrupt: it is damaged.
  using Opener = std::function<Result<AttachmentDestination>()>;
  Result<> fetch(const std::string& name, const Opener& open);
  // kCorrupt: it has more bytes.
  Result<std::string> fetch_text(const std::string& name, size_t bytes_max);
  // Nothing came from the back-up.
  [[nodiscard]] bool is_from_copy() const { return is_from_copy_; }

 private:
  Result<> fetch_copy(const std::string& base, const Uuid& volume, const AttachmentInfo& info,
                      const Opener& open) const;

  VolumeApi& volume_;
  const CheckpointInfo checkpoint_;
  bool is_from_copy_ = true;
};

}  // namespace ckpt
