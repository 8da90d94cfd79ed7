// SPDX-License-Identifier: Apache-2.0
// ckpt-tool standby
#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <thread>

#include "common/remote_store.h"
#include "plugin/control_socket.h"
#include "plugin/local_volume.h"
#include "plugin/own_backupd.h"
#include "plugin/promote.h"
#include "tools/child_program.h"
#include "tools/command.h"
#include "tools/fence.h"
#include "tools/format.h"
#include "tools/primary_watch.h"
#include "tools/program.h"
#include "tools/stop_signal.h"
#include "tools/work_folder.h"

namespace ckpt {
namespace {

constexpr CommandHelp kStandbyHelp{
    "standby", "Waits for a primary to die, then promotes and serves its back-up",
    "VOLUME is the folder of a back-up in the store of this machine's backupd. When its primary's\n"
    "connection has ended, without a word, and it has not come back for --after seconds, --fence\n"
    "is run, which has to see to it that the old primary is dead. If that fails, nothing is\n"
    "promoted, and it is tried again after as long. Else the back-up is promoted, as `promote`\n"
    "does, and served, as --server says; COMMAND is run then. A primary that was stopped is not\n"
    "taken for dead. One that gave its role up (`switch`) is followed at once, as is a promotion\n"
    "that was begun before: without --fence being run.\n"
    "COMMAND finds CKPT_IMAGE, CKPT_VOLUME, CKPT_TIMELINE and CKPT_CHECKPOINT in its environment. "
    "It\n"
    "may end; this command ends when the server does. SIGTERM ends it: while it waits at once, "
    "later\n"
    "with COMMAND and the server.\n\n"
    "  ckpt-tool standby /var/lib/ckpt/UUID --after 60 \\\n"
    "    --fence 'ipmitool -H node1-bmc chassis power off' \\\n"
    "    --server '-U /run/mail.sock backup=none' \\\n"
    "    -- ckpt-tool restore /var/lib/ckpt/UUID/backup.img",
    true, true};

// What the machine's scheduler and a network need is far below the one, and nobody waits longer.
constexpr SecondsRange kAfterRange{0.1, 86400};
constexpr std::chrono::milliseconds kLookMin{20};
constexpr std::chrono::milliseconds kLookMax{1000};
constexpr std::chrono::milliseconds kServedLook{50};
constexpr std::chrono::seconds kTakeOverPause{1};
constexpr std::chrono::minutes kServerPatience{10};
constexpr std::chrono::seconds kCommandPatience{10};
constexpr std::chrono::minutes kServerStopPatience{2};

struct StandbyOptions {
  double after_seconds = 60;
  std::string fence;    // for a shell
  std::string server;   // nbdkit's words, and the plugin's, for a shell
  std::string backupd;  // its address; empty: the one of the folder
  std::vector<std::string> command;
};

// Also while the machine was suspended (clock_gettime(2)).
SteadyTime time_with_suspends() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

class Standby {
 public:
  Standby(Console& console, VolumePaths paths, StandbyOptions options, OwnBackupd own,
          std::optional<Address> backupd)
      : console_(console),
        paths_(std::move(paths)),
        options_(std::move(options)),
        after_(static_cast<int64_t>(options_.after_seconds * 1e9)),
        own_(std::move(own)),
        backupd_(std::move(backupd)),
        store_({.address = own_.address, .tls = {}, .volume = own_.volume}, system_clock()),
        watch_(after_) {}

  Result<int> run();

 private:
  Result<PrimaryPresence> look();
  // The same, and whether the back-up was promoted.
  Result<PrimaryPresence> look_around(bool& promoted);
  Result<> begin();
  // What is said of the primary, when that is another thing than before.
  void tell_seen(const Result<PrimaryPresence>& seen);
  void fail_over();
  Result<> fence_primary(const CheckpointInfo& last);
  Result<int> take_over();
  Result<int> serve(const PromoteOutcome& outcome);
  // False: it was told to end meanwhile.
  [[nodiscard]] Result<bool> await_server(ChildProgram& server, const std::string& pid_file,
                                          const std::string& image) const;
  std::optional<ChildProgram> start_command();
  Result<int> stay(ChildProgram& server, std::optional<ChildProgram> command);
  // Both for people and for scripts.
  void tell(const std::string& event, const std::string& text, Json fields = Json::object());

  Console& console_;
  const VolumePaths paths_;
  const StandbyOptions options_;
  const std::chrono::nanoseconds after_;
  const OwnBackupd own_;
  const std::optional<Address> backupd_;
  RemoteStore store_;
  PrimaryWatch watch_;
  std::string seen_;  // as it was told last
};

void Standby::tell(const std::string& event, const std::string& text, Json fields) {
  Json all{{"event", event}, {"time", format_time(system_clock().wall())}};
  all.update(fields);
  console_.event(all);
  if (!console_.verbosity().json) {
    console_.remark("ckpt-tool: " + text);
  }
}

Result<PrimaryPresence> Standby::look() {
  CKPT_ASSIGN(const StoreStatus status, store_.ask());
  return status.primary == PrimaryPresence::kNotSaid
             ? Result<PrimaryPresence>(
                   fail(ErrorKind::kInvalid,
                        own_.shown + " does not say whether the primary is there: one of the two "
                                     "is of an older version, or who ships to it is a backupd "
                                     "that passes its checkpoints on"))
             : Result<PrimaryPresence>(status.primary);
}

// A primary that gives its role up is not disturbed in it.
Result<PrimaryPresence> Standby::look_around(bool& promoted) {
  const auto seen = look();
  CKPT_ASSIGN(promoted, is_promoted(paths_.state));
  promoted = promoted && !(seen && *seen == PrimaryPresence::kConnected);
  return seen;
}

// What would keep it from taking over is said now, and not when it is needed.
Result<> Standby::begin() {
  bool promoted = false;
  const auto seen = look_around(promoted);
  return promoted || seen
             ? Result<>()
             : within("backupd at " + own_.shown + " cannot be asked about the primary",
                      seen.error());
}

void Standby::tell_seen(const Result<PrimaryPresence>& seen) {
  const std::string word = seen ? word_of(*seen) : "unknown";
  if (word == std::exchange(seen_, word)) {
    return;
  }
  const std::string why = seen ? "" : ": " + seen.error().message();
  const bool counts = word == word_of(PrimaryPresence::kAway);
  tell("primary",
       "the primary is " + word + why +
           (counts ? "; it counts as dead in " + format_duration(after_) : ""),
       Json{{"primary", word}});
}

Result<int> Standby::run() {
  const auto pause = std::clamp<std::chrono::nanoseconds>(after_ / 10, kLookMin, kLookMax);
  CKPT_TRY(begin());
  bool promoted = false;
  while (stop_signal() == 0) {
    const auto seen = look_around(promoted);
    if (promoted) {
      return take_over();
    }
    tell_seen(seen);
    if (watch_.is_due(seen ? std::optional(*seen) : std::nullopt, time_with_suspends())) {
      fail_over();
    } else {
      std::this_thread::sleep_for(pause);
    }
  }
  CKPT_ASSIGN(promoted, is_promoted(paths_.state));
  if (promoted) {
    return fail(ErrorKind::kHalfway,
                "promoted, and not served, since this was told to end: the same command goes on");
  }
  console_.result(Json{{"volume", own_.volume.to_string()}, {"promoted", false}});
  return kExitDone;
}

// What was promoted is found to be in the next round; what was not is tried again.
void Standby::fail_over() {
  watch_.restart();
  const auto promoted =
      promote({paths_.state, false, true, backupd_,
               [this](const CheckpointInfo& last) { return fence_primary(last); }});
  if (!promoted) {
    tell("not_promoted", "not promoted: " + promoted.error().message(),
         Json{{"message", promoted.error().message()}});
  }
}

// Who told this to end, wants nothing to be taken over any more.
Result<> Standby::fence_primary(const CheckpointInfo& last) {
  CKPT_ASSIGN(const PrimaryPresence seen, look());
  if (seen != PrimaryPresence::kAway) {
    return fail(ErrorKind::kVoid, "the primary is there again");
  }
  if (stop_signal() == 0) {
    tell("fencing",
         fmt::format("the primary is fenced, to go on from checkpoint {}", last.id.number.value),
         Json{{"checkpoint", last.id.number.value}});
    CKPT_TRY(fence(options_.fence));
    if (const auto now = look(); now && *now == PrimaryPresence::kConnected) {
      return fail(ErrorKind::kVoid, "the primary is there again, after its fence");
    }
  }
  return stop_signal() == 0 ? Result<>()
                            : Result<>(fail(ErrorKind::kVoid, "it was told to end meanwhile"));
}

// A backupd that has just had it back may still be opening it.
Result<int> Standby::take_over() {
  const auto finish = [this] {
    return promote({paths_.state, false, false, backupd_, [](const auto&) { return Result<>(); }});
  };
  auto finished = finish();
  while (!finished && stop_signal() == 0 &&
         (finished.error().kind == ErrorKind::kBusy ||
          finished.error().kind == ErrorKind::kUnreachable)) {
    tell("not_promoted", "not ready: " + finished.error().message(),
         Json{{"message", finished.error().message()}});
    std::this_thread::sleep_for(kTakeOverPause);
    finished = finish();
  }
  if (!finished) {
    return fail(ErrorKind::kHalfway,
                "promoted, and not ready to be served: " + finished.error().message());
  }
  const PromoteOutcome& outcome = *finished;
  const CheckpointInfo& last = outcome.checkpoint;
  tell("promoted", fmt::format("promoted at checkpoint {}", last.id.number.value),
       Json{{"checkpoint", last.id.number.value},
            {"timeline", last.id.timeline.to_string()},
            {"image", outcome.image}});
  ::setenv("CKPT_IMAGE", outcome.image.c_str(), 1);
  ::setenv("CKPT_VOLUME", outcome.volume.to_string().c_str(), 1);
  ::setenv("CKPT_TIMELINE", last.id.timeline.to_string().c_str(), 1);
  ::setenv("CKPT_CHECKPOINT", std::to_string(last.id.number.value).c_str(), 1);
  auto code = serve(outcome);
  return code ? code
              : fail(ErrorKind::kHalfway,
                     "promoted, and not served any more: " + code.error().message() +
                         ". The disk is " + outcome.image + "; the same command goes on");
}

Result<int> Standby::serve(const PromoteOutcome& outcome) {
  CKPT_ASSIGN(const WorkFolder folder, WorkFolder::make(short_base(), "standby"));
  const std::string pid_file = folder.path() + "/pid";
  CKPT_ASSIGN(
      ChildProgram server,
      ChildProgram::start(
          {"/bin/sh", "-c",
           "exec nbdkit --foreground --exit-with-parent --pidfile=\"$1\" ckpt \"$CKPT_IMAGE\" " +
               options_.server,
           "sh", pid_file}));
  const auto served = await_server(server, pid_file, outcome.image);
  if (!served || !*served) {
    server.end(kServerStopPatience);
    CKPT_TRY(served);
  }
  int code = kExitDone;
  if (*served) {
    tell("served", "served: " + outcome.image, Json{{"image", outcome.image}});
    CKPT_ASSIGN(code, stay(server, start_command()));
  }
  console_.result(Json{{"volume", outcome.volume.to_string()}, {"promoted", true}});
  return code;
}

std::optional<ChildProgram> Standby::start_command() {
  if (options_.command.empty() || stop_signal() != 0) {
    return std::nullopt;
  }
  auto started = ChildProgram::start(options_.command);
  if (!started) {
    tell("command_ended", started.error().message(), Json{{"exit_code", nullptr}});
  }
  return started ? std::optional(std::move(*started)) : std::nullopt;
}

// It takes clients when it has written the file (nbdkit(1)), and commands a moment later.
Result<bool> Standby::await_server(ChildProgram& server, const std::string& pid_file,
                                   const std::string& image) const {
  const SteadyTime deadline = system_clock().steady() + kServerPatience;
  while (stop_signal() == 0) {
    if (const auto status = server.ended()) {
      return fail(ErrorKind::kIo, "nbdkit has ended at once: " + describe_end(*status));
    }
    std::error_code ignored;
    const bool is_up = std::filesystem::file_size(pid_file, ignored) > 0 && !ignored;
    if (is_up && ControlConnection::connect(default_state_path(image))) {
      return true;
    }
    if (system_clock().steady() >= deadline) {
      return fail(ErrorKind::kTimeout, "nbdkit does not come up");
    }
    std::this_thread::sleep_for(kLookMin);
  }
  return false;
}

Result<int> Standby::stay(ChildProgram& server, std::optional<ChildProgram> command) {
  while (stop_signal() == 0 && !server.ended()) {
    if (const auto status = command ? command->ended() : std::nullopt) {
      tell("command_ended", "COMMAND has ended: " + describe_end(*status),
           Json{{"exit_code", WIFEXITED(*status) ? Json(WEXITSTATUS(*status)) : Json()}});
      command.reset();
    }
    std::this_thread::sleep_for(kServedLook);
  }
  if (command) {
    command->end(kCommandPatience);
  }
  server.end(kServerStopPatience);
  const auto status = server.ended();
  return status == 0 ? Result<int>(kExitDone)
                     : fail(ErrorKind::kIo, status ? "nbdkit has ended: " + describe_end(*status)
                                                   : "nbdkit does not end");
}

Result<> check_said(const StandbyOptions& options) {
  if (options.fence.empty()) {
    return fail(ErrorKind::kInvalid,
                "nobody but a command can see to it that an old primary is dead: give --fence");
  }
  if (options.server.empty()) {
    return fail(ErrorKind::kInvalid,
                "say how the disk is to be served, and where its own back-up is to be: --server "
                "'-U SOCKET backup=HOST:PORT', or backup=none");
  }
  const char* const path = std::getenv("PATH");
  const std::string folders = path == nullptr ? "/usr/bin:/bin" : path;
  std::vector<std::string> programs{"nbdkit"};
  if (!options.command.empty()) {
    programs.push_back(options.command.front());
  }
  for (const std::string& program : programs) {
    if (program.find('/') == std::string::npos && find_program(program, folders).empty()) {
      return fail(ErrorKind::kInvalid, program + ": there is no such program in " + folders);
    }
  }
  return {};
}

Result<int> run_standby(Context& context, const VolumeName& name, const StandbyOptions& options) {
  CKPT_TRY(check_said(options));
  CKPT_ASSIGN(const VolumePaths paths, find_volume(name));
  std::optional<Address> backupd;
  if (!options.backupd.empty()) {
    CKPT_ASSIGN(backupd, parse_address(options.backupd));
  }
  auto own = paths.is_store && !paths.remote ? own_backupd(paths.state, backupd) : std::nullopt;
  if (!own) {
    return fail(ErrorKind::kInvalid,
                name.path +
                    ": standby works on the folder of a back-up of this machine's backupd: "
                    "STORE/UUID");
  }
  listen_for_stop();
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads the log may be gone: the watch goes on
  return Standby(context.console, paths, options, std::move(*own), backupd).run();
}

}  // namespace

void add_standby(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<StandbyOptions>();
  Arguments arguments =
      add_command(app, invocation, kStandbyHelp,
                  [options, &invocation](Context& context, const VolumeName& name) {
                    options->command = invocation.rest;
                    return run_standby(context, name, *options);
                  });
  arguments.add_seconds("--after", options->after_seconds, kAfterRange,
                        "Seconds that the primary has to be away, after backupd's --silence");
  arguments.add_filled_text("--fence", "COMMAND", options->fence,
                            "Sees to it that the old primary is dead; run by a shell. If it fails, "
                            "or takes 2 minutes, nothing is promoted");
  arguments.add_filled_text("--server", "WORDS", options->server,
                            "nbdkit's and the plugin's, after `nbdkit ckpt IMAGE`, as for a shell");
  arguments.add_filled_text("--backupd", "ADDRESS", options->backupd,
                            "Of the backupd that has the store, as its --listen says it, if not "
                            "the socket in its folder: unix:PATH");
}

}  // namespace ckpt
