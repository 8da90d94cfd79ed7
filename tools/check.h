// SPDX-License-Identifier: Apache-2.0
// One thing that `doctor` looked at.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ckpt {

enum class Outcome {
  kOk,
  kNote,    // works, but not as well as it could, or without something that not everybody needs
  kFailed,  // would not work
};

struct Check {
  std::string name{};  // for scripts too: never changed
  Outcome outcome = Outcome::kOk;
  std::string detail{};  // what there is
  std::string advice{};  // what to do; empty if and only if the outcome is kOk
};

inline Check passed(std::string name, std::string detail) {
  return {std::move(name), Outcome::kOk, std::move(detail), ""};
}
inline Check noted(std::string name, std::string detail, std::string advice) {
  return {std::move(name), Outcome::kNote, std::move(detail), std::move(advice)};
}
inline Check failed(std::string name, std::string detail, std::string advice) {
  return {std::move(name), Outcome::kFailed, std::move(detail), std::move(advice)};
}

}  // namespace ckpt
