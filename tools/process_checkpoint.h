// SPDX-License-Identifier: Apache-2.0
// A checkpoint of a disk together with processes that work on it: one number for both.
#pragma once

#include "tools/asked_checkpoint.h"
#include "tools/criu.h"
#include "tools/mounted_disk.h"
#include "tools/open_volume.h"
#include "tools/work_folder.h"

namespace ckpt {

struct ProcessOptions {
  std::vector<pid_t> pids;                // each with all that descend from it
  std::vector<std::string> mounts;        // of the volume's disk
  std::vector<std::string> attach;        // NAME=FILE, besides
  std::vector<std::string> criu_options;  // more words for CRIU
  std::string images;                     // where they are left; empty: nowhere
  bool end_processes = false;             // by the dump, when the checkpoint exists
  // Asked when all stand still: whether what was dumped is worth a checkpoint. May be empty.
  std::function<Result<>()> check_frozen{};
};

// What the processes waited for.
struct FreezeTimes {
  std::optional<std::chrono::microseconds> frozen;  // all of it, as CRIU says
  std::chrono::nanoseconds sync{};                  // of the file systems, meanwhile
  std::chrono::nanoseconds cut{};                   // from the request to the cut
};

struct ProcessOutcome {
  CheckpointOutcome made;
  FreezeTimes freeze;
  std::string images;     // of this checkpoint, if they are left
  std::string no_copy{};  // why there is none in attachments=, if there should be
};

// CRIU freezes the processes and writes what they are; then, while all stand still, the file
// systems are synced and the disk is cut; then they go on, while the checkpoint comes to exist.
//
// Threads: one. Blocks until the checkpoint exists.
// Failure: kVoid: the processes run on, and there is no checkpoint. Else as VolumeApi::checkpoint.
class ProcessCheckpoint {
 public:
  // Looks at everything, and starts nothing.
  static Result<std::unique_ptr<ProcessCheckpoint>> prepare(const OpenedVolume& opened,
                                                            CheckpointRequest request,
                                                            ProcessOptions options);
  ~ProcessCheckpoint();
  ProcessCheckpoint(const ProcessCheckpoint&) = delete;
  ProcessCheckpoint& operator=(const ProcessCheckpoint&) = delete;

  Result<ProcessOutcome> make();

 private:
  ProcessCheckpoint(VolumeApi& volume, CheckpointRequest request, ProcessOptions options,
                    MountedDisk disk)
      : volume_(volume),
        request_(std::move(request)),
        options_(std::move(options)),
        disk_(std::move(disk)) {}
  Result<> open_pipes();
  Result<> make_folders(const std::string& state);
  [[nodiscard]] std::string folder_of(size_t tree) const;
  // Dumps this process and those after it; the innermost one cuts.
  Result<> dump(size_t tree);
  Result<> on_action(size_t tree, const std::string& action);
  Result<> all_stand_still();
  Result<> sync_all();
  Result<> cut();
  // What was dumped, into the pipes; then waits for the checkpoint.
  Result<> save();
  Result<> save_all();
  [[nodiscard]] ProcessRecord record() const;
  void give_up(const Error& why);

  VolumeApi& volume_;
  CheckpointRequest request_;
  const ProcessOptions options_;
  MountedDisk disk_;
  VolumeStatus status_;
  std::optional<WorkFolder> folder_;  // of the images
  std::string no_copy_;
  std::optional<AttachmentPipes> pipes_;
  std::optional<AskedCheckpoint> asked_;
  std::optional<HookSocket> hook_;
  std::vector<TreeRecord> trees_;
  FreezeTimes freeze_;
  Epoch number_;
};

}  // namespace ckpt
