// SPDX-License-Identifier: Apache-2.0
// Files that become attachments of a checkpoint.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/fd.h"
#include "plugin/attachment_feed.h"
#include "tools/attachment_copy.h"

namespace ckpt {

// Reads the files, one after the other, into a feed, on a thread of its own. A pipe is as good as a
// file. What cannot be read aborts the feed.
class AttachmentSource {
 public:
  // words: NAME=FILE each. copy: gets every piece, too; may be empty. kInvalid; kNotFound, kIo: a
  // file cannot be opened.
  static Result<std::unique_ptr<AttachmentSource>> open(const std::vector<std::string>& words,
                                                        std::shared_ptr<AttachmentCopy> copy = {});
  ~AttachmentSource();
  AttachmentSource(const AttachmentSource&) = delete;
  AttachmentSource& operator=(const AttachmentSource&) = delete;

  [[nodiscard]] const std::shared_ptr<AttachmentFeed>& feed() const { return feed_; }

 private:
  struct Opened {
    std::string path;
    UniqueFd fd;
  };
  AttachmentSource(std::vector<Opened> files, std::shared_ptr<AttachmentFeed> feed,
                   std::shared_ptr<AttachmentCopy> copy);
  void read_all();
  Result<> read(uint32_t index);
  Result<size_t> read_fully(const Opened& file, ByteSpan buffer) const;

  std::vector<Opened> files_;  // by the reader: open until they are read, or nobody wants them
  const std::shared_ptr<AttachmentFeed> feed_;
  const std::shared_ptr<AttachmentCopy> copy_;
  std::atomic<bool> stopping_{false};
  std::thread reader_;
};

}  // namespace ckpt
