// SPDX-License-Identifier: Apache-2.0
// A checkpoint for those who stand still until the disk is cut, and go on while it comes to exist.
#pragma once

#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/fd.h"
#include "plugin/volume_api.h"
#include "tools/attachment_source.h"

namespace ckpt {

// Attachments that are named before there is anything in them, so that the cut does not wait for
// that: each is what is written into a pipe.
class AttachmentPipes {
 public:
  // names: at least one. more: NAME=FILE each, besides. base: attachments=, for a copy of all;
  // empty: none is kept.
  static Result<AttachmentPipes> open(const std::vector<std::string>& names,
                                      const std::vector<std::string>& more, const std::string& base,
                                      const Uuid& volume);

  [[nodiscard]] const std::shared_ptr<AttachmentFeed>& feed() const { return source_->feed(); }
  // Where the content of an attachment is to be written, one after the other; closed at its end.
  UniqueFd& in(size_t index) { return pipes_[index]; }
  // The whole of the first attachment. Waits for nobody. kInvalid: it is longer than bytes_max.
  Result<> put_text(const std::string& text, size_t bytes_max);
  // The checkpoint exists: the copy is its. Why there is none, if there should be; else empty.
  std::string keep_copy(Epoch checkpoint);
  void close() { pipes_.clear(); }

 private:
  AttachmentPipes() = default;
  void open_copy(const std::vector<std::string>& words, const std::string& base,
                 const Uuid& volume);

  std::vector<UniqueFd> pipes_;
  UniqueFd first_out_;
  std::shared_ptr<AttachmentCopy> copy_;  // with the source
  std::string no_copy_;
  std::unique_ptr<AttachmentSource> source_;
};

// kUnreachable, kInvalid: the back-up takes no checkpoint now. Nobody is to stand still for what
// cannot be.
Result<> check_takes_checkpoint(const VolumeStatus& status);

// Threads: one, besides its own.
class AskedCheckpoint {
 public:
  // The volume outlives it. Nothing is asked yet.
  AskedCheckpoint(VolumeApi& volume, CheckpointRequest request)
      : volume_(volume), request_(std::move(request)) {}
  ~AskedCheckpoint();
  AskedCheckpoint(const AskedCheckpoint&) = delete;
  AskedCheckpoint& operator=(const AskedCheckpoint&) = delete;

  // Returns at once.
  void ask();
  // Its number, 10 s at most. kVoid: it is not cut by then. Else as VolumeApi::checkpoint.
  Result<Epoch> await_cut();
  // It exists, or there will be none: await() does not wait.
  [[nodiscard]] bool has_ended() const;
  // Returns when it exists.
  Result<CheckpointOutcome> await();
  // There is no checkpoint, unless it exists already.
  void give_up(const Error& why);
  // What became of it; nothing: it is not known yet.
  [[nodiscard]] const std::optional<Result<CheckpointOutcome>>& outcome() const { return made_; }

 private:
  VolumeApi& volume_;
  CheckpointRequest request_;
  std::promise<Epoch> cut_;
  std::future<Result<CheckpointOutcome>> asked_;
  std::optional<Result<CheckpointOutcome>> made_;
};

}  // namespace ckpt
