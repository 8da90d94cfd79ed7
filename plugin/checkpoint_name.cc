// SPDX-License-Identifier: Apache-2.0
#include "plugin/checkpoint_name.h"

#include <algorithm>

#include "common/text.h"

namespace ckpt {
namespace {

bool all_digits(std::string_view text) {
  return text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

Result<> check_name(std::string_view name) {
  if (name.size() > kNameBytesMax) {
    return fail(ErrorKind::kInvalid, "the name is longer than " + std::to_string(kNameBytesMax) +
                                         " bytes: give a shorter one");
  }
  if (!is_utf8(name) || has_control_character(name)) {
    return fail(ErrorKind::kInvalid,
                "the name holds control characters or is not UTF-8: give another");
  }
  if (name == "last" || (!name.empty() && all_digits(name))) {
    return fail(ErrorKind::kInvalid,
                "the name \"" + std::string(name) + "\" means a number or \"last\": give another");
  }
  return {};
}

Result<> check_message(std::string_view message) {
  if (message.size() > kMessageBytesMax) {
    return fail(ErrorKind::kInvalid, "the message is longer than " +
                                         std::to_string(kMessageBytesMax) +
                                         " bytes: give a shorter one");
  }
  if (!is_utf8(message)) {
    return fail(ErrorKind::kInvalid, "the message is not UTF-8");
  }
  return {};
}

Result<CheckpointInfo> find_checkpoint(const std::vector<CheckpointInfo>& kept,
                                       std::string_view id) {
  if (kept.empty()) {
    return fail(ErrorKind::kNotFound,
                "no checkpoint is confirmed yet: make one (ckpt-tool checkpoint)");
  }
  if (id == "last") {
    return kept.back();
  }
  for (const CheckpointInfo& checkpoint : kept) {
    const bool is_named = !id.empty() && id == checkpoint.name;
    if (is_named || id == std::to_string(checkpoint.id.number.value)) {
      return checkpoint;
    }
  }
  return fail(ErrorKind::kNotFound, "there is no checkpoint \"" + std::string(id) +
                                        "\", or it is no longer kept: see `ckpt-tool list`");
}

}  // namespace ckpt
