// SPDX-License-Identifier: Apache-2.0
#include "tools/process_checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "common/clock.h"
#include "plugin/control_codec.h"
#include "plugin/control_socket.h"
#include "tools/program.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::hours kArchivePatience{12};

std::string attachment_of(size_t tree) { return "criu-" + std::to_string(tree); }

std::string path_of(int fd) {
  return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd);
}

// The server would be frozen with them, and they would wait for it.
Result<> check_server_is_outside(pid_t root, pid_t server) {
  CKPT_ASSIGN(const auto tree, process_tree(root));
  return std::ranges::find(tree, server, &ProcessIdentity::pid) == tree.end()
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid,
                             "the volume's server, process " + std::to_string(server) +
                                 ", descends from process " + std::to_string(root) +
                                 " and would be frozen with it: start the server from elsewhere"));
}

Result<> check_processes(const std::vector<pid_t>& pids, const std::string& state) {
  CKPT_ASSIGN(const ControlConnection connection, ControlConnection::connect(state));
  CKPT_ASSIGN(const pid_t server, connection.peer_pid());
  for (const pid_t pid : pids) {
    CKPT_TRY(check_can_freeze(pid));
    CKPT_TRY(check_server_is_outside(pid, server));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<ProcessCheckpoint>> ProcessCheckpoint::prepare(const OpenedVolume& opened,
                                                                      CheckpointRequest request,
                                                                      ProcessOptions options) {
  CKPT_TRY(find_criu());
  const VolumeStatus status = opened.volume->status();
  if (!opened.served || status.state.empty()) {
    return fail(ErrorKind::kNotFound,
                opened.paths.image + ": no server runs: nothing can be mounted from its disk");
  }
  CKPT_TRY(check_processes(options.pids, opened.paths.state));
  CKPT_TRY(check_takes_checkpoint(status));
  CKPT_ASSIGN(MountedDisk disk, MountedDisk::find(options.mounts, status));
  std::unique_ptr<ProcessCheckpoint> checkpoint(new ProcessCheckpoint(
      *opened.volume, std::move(request), std::move(options), std::move(disk)));
  checkpoint->status_ = status;
  CKPT_TRY(checkpoint->make_folders(opened.paths.state));
  CKPT_TRY(checkpoint->open_pipes());
  CKPT_ASSIGN(HookSocket hook, HookSocket::make());
  checkpoint->hook_.emplace(std::move(hook));
  return checkpoint;
}

ProcessCheckpoint::~ProcessCheckpoint() { give_up({ErrorKind::kVoid, 0, "it was given up"}); }

Result<> ProcessCheckpoint::make_folders(const std::string& state) {
  const std::string base = options_.images.empty() ? state : options_.images;
  CKPT_TRY(check_elsewhere(base, disk_.mounts()));
  CKPT_ASSIGN(WorkFolder folder, WorkFolder::make(base, "criu"));
  folder_.emplace(std::move(folder));
  for (size_t i = 0; i < options_.pids.size(); ++i) {
    std::error_code failed;
    fs::create_directory(folder_of(i), failed);
    if (failed) {
      return fail_errno(failed.value(), "make " + folder_of(i));
    }
  }
  return {};
}

std::string ProcessCheckpoint::folder_of(size_t tree) const {
  return folder_->path() + "/" + attachment_of(tree);
}

Result<> ProcessCheckpoint::open_pipes() {
  std::vector<std::string> names{kProcessAttachment};
  for (size_t i = 0; i < options_.pids.size(); ++i) {
    names.push_back(attachment_of(i));
  }
  std::string base = status_.attachments_folder;
  if (const auto elsewhere = base.empty() ? Result<>() : check_elsewhere(base, disk_.mounts());
      !elsewhere) {
    no_copy_ = elsewhere.error().message();
    base.clear();
  }
  CKPT_ASSIGN(AttachmentPipes pipes,
              AttachmentPipes::open(names, options_.attach, base, status_.volume));
  pipes_.emplace(std::move(pipes));
  request_.attachments = pipes_->feed();
  asked_.emplace(volume_, request_);
  return {};
}

Result<ProcessOutcome> ProcessCheckpoint::make() {
  auto dumped = dump(0);
  if (dumped && number_.value == 0) {
    dumped = fail(ErrorKind::kVoid, "CRIU has not run its action script");
  }
  if (dumped && !asked_->outcome()) {
    dumped = save();
  }
  if (const auto& made = asked_->outcome(); !dumped && made && *made) {
    return fail(ErrorKind::kHalfway,
                "checkpoint " + std::to_string(number_.value) +
                    " exists, but CRIU has not ended the processes: " + dumped.error().message());
  }
  if (!dumped) {
    give_up(dumped.error());
    return Unexpected(dumped.error());
  }
  freeze_.frozen = frozen_time(folder_of(0));
  const std::string no_copy = pipes_->keep_copy(number_);
  const std::string number = std::to_string(number_.value);
  return ProcessOutcome{**asked_->outcome(), freeze_,
                        options_.images.empty() ? "" : folder_->keep_as(number),
                        no_copy_.empty() ? no_copy : no_copy_};
}

Result<> ProcessCheckpoint::dump(size_t tree) {
  const CriuDump dump{options_.pids[tree], folder_of(tree), !options_.end_processes,
                      options_.criu_options};
  return dump_processes(
      dump, *hook_, [this, tree](const std::string& action) { return on_action(tree, action); });
}

Result<> ProcessCheckpoint::on_action(size_t tree, const std::string& action) {
  if (action == "pre-dump") {
    return sync_all();  // most of what is cached is written while the processes still run
  }
  if (action != "post-dump") {
    return {};
  }
  CKPT_ASSIGN(auto processes, process_tree(options_.pids[tree]));
  trees_.push_back(
      {attachment_of(tree), std::move(processes), has_own_numbers(options_.pids[tree])});
  return tree + 1 < options_.pids.size() ? dump(tree + 1) : all_stand_still();
}

// And the images of all are there.
Result<> ProcessCheckpoint::all_stand_still() {
  CKPT_TRY(options_.check_frozen ? options_.check_frozen() : Result<>());
  CKPT_TRY(cut());
  for (size_t i = 0; i < options_.pids.size(); ++i) {
    CKPT_TRY(write_image_note(folder_of(i), {status_.volume, status_.timeline, number_}));
  }
  // None ends before the checkpoint exists.
  return options_.end_processes ? save() : Result<>();
}

Result<> ProcessCheckpoint::sync_all() {
  for (const Mount& mount : disk_.mounts()) {
    CKPT_TRY(sync_mount(mount));
  }
  return {};
}

Result<> ProcessCheckpoint::cut() {
  const SteadyTime frozen = system_clock().steady();
  CKPT_TRY(sync_all());
  const SteadyTime synced = system_clock().steady();
  asked_->ask();
  CKPT_ASSIGN(number_, asked_->await_cut());
  freeze_.sync = synced - frozen;
  freeze_.cut = system_clock().steady() - synced;
  return {};
}

Result<> ProcessCheckpoint::save() {
  const auto saved = save_all();
  if (!saved) {
    // Why nobody takes it any more says more than that nobody does.
    pipes_->feed()->abort(saved.error());
  }
  const auto made = asked_->await();
  return made ? Result<>() : Result<>(Unexpected(made.error()));
}

Result<> ProcessCheckpoint::save_all() {
  const std::string tar = find_program("tar", "/usr/bin:/bin");
  CKPT_TRY(pipes_->put_text(encode_process_record(record()), kProcessRecordBytesMax));
  for (size_t i = 0; i < trees_.size(); ++i) {
    UniqueFd& pipe = pipes_->in(i + 1);
    const auto said =
        output_of({tar.empty() ? "tar" : tar, "--create", "--file=" + path_of(pipe.get()),
                   "--directory=" + folder_of(i), "."},
                  kArchivePatience);
    if (!said) {
      return within("save the images of process " + std::to_string(options_.pids[i]), said.error());
    }
    pipe.reset();
  }
  return {};
}

ProcessRecord ProcessCheckpoint::record() const {
  ProcessRecord record{disk_.disk().device,   disk_.disk().block_bytes, {}, trees_,
                       options_.criu_options, disk_.disk().file};
  for (const Mount& mount : disk_.mounts()) {
    record.mounts.push_back({mount.point, mount.source, mount.type, mount.options});
  }
  return record;
}

// Nobody waits for anything any more; there will be no checkpoint, unless it exists already.
void ProcessCheckpoint::give_up(const Error& why) {
  if (pipes_) {
    pipes_->feed()->abort(why);
    pipes_->close();
  }
  if (asked_) {
    asked_->give_up(why);
  }
}

}  // namespace ckpt
