// SPDX-License-Identifier: Apache-2.0
// A copy of a checkpoint's attachments near the primary, so that to bring processes back they need
// not come from the back-up (docs/process-format.md, "The copy").
#pragma once

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "common/attachment.h"
#include "common/block.h"
#include "plugin/volume_api.h"
#include "tools/work_folder.h"

namespace ckpt {

// Made while a checkpoint is. It need not be durable, nor good: who reads it checks it against the
// checkpoint. What fails here fails nothing else.
//
// Threads: add() by one; the others when that has ended.
class AttachmentCopy {
 public:
  // base: an existing folder, which may be that of several volumes.
  static Result<AttachmentCopy> make(const std::string& base, const Uuid& volume,
                                     const std::vector<std::string>& names);

  // The next piece of an attachment, by its place among the names, as it is stored.
  void add(size_t index, ConstByteSpan piece);
  // The checkpoint exists: this is its copy, and those of earlier ones are removed.
  Result<> keep(Epoch checkpoint);

 private:
  AttachmentCopy(std::string base, const Uuid& volume, WorkFolder folder)
      : base_(std::move(base)), volume_(volume), folder_(std::move(folder)) {}

  std::string base_;
  Uuid volume_;
  WorkFolder folder_;
  std::vector<std::ofstream> files_;
};

// Hands over an attachment out of the copy, as VolumeApi::read_attachment(). kNotFound: there is
// none. kCorrupt: it is damaged. What was handed over is of no use then.
Result<> read_attachment_copy(const std::string& base, const Uuid& volume, Epoch checkpoint,
                              const AttachmentInfo& info, PieceSink& sink);

}  // namespace ckpt
