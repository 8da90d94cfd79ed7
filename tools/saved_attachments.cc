// SPDX-License-Identifier: Apache-2.0
#include "tools/saved_attachments.h"

#include <algorithm>

#include "tools/attachment_copy.h"

namespace ckpt {
namespace {

// Pieces come in order.
class TextDestination final : public Destination {
 public:
  explicit TextDestination(size_t bytes_max) : bytes_max_(bytes_max) {}

  Result<> begin(const CheckpointInfo& /*checkpoint*/, uint64_t size_bytes) override {
    text_.clear();
    return size_bytes <= bytes_max_
               ? Result<>()
               : Result<>(fail(ErrorKind::kCorrupt, "a record of " + std::to_string(size_bytes) +
                                                        " bytes: that is too long"));
  }
  Result<> write(uint64_t /*offset*/, ConstByteSpan data) override {
    text_.append(reinterpret_cast<const char*>(data.data()), data.size());  // NOLINT: bytes
    return {};
  }
  Result<> zero(ByteRange /*range*/) override { return {}; }
  Result<> finish() override { return {}; }

  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  const size_t bytes_max_;
  std::string text_;
};

}  // namespace

std::optional<AttachmentInfo> find_attachment(const CheckpointInfo& checkpoint,
                                              const std::string& name) {
  const auto found = std::ranges::find(checkpoint.attachments, name, &AttachmentInfo::name);
  return found != checkpoint.attachments.end() ? std::optional(*found) : std::nullopt;
}

Result<> SavedAttachments::fetch(const std::string& name, const Opener& open) {
  const std::string number = std::to_string(checkpoint_.id.number.value);
  const auto info = find_attachment(checkpoint_, name);
  if (!info) {
    return fail(ErrorKind::kNotFound, "checkpoint " + number + " has no attachment " + name);
  }
  const VolumeStatus status = volume_.status();
  const std::string& base = status.attachments_folder;
  if (!base.empty() && fetch_copy(base, status.volume, *info, open)) {
    return {};
  }
  is_from_copy_ = false;
  CKPT_ASSIGN(auto destination, open());
  CKPT_TRY(destination.begin(*info));
  CKPT_TRY(volume_.read_attachment(number, name, destination));
  return destination.finish();
}

Result<> SavedAttachments::fetch_copy(const std::string& base, const Uuid& volume,
                                      const AttachmentInfo& info, const Opener& open) const {
  CKPT_ASSIGN(auto destination, open());
  CKPT_TRY(destination.begin(info));
  CKPT_TRY(read_attachment_copy(base, volume, checkpoint_.id.number, info, destination));
  return destination.finish();
}

Result<std::string> SavedAttachments::fetch_text(const std::string& name, size_t bytes_max) {
  const auto text = std::make_shared<TextDestination>(bytes_max);  // with each destination
  CKPT_TRY(fetch(name, [&text]() -> Result<AttachmentDestination> {
    return AttachmentDestination::into(text);
  }));
  return text->text();
}

}  // namespace ckpt
