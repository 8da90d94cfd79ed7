// SPDX-License-Identifier: Apache-2.0
#include "tools/saved_processes.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <thread>

#include "common/clock.h"
#include "tools/criu.h"
#include "tools/program.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::hours kUnpackPatience{12};
constexpr const char* kLock = "restore.lock";
constexpr std::chrono::seconds kLockPatience{60};
constexpr std::chrono::milliseconds kLockLook{20};

}  // namespace

Result<> check_has_processes(const CheckpointInfo& checkpoint) {
  return find_attachment(checkpoint, kProcessAttachment)
             ? Result<>()
             : Result<>(fail(ErrorKind::kNotFound,
                             fmt::format("checkpoint {} has no attachment {}: it was made without "
                                         "--criu",
                                         checkpoint.id.number.value, kProcessAttachment)));
}

Result<RestoreLock> RestoreLock::take(const std::string& state) {
  const std::string path = state + "/" + kLock;
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) {
    return fail_errno(errno, "open " + path);
  }
  const SteadyTime deadline = system_clock().steady() + kLockPatience;
  while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (system_clock().steady() >= deadline) {
      return fail(ErrorKind::kBusy,
                  path +
                      ": another command works on the processes or the machine of this volume, or "
                      "CRIU does for one that was killed");
    }
    std::this_thread::sleep_for(kLockLook);
  }
  return RestoreLock(std::move(fd));
}

Result<> SavedProcesses::fetch() {
  CKPT_ASSIGN(const std::string text,
              attachments_.fetch_text(kProcessAttachment, kProcessRecordBytesMax));
  CKPT_ASSIGN(record_, decode_process_record(text));
  for (const TreeRecord& tree : record_.trees) {
    CKPT_TRY(fetch_images(tree));
  }
  return {};
}

std::vector<ProcessIdentity> SavedProcesses::processes() const {
  std::vector<ProcessIdentity> all;
  for (const TreeRecord& tree : record_.trees) {
    auto these = tree.own_numbers ? living(tree.processes) : tree.processes;
    if (tree.own_numbers) {  // after a reboot others have their numbers, perhaps this very process
      std::erase_if(these, [](const auto& process) { return !has_own_numbers(process.pid); });
    }
    all.insert(all.end(), these.begin(), these.end());
  }
  return all;
}

Result<std::vector<pid_t>> SavedProcesses::restore(const std::vector<std::string>& options,
                                                   const RestoreLock& lock) const {
  std::vector<pid_t> roots;
  for (const TreeRecord& tree : record_.trees) {
    const auto restored = restore_processes({folder_of(tree), options, lock.fd()});
    if (!restored) {
      return within(
          fmt::format("the disk is that of checkpoint {} and mounted; process {} is not restored",
                      checkpoint_.id.number.value, tree.processes.front().pid),
          restored.error());
    }
    roots.push_back(*restored);
  }
  return roots;
}

std::string SavedProcesses::folder_of(const TreeRecord& tree) const {
  return folder_ + "/" + tree.attachment;
}

Result<> SavedProcesses::fetch_images(const TreeRecord& tree) {
  const std::string archive = folder_of(tree) + ".tar";
  CKPT_TRY(attachments_.fetch(tree.attachment,
                              [&archive] { return AttachmentDestination::open(archive, true); }));
  std::error_code failed;
  fs::create_directory(folder_of(tree), failed);
  const std::string tar = find_program("tar", "/usr/bin:/bin");
  const auto said = output_of({tar.empty() ? "tar" : tar, "--extract", "--file=" + archive,
                               "--directory=" + folder_of(tree)},
                              kUnpackPatience);
  fs::remove(archive, failed);
  return said ? Result<>() : Result<>(within("unpack " + archive, said.error()));
}

}  // namespace ckpt
