// SPDX-License-Identifier: Apache-2.0
// ckpt-tool run
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <thread>

#include "plugin/checkpoint_name.h"
#include "plugin/schedule.h"
#include "tools/command.h"
#include "tools/command_output.h"
#include "tools/contained_command.h"
#include "tools/format.h"
#include "tools/fuse_disk.h"
#include "tools/mounted_disk.h"
#include "tools/process_checkpoint.h"
#include "tools/program.h"
#include "tools/run_folder.h"
#include "tools/saved_processes.h"
#include "tools/stop_signal.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr CommandHelp kRunHelp{
    "run", "Runs a command on the volume's disk, and brings both back when it fails",
    "Attaches and mounts the disk, and starts the command in PID and mount namespaces of its own.\n"
    "Checkpoints of the disk and of the command are made every so many seconds, and when the\n"
    "command asks: `ckpt-tool checkpoint --self`. When it is killed by a signal or ends with\n"
    "another exit code than 0, disk and command go back to the last checkpoint together, and go\n"
    "on. Where that happens again and again without a new checkpoint, this command gives up.\n"
    "The command's input is empty; its output comes out here, and is kept in IMAGE.ckpt/run/log.\n"
    "With SIGTERM or SIGINT the command is asked to end, or with --suspend saved. With --resume "
    "it\n"
    "goes on from the last checkpoint, as after a loss of power. Needs root, CRIU, and "
    "nbd-client,\n"
    "or nbdfuse where the kernel has no NBD client: see `ckpt-tool doctor`.\n\n"
    "  ckpt-tool run disk.img --fs /mnt/data --every 10 -- /usr/bin/my-server --verbose",
    true, true};

constexpr std::chrono::milliseconds kRunLook{20};
constexpr std::chrono::seconds kStopPatience{10};
constexpr std::chrono::seconds kKillPatience{60};
constexpr std::chrono::milliseconds kCopyLook{200};
constexpr size_t kOutputPieces = 64;
constexpr size_t kAllPieces = std::numeric_limits<size_t>::max();

struct RunOptions {
  std::string fs;
  double every_seconds = 0;
  double timeout_seconds = 60;
  std::string retries = "3";
  bool resume = false;
  bool suspend = false;
  std::vector<std::string> criu_options;
  std::vector<std::string> words;
};

Result<unsigned> parse_retries(const std::string& text) {
  unsigned count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  return error == std::errc() && end == text.data() + text.size()
             ? Result<unsigned>(count)
             : Result<unsigned>(
                   fail(ErrorKind::kInvalid, "--retries " + text + ": give a number, 0 or more"));
}

Unexpected made_by_others(const CheckpointInfo& checkpoint) {
  return fail(ErrorKind::kNotFound,
              fmt::format("checkpoint {}{} was made by somebody else, without the command, and is "
                          "the only one kept: the command cannot be brought back",
                          checkpoint.id.number.value, quoted_name(checkpoint)));
}

// Whether a command that was just frozen would go on, and not be brought back dead or dying: one
// that was killed before it stood still, or is told to end while it does.
Result<> check_goes_on(pid_t root) {
  if (has_ended_child(root)) {
    return fail(ErrorKind::kVoid, "a process of the command has just ended");
  }
  const int signal = ending_signal(root);
  return signal == 0
             ? Result<>()
             : Result<>(fail(ErrorKind::kVoid,
                             fmt::format("the command is just ended by signal {}", signal)));
}

// The command looks for its files where they were.
Result<> check_same_mount(const ProcessRecord& record, const std::string& point) {
  const bool is_same = record.mounts.size() == 1 && record.mounts.front().point == point;
  return is_same || record.mounts.empty()
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid, "at the checkpoint the disk was mounted at " +
                                                      record.mounts.front().point +
                                                      ": give that with --fs"));
}

// The patent's Fig. 9: a command that checkpoints itself with its files, and is restarted.
class Run {
 public:
  Run(Context& context, const OpenedVolume& opened, RunOptions options, unsigned retries,
      RunFolder folder)
      : console_(context.console),
        opened_(opened),
        options_(std::move(options)),
        retries_(retries),
        folder_(std::move(folder)),
        output_(folder_.log()) {}

  Result<int> run();

 private:
  Result<> end_leftover() const;
  Result<MountedDisk> find_disk(const ProcessRecord* record) const;
  Result<> bring_up();
  Result<std::optional<CheckpointInfo>> resumed();
  Result<> begin();
  Result<> begin_anew();
  void await_first_copy() const;
  Result<> start();
  Result<> watch();
  // So many pieces of the command's output, if there are.
  void relay(size_t pieces);
  std::optional<int> ended();
  void checkpoint(const std::vector<std::string>& asks);
  void suspend();
  void tell_made(const Result<ProcessOutcome>& made);
  Result<ProcessOutcome> make_checkpoint(bool end_processes);
  Result<> recover(int exit_code);
  Result<> go_back(const CheckpointInfo& target);
  Result<> go_back_with_processes(const CheckpointInfo& target);
  Result<> roll_back(const CheckpointInfo& target, const ProcessRecord* record);
  Result<> follow(pid_t root);
  Result<> stop();
  Result<> take_down();
  [[nodiscard]] std::chrono::milliseconds timeout() const {
    return std::chrono::ceil<std::chrono::milliseconds>(
        std::chrono::duration<double>(options_.timeout_seconds));
  }
  // Both for people and for scripts.
  void tell(const std::string& event, const std::string& text, Json fields = {});

  Console& console_;
  const OpenedVolume& opened_;
  const RunOptions options_;
  const unsigned retries_;
  RunFolder folder_;
  CommandOutput output_;
  std::optional<MountedDisk> brought_up_;  // by this command, which takes it down again
  pid_t root_ = 0;                         // the command's first process; 0: none runs
  Epoch base_;                             // the checkpoint of the disk without the command
  std::optional<Schedule> schedule_;       // of checkpoints, since the command runs
  unsigned failures_ = 0;                  // since the last checkpoint
  uint64_t checkpoints_ = 0;
  uint64_t restores_ = 0;
};

void Run::tell(const std::string& event, const std::string& text, Json fields) {
  Json all{{"event", event}, {"time", format_time(system_clock().wall())}};
  all.update(fields.is_null() ? Json::object() : fields);
  console_.event(all);
  if (!console_.verbosity().json) {
    console_.remark("ckpt-tool: " + text);
  }
}

Result<int> Run::run() {
  CKPT_TRY(adopt_orphans());
  CKPT_TRY(end_leftover());
  auto went = begin();
  if (went) {
    went = watch();
  }
  const auto stopped = stop();
  const bool is_whole = went || went.error().kind != ErrorKind::kHalfway;
  const auto down = is_whole && stopped ? take_down() : Result<>();
  CKPT_TRY(went);
  CKPT_TRY(stopped);
  CKPT_TRY(down);
  console_.result(Json{{"checkpoints", checkpoints_}, {"restores", restores_}});
  return kExitDone;
}

void Run::relay(size_t pieces) {
  std::string text;
  do {
    text = console_.verbosity().json ? "" : output_.next();
    console_.print(text);
  } while (!text.empty() && --pieces > 0);
}

// What an earlier one has left that was killed.
Result<> Run::end_leftover() const {
  const auto left = folder_.leftover();
  if (!left) {
    return {};
  }
  if (!options_.resume) {
    return fail(ErrorKind::kBusy, fmt::format("process {} of an earlier `ckpt-tool run`, which was "
                                              "killed, still runs the command: end it, or go on "
                                              "from the last checkpoint with --resume",
                                              left->pid));
  }
  return end_processes({*left});
}

// As it was at a checkpoint, also if its server is gone; as it is mounted; else anew.
Result<MountedDisk> Run::find_disk(const ProcessRecord* record) const {
  const VolumeStatus status = opened_.volume->status();
  if (record != nullptr) {
    return MountedDisk::recorded(*record, status);
  }
  if (find_mount(options_.fs)) {
    return MountedDisk::find({options_.fs}, status);
  }
  CKPT_ASSIGN(const AttachedDisk disk, free_disk(status));
  return MountedDisk::recorded({disk.device,
                                disk.block_bytes,
                                {{options_.fs, disk.device, "auto", "rw"}},
                                {},
                                {},
                                disk.file},
                               status);
}

Result<> Run::bring_up() {
  const bool was_up = find_mount(options_.fs).has_value();
  CKPT_ASSIGN(MountedDisk disk, find_disk(nullptr));
  CKPT_TRY(disk.check());
  auto up = disk.bring_up();
  if (!up) {
    (void)disk.take_down();
    return within("attach and mount the disk", up.error());
  }
  if (!was_up) {
    brought_up_.emplace(std::move(disk));
  }
  return {};
}

// Where --resume goes on from, if there is such a checkpoint.
Result<std::optional<CheckpointInfo>> Run::resumed() {
  CKPT_ASSIGN(const auto kept, opened_.volume->checkpoints());
  base_ = folder_.base();
  const bool is_ours = options_.resume && !kept.empty() &&
                       (kept.back().id.number == base_ || check_has_processes(kept.back()));
  return is_ours ? std::optional(kept.back()) : std::nullopt;
}

// A disk that goes back first is mounted only then: what lost power may not be mountable.
Result<> Run::begin() {
  CKPT_ASSIGN(const auto target, resumed());
  if (target) {
    return go_back(*target);
  }
  CKPT_TRY(bring_up());
  return begin_anew();
}

// What the command finds now is what it finds again if it fails before its first checkpoint.
Result<> Run::begin_anew() {
  await_first_copy();
  if (stop_signal() != 0) {
    return {};
  }
  CKPT_ASSIGN(const Mount mount, find_mount(options_.fs));
  CKPT_TRY(sync_mount(mount));
  CheckpointRequest request;
  request.message = "before the start of " + options_.words.front();
  request.timeout = timeout();
  CKPT_ASSIGN(const CheckpointOutcome made, opened_.volume->checkpoint(request));
  base_ = made.checkpoint.id.number;
  CKPT_TRY(folder_.note_base(base_));
  return start();
}

// Which may take hours: a checkpoint would have to wait for it.
void Run::await_first_copy() const {
  for (;;) {
    const VolumeStatus status = opened_.volume->status();
    if (stop_signal() != 0 || !status.store || status.store->state != "syncing") {
      return;
    }
    std::this_thread::sleep_for(kCopyLook);
  }
}

Result<> Run::start() {
  folder_.forget_asks();
  CKPT_ASSIGN(const pid_t root,
              start_contained({options_.words, folder_.log(), folder_.path(), fuse_files()}));
  tell("started", fmt::format("process {} runs {}", root, options_.words.front()),
       Json{{"process", root}});
  return follow(root);
}

Result<> Run::follow(pid_t root) {
  root_ = root;
  schedule_.emplace(std::chrono::duration_cast<std::chrono::nanoseconds>(
                        std::chrono::duration<double>(options_.every_seconds)),
                    system_clock().steady());
  return folder_.note_root(root);
}

// Nothing: it runs. Its exit code else.
std::optional<int> Run::ended() {
  const auto code = reap(root_);
  if (code) {
    root_ = 0;
  }
  return code;
}

Result<> Run::watch() {
  for (;;) {
    relay(kOutputPieces);  // a command that never stops talking does not keep all else waiting
    if (const auto code = ended()) {
      relay(kAllPieces);
      // Who stops a service may signal all its processes at once: that is no failure.
      if (*code == 0 || stop_signal() != 0) {
        tell("ended", "the command " + how_it_ended(*code), Json{{"exit_code", *code}});
        return {};
      }
      CKPT_TRY(recover(*code));
    } else if (stop_signal() != 0) {
      tell("stopping", fmt::format("stops: signal {}", stop_signal()),
           Json{{"signal", stop_signal()}});
      if (options_.suspend) {
        suspend();
      }
      return {};
    } else if (const auto asks = folder_.asks();
               !asks.empty() || schedule_->passed(system_clock().steady()) > 0) {
      checkpoint(asks);
    }
    std::this_thread::sleep_for(kRunLook);
  }
}

Result<ProcessOutcome> Run::make_checkpoint(bool end_processes) {
  ProcessOptions options;
  options.pids = {root_};
  options.mounts = {options_.fs};
  options.criu_options = contained_options();
  options.criu_options.insert(options.criu_options.end(), options_.criu_options.begin(),
                              options_.criu_options.end());
  options.end_processes = end_processes;
  options.check_frozen = [this] { return check_goes_on(root_); };
  CheckpointRequest request;
  request.timeout = timeout();
  CKPT_ASSIGN(const auto checkpoint,
              ProcessCheckpoint::prepare(opened_, std::move(request), std::move(options)));
  return checkpoint->make();
}

// The command runs on whether there is one or not.
void Run::checkpoint(const std::vector<std::string>& asks) {
  const auto made = make_checkpoint(false);
  folder_.answer(asks, made ? Result<RunAnswer>(RunAnswer{made->made.checkpoint.id.number})
                            : Result<RunAnswer>(Unexpected(made.error())));
  tell_made(made);
}

// The command ends with it. If there is none, it is asked to end, as without --suspend.
void Run::suspend() {
  if (root_ != 0) {
    tell_made(make_checkpoint(true));
  }
}

void Run::tell_made(const Result<ProcessOutcome>& made) {
  if (!made) {
    tell("checkpoint-failed", "no checkpoint: " + made.error().message(),
         Json{{"message", made.error().message()}});
    return;
  }
  const Epoch number = made->made.checkpoint.id.number;
  ++checkpoints_;
  failures_ = 0;
  const auto frozen = made->freeze.frozen.value_or(std::chrono::microseconds(0));
  tell("checkpoint",
       fmt::format("checkpoint {}: frozen for {}", number.value, format_duration(frozen)),
       Json{{"checkpoint", number.value}, {"frozen_us", frozen.count()}});
  if (!made->no_copy.empty()) {
    tell("no-copy", "no copy of the images was kept (attachments=): " + made->no_copy,
         Json{{"message", made->no_copy}});
  }
}

Result<> Run::recover(int exit_code) {
  const std::string how = how_it_ended(exit_code);
  tell("failed", "the command " + how, Json{{"exit_code", exit_code}});
  if (++failures_ > retries_) {
    return fail(ErrorKind::kIo,
                fmt::format("the command {}; it has failed {} times without a checkpoint since, "
                            "and is given up. The disk is as it left it; `ckpt-tool run --resume` "
                            "tries again from the last checkpoint",
                            how, failures_));
  }
  CKPT_ASSIGN(const auto kept, opened_.volume->checkpoints());
  return kept.empty() ? Result<>(fail(ErrorKind::kNotFound, "there is no checkpoint any more"))
                      : go_back(kept.back());
}

Result<> Run::go_back(const CheckpointInfo& target) {
  if (check_has_processes(target)) {
    return go_back_with_processes(target);
  }
  if (target.id.number != base_) {
    return made_by_others(target);
  }
  CKPT_TRY(roll_back(target, nullptr));
  tell("rolled-back", "the disk is as before the command's start",
       Json{{"checkpoint", target.id.number.value}});
  return start();
}

Result<> Run::go_back_with_processes(const CheckpointInfo& target) {
  CKPT_ASSIGN(const RestoreLock lock, RestoreLock::take(opened_.paths.state));
  CKPT_ASSIGN(WorkFolder folder, WorkFolder::make(opened_.paths.state, "restore"));
  SavedProcesses saved(*opened_.volume, target, folder.path());
  CKPT_TRY(saved.fetch());
  if (saved.record().trees.size() != 1 || !saved.record().trees.front().own_numbers) {
    return made_by_others(target);
  }
  CKPT_TRY(check_same_mount(saved.record(), options_.fs));
  CKPT_ASSIGN(const MountedDisk disk, find_disk(&saved.record()));
  CKPT_TRY(disk.give_up_requests());
  CKPT_TRY(end_processes(saved.processes()));
  CKPT_TRY(roll_back(target, &saved.record()));
  folder_.go_back(target.id.number);
  CKPT_ASSIGN(const auto roots, saved.restore(saved.record().options, lock));
  tell("restored",
       fmt::format("disk and command are those of checkpoint {}; process {}",
                   target.id.number.value, roots.front()),
       Json{{"checkpoint", target.id.number.value}, {"process", roots.front()}});
  return follow(roots.front());
}

// The disk alone.
Result<> Run::roll_back(const CheckpointInfo& target, const ProcessRecord* record) {
  const bool was_up = find_mount(options_.fs).has_value();
  CKPT_ASSIGN(MountedDisk disk, find_disk(record));
  auto rolled =
      roll_back_below(disk, *opened_.volume, {std::to_string(target.id.number.value)}, {});
  if (!was_up) {
    brought_up_.emplace(std::move(disk));
  }
  CKPT_TRY(rolled);
  ++restores_;
  return {};
}

// Whatever still runs is asked to end, and then is ended.
Result<> Run::stop() {
  if (root_ == 0) {
    return {};
  }
  ::kill(root_, SIGTERM);
  const SteadyTime deadline = system_clock().steady() + kStopPatience;
  while (!ended() && root_ != 0) {
    const SteadyTime now = system_clock().steady();
    if (now >= deadline + kKillPatience) {
      return fail(
          ErrorKind::kBusy,
          fmt::format("process {} does not end when it is killed: it may wait for a device; "
                      "the disk is left mounted",
                      root_));
    }
    if (now >= deadline) {
      ::kill(root_, SIGKILL);
    }
    std::this_thread::sleep_for(kRunLook);
  }
  relay(kAllPieces);
  return {};
}

Result<> Run::take_down() { return brought_up_ ? brought_up_->take_down() : Result<>(); }

Result<> check_can_run(const OpenedVolume& opened, const RunOptions& options) {
  if (options.words.empty()) {
    return fail(ErrorKind::kInvalid, "give the command after --");
  }
  const char* const path = std::getenv("PATH");
  const std::string& program = options.words.front();
  if (program.find('/') == std::string::npos &&
      find_program(program, path == nullptr ? "/usr/bin:/bin" : path).empty()) {
    return fail(ErrorKind::kNotFound, program + ": no such program in $PATH");
  }
  if (::geteuid() != 0) {
    return fail(ErrorKind::kDenied, "run: needs root, to mount and for CRIU");
  }
  CKPT_TRY(find_criu());
  if (!opened.served) {
    return fail(ErrorKind::kNotFound, opened.paths.image + ": no server runs: start it first");
  }
  return opened.volume->status().checkpoint_interval.count() == 0
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid,
                             "the server makes checkpoints by itself (checkpoint-interval=), "
                             "without the command: start it without, and give --every here"));
}

Result<int> run(Context& context, const VolumeName& name, RunOptions options) {
  CKPT_ASSIGN(const unsigned retries, parse_retries(options.retries));
  if (options.fs.empty()) {
    return fail(ErrorKind::kInvalid, "give with --fs where the disk is, or is to be, mounted");
  }
  std::error_code unknown;
  const auto mount = fs::weakly_canonical(options.fs, unknown);
  options.fs = (unknown ? fs::absolute(options.fs) : mount).string();
  CKPT_ASSIGN(const OpenedVolume opened, open_primary(context, name));
  CKPT_TRY(check_can_run(opened, options));
  CKPT_ASSIGN(RunFolder folder, RunFolder::open(opened.paths.state));
  listen_for_stop();
  return Run(context, opened, std::move(options), retries, std::move(folder)).run();
}

}  // namespace

void add_run(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<RunOptions>();
  constexpr double kLongest = 86400;
  constexpr double kShortest = 0.001;
  Arguments arguments = add_command(
      app, invocation, kRunHelp, [options, &invocation](Context& context, const VolumeName& name) {
        options->words = invocation.rest;
        return run(context, name, *options);
      });
  arguments.add_filled_text("--fs", "MOUNT", options->fs, "Where the disk is mounted, or is to be");
  arguments.add_seconds("--every", options->every_seconds, {0, kLongest},
                        "Seconds between two checkpoints; 0: only when the command asks");
  arguments.add_text("--retries", "N", options->retries,
                     "So often it may fail without a checkpoint since");
  arguments.add_flag("--resume", options->resume,
                     "Goes on from the last checkpoint of an earlier run");
  arguments.add_flag("--suspend", options->suspend,
                     "When it is told to stop, makes a last checkpoint for --resume to go on from");
  arguments.add_seconds("--timeout", options->timeout_seconds,
                        {kShortest, std::chrono::duration<double>(kTimeoutMax).count()},
                        "Seconds to wait until a checkpoint exists");
  arguments.add_texts("--criu-option", "WORD", options->criu_options,
                      "More words for CRIU, such as --tcp-established; again for more");
}

}  // namespace ckpt
