// SPDX-License-Identifier: Apache-2.0
// Attachments on their way from whoever brings them to whoever ships them, a few at a time.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "common/attachment.h"
#include "common/mutex.h"

namespace ckpt {

// Pieces that may wait, as stored.
inline constexpr uint64_t kFeedBytesMax = uint64_t{8} << 20U;

// Threads: one that brings (put, end, abort), one that ships (the others); stop() by any.
class AttachmentFeed {
 public:
  struct Piece {
    uint32_t index = 0;  // of the attachment, among the names
    std::vector<std::byte> bytes;
  };

  // kInvalid: too many names, or one that is not valid or there twice.
  static Result<std::shared_ptr<AttachmentFeed>> make(std::vector<std::string> names);

  // The next piece of an attachment, which is checked; waits for room. kVoid: nobody takes any
  // more, and nothing more need be brought. kCorrupt: it is not the next one.
  Result<> put(Piece piece) CKPT_EXCLUDES(mutex_);
  // That was all of them.
  void end() CKPT_EXCLUDES(mutex_);
  // There will be no more, and they are not whole.
  void abort(const Error& why) CKPT_EXCLUDES(mutex_);

  // The next piece, if there is one within that time.
  std::optional<Piece> take(std::chrono::nanoseconds patience) CKPT_EXCLUDES(mutex_);
  // All of them were brought, and taken.
  [[nodiscard]] bool is_complete() const CKPT_EXCLUDES(mutex_);
  [[nodiscard]] std::optional<Error> problem() const CKPT_EXCLUDES(mutex_);
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
  // What a checkpoint says of them, by what was brought.
  [[nodiscard]] std::vector<AttachmentInfo> infos() const CKPT_EXCLUDES(mutex_);
  // Nobody takes any more.
  void stop() CKPT_EXCLUDES(mutex_);

 private:
  explicit AttachmentFeed(std::vector<std::string> names)
      : names_(std::move(names)), counters_(names_.size()) {}
  Result<> count(const Piece& piece) CKPT_REQUIRES(mutex_);

  const std::vector<std::string> names_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<AttachmentCounter> counters_ CKPT_GUARDED_BY(mutex_);
  std::deque<Piece> waiting_ CKPT_GUARDED_BY(mutex_);
  uint64_t waiting_bytes_ CKPT_GUARDED_BY(mutex_) = 0;
  bool has_ended_ CKPT_GUARDED_BY(mutex_) = false;
  bool is_stopped_ CKPT_GUARDED_BY(mutex_) = false;
  std::optional<Error> problem_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt
