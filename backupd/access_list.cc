// SPDX-License-Identifier: Apache-2.0
#include "backupd/access_list.h"

#include <algorithm>
#include <array>

namespace ckpt {
namespace {

struct OperationRow {
  Operation operation;
  const char* word;
};

constexpr std::array<OperationRow, 4> kOperations{{
    {Operation::kStatus, "status"},
    {Operation::kRead, "read"},
    {Operation::kWrite, "write"},
    {Operation::kCreate, "create"},
}};

}  // namespace

bool AccessList::allows(const std::string& identity, const Uuid& volume,
                        Operation operation) const {
  return std::ranges::any_of(rules_, [&](const AccessRule& rule) {
    const bool is_it = rule.identity == "*" || rule.identity == identity;
    const bool is_there = !rule.volume || *rule.volume == volume;
    return is_it && is_there && (rule.operations & static_cast<uint8_t>(operation)) != 0;
  });
}

bool AccessList::lets_look(const std::string& identity) const {
  constexpr auto kLook =
      static_cast<uint8_t>(Operation::kStatus) | static_cast<uint8_t>(Operation::kRead);
  return std::ranges::any_of(rules_, [&](const AccessRule& rule) {
    return (rule.identity == "*" || rule.identity == identity) && (rule.operations & kLook) != 0;
  });
}

bool AccessList::names_anybody() const {
  return std::ranges::any_of(rules_, [](const AccessRule& rule) { return rule.identity != "*"; });
}

Result<Operation> parse_operation(const std::string& word) {
  const auto* const row = std::ranges::find_if(
      kOperations, [&](const OperationRow& candidate) { return word == candidate.word; });
  return row == kOperations.end()
             ? fail(ErrorKind::kInvalid,
                    "\"" + word + "\": an operation is status, read, write or create")
             : Result<Operation>(row->operation);
}

const char* word_of(Operation operation) {
  const auto* const row = std::ranges::find_if(
      kOperations, [&](const OperationRow& candidate) { return operation == candidate.operation; });
  CKPT_CHECK(row != kOperations.end());
  return row->word;
}

std::optional<Operation> operation_of(FrameType type) {
  switch (type) {
    case FrameType::kRead:
    case FrameType::kNextData:
    case FrameType::kReadRanges:
    case FrameType::kDigests:
    case FrameType::kStale:
    case FrameType::kReadAttachment:
    case FrameType::kExport: return Operation::kRead;
    case FrameType::kCheckpoints:
    case FrameType::kStatus: return Operation::kStatus;
    case FrameType::kBeginSession:
    case FrameType::kAccept:
    case FrameType::kBatch:
    case FrameType::kAttach:
    case FrameType::kConfirm:
    case FrameType::kConfirmCopy:
    case FrameType::kForks:
    case FrameType::kName:
    case FrameType::kPromote:
    case FrameType::kStop:
    case FrameType::kRollBack: return Operation::kWrite;
    case FrameType::kHello:
    case FrameType::kVolumes:
    case FrameType::kRelease:  // by whoever is on this machine, and nobody else
    case FrameType::kPing: return std::nullopt;
    default: return Operation::kWrite;
  }
}

}  // namespace ckpt
