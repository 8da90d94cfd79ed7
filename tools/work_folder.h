// SPDX-License-Identifier: Apache-2.0
// A folder for as long as a command runs.
#pragma once

#include <string>

#include "common/fd.h"
#include "common/result.h"

namespace ckpt {

// Where programs may be executed and listen, and paths are short: $TMPDIR, or /tmp.
std::string short_base();

// Removed with all that is in it at the end. Locked (flock(2)) meanwhile, so that the next command
// can tell what one that was killed has left behind.
class WorkFolder {
 public:
  // A new one in `base`, called "KIND.XXXXXX", that only this user can enter. Those of this kind
  // that nobody has any more are removed.
  static Result<WorkFolder> make(const std::string& base, const std::string& kind);
  WorkFolder(WorkFolder&& other) noexcept;
  WorkFolder& operator=(WorkFolder&& other) = delete;
  ~WorkFolder();

  [[nodiscard]] const std::string& path() const { return path_; }
  // It stays, under this name beside where it was, unless something else has that. Where it is
  // then.
  std::string keep_as(const std::string& name);

 private:
  WorkFolder(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;  // empty: moved away, or kept
  UniqueFd lock_;
};

}  // namespace ckpt
