// SPDX-License-Identifier: Apache-2.0
// Who may do what with which volume.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/block.h"
#include "common/frame.h"

namespace ckpt {

enum class Operation : uint8_t {
  kStatus = 1,  // see which checkpoints there are, and how the store is
  kRead = 2,    // have their content
  kWrite = 4,   // be the volume's primary: ship, confirm, roll back
  kCreate = 8,  // have a volume made
};

struct AccessRule {
  std::string identity{};        // "*": anybody who may connect
  std::optional<Uuid> volume{};  // nothing: any
  uint8_t operations = 0;        // a bit each
};

// Threads: any.
class AccessList {
 public:
  // Without rules nobody may do anything.
  explicit AccessList(std::vector<AccessRule> rules) : rules_(std::move(rules)) {}
  [[nodiscard]] bool allows(const std::string& identity, const Uuid& volume,
                            Operation operation) const;
  // Whether there is any volume of which it may know the status or have the content.
  [[nodiscard]] bool lets_look(const std::string& identity) const;
  // Whether a rule is about somebody who must have proved who he is.
  [[nodiscard]] bool names_anybody() const;

 private:
  const std::vector<AccessRule> rules_;
};

// status, read, write or create. kInvalid: another word.
Result<Operation> parse_operation(const std::string& word);
const char* word_of(Operation operation);
// What a request is; a session's are all kWrite. Nothing: it needs no right of its own.
std::optional<Operation> operation_of(FrameType type);

}  // namespace ckpt
