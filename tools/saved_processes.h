// SPDX-License-Identifier: Apache-2.0
// The processes of a checkpoint, brought back.
#pragma once

#include "common/fd.h"
#include "plugin/volume_api.h"
#include "tools/process_record.h"
#include "tools/saved_attachments.h"

namespace ckpt {

// kNotFound: the checkpoint has none.
Result<> check_has_processes(const CheckpointInfo& checkpoint);

// Held while the processes of a volume are brought back: by CRIU, too. Where the tool is killed
// meanwhile CRIU goes on, and the next one waits until it has ended.
class RestoreLock {
 public:
  // state: the volume's state directory. Waits for a minute; then kBusy.
  static Result<RestoreLock> take(const std::string& state);
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  explicit RestoreLock(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

// Everything of a checkpoint that its processes need, fetched and checked before anything is
// changed.
//
// Threads: one.
class SavedProcesses {
 public:
  // folder: an empty one for CRIU's images, which must be there until they are restored.
  SavedProcesses(VolumeApi& volume, CheckpointInfo checkpoint, std::string folder)
      : checkpoint_(checkpoint),
        attachments_(volume, std::move(checkpoint)),
        folder_(std::move(folder)) {}

  Result<> fetch();
  // Those whose numbers must be free. Of those in a PID namespace of their own only what lives.
  [[nodiscard]] std::vector<ProcessIdentity> processes() const;
  // When the disk is back and mounted, and processes() have ended. The root of each tree.
  // kHalfway: not all are restored.
  [[nodiscard]] Result<std::vector<pid_t>> restore(const std::vector<std::string>& options,
                                                   const RestoreLock& lock) const;
  [[nodiscard]] const ProcessRecord& record() const { return record_; }
  // All came out of the copy in attachments=, and nothing from the back-up.
  [[nodiscard]] bool is_from_copy() const { return attachments_.is_from_copy(); }

 private:
  [[nodiscard]] std::string folder_of(const TreeRecord& tree) const;
  Result<> fetch_images(const TreeRecord& tree);

  const CheckpointInfo checkpoint_;
  SavedAttachments attachments_;
  const std::string folder_;
  ProcessRecord record_;
};

}  // namespace ckpt
