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
#include "tools/attachment_copy.h"
#include "tools/attachment_destination.h"
#include "tools/criu.h"
#include "tools/program.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::hours kUnpackPatience{12};
constexpr const char* kLock = "restore.lock";
constexpr std::chrono::seconds kLockPatience{60};
constexpr std::chrono::milliseconds kLockLook{20};

Result<AttachmentInfo> find_attachment(const CheckpointInfo& checkpoint, const std::string& name) {
  const auto found = std::ranges::find(checkpoint.attachments, name, &AttachmentInfo::name);
  return found != checkpoint.attachments.end()
             ? Result<AttachmentInfo>(*found)
             : Result<AttachmentInfo>(fail(
                   ErrorKind::kNotFound,
                   fmt::format("checkpoint {} has no attachment {}: it was made without --criu",
                               checkpoint.id.number.value, name)));
}

}  // namespace

Result<> check_has_processes(const CheckpointInfo& checkpoint) {
  const auto found = find_attachment(checkpoint, kProcessAttachment);
  return found ? Result<>() : Result<>(Unexpected(found.error()));
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
      return fail(ErrorKind::kBusy, path +
                                        ": processes of this volume are just being restored, by "
                                        "another command, or by CRIU for one that was killed");
    }
    std::this_thread::sleep_for(kLockLook);
  }
  return RestoreLock(std::move(fd));
}

Result<> SavedProcesses::fetch() {
  status_ = volume_.status();
  CKPT_ASSIGN(const std::string text, fetch_text(kProcessAttachment));
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

// Out of the copy if there is a good one, else from the back-up.
Result<> SavedProcesses::fetch_to(const std::string& name, const std::string& path) {
  CKPT_ASSIGN(const AttachmentInfo found, find_attachment(checkpoint_, name));
  if (!status_.attachments_folder.empty() && copy_to(found, path)) {
    return {};
  }
  is_from_copy_ = false;
  CKPT_ASSIGN(auto destination, AttachmentDestination::open(path, true));
  CKPT_TRY(destination.begin(found));
  CKPT_TRY(volume_.read_attachment(std::to_string(checkpoint_.id.number.value), name, destination));
  return destination.finish();
}

Result<> SavedProcesses::copy_to(const AttachmentInfo& info, const std::string& path) {
  CKPT_ASSIGN(auto destination, AttachmentDestination::open(path, true));
  CKPT_TRY(destination.begin(info));
  CKPT_TRY(read_attachment_copy(status_.attachments_folder, status_.volume, checkpoint_.id.number,
                                info, destination));
  return destination.finish();
}

Result<std::string> SavedProcesses::fetch_text(const std::string& name) {
  const std::string path = folder_ + "/" + name;
  CKPT_TRY(fetch_to(name, path));
  return content_of(path, kProcessRecordBytesMax + 1);
}

Result<> SavedProcesses::fetch_images(const TreeRecord& tree) {
  const std::string archive = folder_of(tree) + ".tar";
  CKPT_TRY(fetch_to(tree.attachment, archive));
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
