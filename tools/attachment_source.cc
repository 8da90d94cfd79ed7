// SPDX-License-Identifier: Apache-2.0
#include "tools/attachment_source.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>

namespace ckpt {
namespace {

// A pipe may say nothing for long, or have nobody yet who writes to it.
constexpr int kLookMilliseconds = 100;

}  // namespace

Result<std::unique_ptr<AttachmentSource>> AttachmentSource::open(
    const std::vector<std::string>& words, std::shared_ptr<AttachmentCopy> copy) {
  std::vector<std::string> names;
  std::vector<Opened> files;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == word.size()) {
      return fail(ErrorKind::kInvalid, "--attach " + word + ": give NAME=FILE");
    }
    names.push_back(word.substr(0, equals));
    Opened opened{word.substr(equals + 1), {}};
    opened.fd.reset(::open(opened.path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (!opened.fd) {
      return fail_errno(errno, "--attach " + word);
    }
    files.push_back(std::move(opened));
  }
  CKPT_ASSIGN(auto feed, AttachmentFeed::make(std::move(names)));
  return std::unique_ptr<AttachmentSource>(
      new AttachmentSource(std::move(files), std::move(feed), std::move(copy)));
}

AttachmentSource::AttachmentSource(std::vector<Opened> files, std::shared_ptr<AttachmentFeed> feed,
                                   std::shared_ptr<AttachmentCopy> copy)
    : files_(std::move(files)),
      feed_(std::move(feed)),
      copy_(std::move(copy)),
      reader_([this] { read_all(); }) {}

AttachmentSource::~AttachmentSource() {
  feed_->stop();
  stopping_.store(true);
  reader_.join();
}

void AttachmentSource::read_all() {
  for (uint32_t i = 0; i < files_.size(); ++i) {
    auto done = read(i);
    files_[i].fd.reset();
    if (!done) {
      feed_->abort(done.error());
      files_.clear();  // whoever writes into a pipe is told
      return;
    }
  }
  feed_->end();
}

// Fills the buffer, unless the file ends: how much of it.
Result<size_t> AttachmentSource::read_fully(const Opened& file, ByteSpan buffer) const {
  size_t filled = 0;
  while (filled < buffer.size()) {
    pollfd entry{file.fd.get(), POLLIN, 0};
    if (stopping_.load()) {
      return fail(ErrorKind::kVoid, "nobody takes the attachments any more");
    }
    if (::poll(&entry, 1, kLookMilliseconds) <= 0) {
      continue;
    }
    const ssize_t count = ::read(file.fd.get(), &buffer[filled], buffer.size() - filled);
    if (count < 0 && errno != EINTR && errno != EAGAIN) {
      return fail_errno(errno, "read " + file.path);
    }
    if (count == 0) {
      break;
    }
    filled += count > 0 ? static_cast<size_t>(count) : 0;
  }
  return filled;
}

Result<> AttachmentSource::read(uint32_t index) {
  const Opened& file = files_[index];
  std::vector<std::byte> buffer(kPieceBytes);
  uint64_t offset = 0;
  for (;;) {
    CKPT_ASSIGN(const size_t filled, read_fully(file, buffer));
    if (filled == 0) {
      return {};
    }
    auto piece = encode_piece(offset, ByteSpan(buffer).first(filled), {});
    if (copy_ != nullptr) {
      copy_->add(index, piece);
    }
    CKPT_TRY(feed_->put({index, std::move(piece)}));
    offset += filled;
  }
}

}  // namespace ckpt
