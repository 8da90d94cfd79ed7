// SPDX-License-Identifier: Apache-2.0
#include "plugin/attachment_feed.h"

namespace ckpt {
namespace {

// A notice cannot be missed; this is against surprises.
constexpr std::chrono::seconds kFeedLook{1};

}  // namespace

Result<std::shared_ptr<AttachmentFeed>> AttachmentFeed::make(std::vector<std::string> names) {
  std::vector<AttachmentInfo> infos(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    infos[i].name = names[i];
  }
  if (!valid_attachments(infos)) {
    return fail(
        ErrorKind::kInvalid,
        "a checkpoint has at most " + std::to_string(kAttachmentsMax) +
            " attachments, with different names, in UTF-8 and of 1 to 255 bytes, that could be a "
            "file's");
  }
  return std::shared_ptr<AttachmentFeed>(new AttachmentFeed(std::move(names)));
}

Result<> AttachmentFeed::put(Piece piece) {
  const MutexLock lock(mutex_);
  while (waiting_bytes_ >= kFeedBytesMax && !is_stopped_) {
    changed_.wait_for(mutex_, kFeedLook);
  }
  if (is_stopped_) {
    return fail(ErrorKind::kVoid, "nobody takes the attachments any more");
  }
  CKPT_TRY(count(piece));
  waiting_bytes_ += piece.bytes.size();
  waiting_.push_back(std::move(piece));
  changed_.notify_all();
  return {};
}

Result<> AttachmentFeed::count(const Piece& piece) {
  if (piece.index >= counters_.size()) {
    return fail(ErrorKind::kCorrupt, "a piece of an attachment that was not announced");
  }
  CKPT_ASSIGN(const PieceHeader header, check_piece(piece.bytes));
  return counters_[piece.index].add(header, piece.bytes);
}

void AttachmentFeed::end() {
  const MutexLock lock(mutex_);
  has_ended_ = true;
  changed_.notify_all();
}

void AttachmentFeed::abort(const Error& why) {
  const MutexLock lock(mutex_);
  problem_ = why;
  changed_.notify_all();
}

std::optional<AttachmentFeed::Piece> AttachmentFeed::take(std::chrono::nanoseconds patience) {
  const MutexLock lock(mutex_);
  if (waiting_.empty() && !has_ended_ && !problem_ && !is_stopped_) {
    changed_.wait_for(mutex_, patience);
  }
  if (waiting_.empty()) {
    return std::nullopt;
  }
  Piece piece = std::move(waiting_.front());
  waiting_.pop_front();
  waiting_bytes_ -= piece.bytes.size();
  changed_.notify_all();
  return piece;
}

bool AttachmentFeed::is_complete() const {
  const MutexLock lock(mutex_);
  return has_ended_ && waiting_.empty() && !problem_;
}

std::optional<Error> AttachmentFeed::problem() const {
  const MutexLock lock(mutex_);
  return problem_;
}

std::vector<AttachmentInfo> AttachmentFeed::infos() const {
  const MutexLock lock(mutex_);
  std::vector<AttachmentInfo> infos;
  for (size_t i = 0; i < names_.size(); ++i) {
    infos.push_back(counters_[i].info());
    infos.back().name = names_[i];
  }
  return infos;
}

void AttachmentFeed::stop() {
  const MutexLock lock(mutex_);
  is_stopped_ = true;
  changed_.notify_all();
}

}  // namespace ckpt
