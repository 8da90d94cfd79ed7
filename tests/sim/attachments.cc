// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/attachments.h"

namespace ckpt::sim {
namespace {

constexpr uint64_t kPieceMax = 3000;

SeededRandom random_of(const std::string& checkpoint) {
  return SeededRandom(0xa77ac4).stream(checkpoint);
}

std::vector<std::byte> piece_of(ConstByteSpan content, uint64_t offset) {
  const uint64_t length = std::min<uint64_t>(kPieceMax, content.size() - offset);
  return encode_piece(offset, content.subspan(offset, length), {Codec::kNone, 0});
}

// False: nobody takes any more.
bool bring_one(Scheduler& scheduler, AttachmentFeed& feed, uint32_t index,
               const std::vector<std::byte>& content) {
  for (uint64_t offset = 0; offset < content.size(); offset += kPieceMax) {
    scheduler.sleep(std::chrono::microseconds(scheduler.choices().below(500)));
    if (!feed.put({index, piece_of(content, offset)})) {
      return false;
    }
  }
  return true;
}

void bring_all(Scheduler& scheduler, AttachmentFeed& feed, const std::string& checkpoint,
               bool breaks_off) {
  uint32_t index = 0;
  for (const std::string& name : feed.names()) {
    if (!bring_one(scheduler, feed, index++, attachment_content(checkpoint, name))) {
      return;
    }
    if (breaks_off) {
      feed.abort({ErrorKind::kVoid, 0, "who brought the attachments has gone"});
      return;
    }
  }
  feed.end();
}

}  // namespace

std::vector<std::string> attachment_names(const std::string& checkpoint) {
  SeededRandom random = random_of(checkpoint);
  if (checkpoint.empty() || random.one_in(2)) {
    return {};
  }
  return random.one_in(2) ? std::vector<std::string>{"memory"}
                          : std::vector<std::string>{"memory", "state"};
}

std::vector<std::byte> attachment_content(const std::string& checkpoint, const std::string& name) {
  SeededRandom random = random_of(checkpoint).stream(name);
  std::vector<std::byte> content(random.between(1, 10000));
  for (std::byte& byte : content) {
    byte = static_cast<std::byte>(random.below(256));
  }
  return content;
}

std::shared_ptr<AttachmentFeed> bring_attachments(Scheduler& scheduler,
                                                  const std::string& checkpoint, bool breaks_off) {
  const auto names = attachment_names(checkpoint);
  if (names.empty()) {
    return nullptr;
  }
  std::shared_ptr<AttachmentFeed> feed = AttachmentFeed::make(names).value();
  scheduler.spawn(
      scheduler.process(), "bring",
      [&scheduler, feed, checkpoint, breaks_off] {
        bring_all(scheduler, *feed, checkpoint, breaks_off);
      },
      FiberKind::kBackground);
  return feed;
}

Result<> ReadAttachment::take(const PieceHeader& header, ConstByteSpan piece) {
  std::vector<std::byte> raw;
  CKPT_TRY(decode_piece(header, piece, raw));
  content_.insert(content_.end(), raw.begin(), raw.end());
  return {};
}

}  // namespace ckpt::sim
