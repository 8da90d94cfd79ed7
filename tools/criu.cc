// SPDX-License-Identifier: Apache-2.0
#include "tools/criu.h"

#include <cstdlib>
#include <future>
#include <sstream>

#include "tools/program.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

constexpr const char* kCriuPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr const char* kDumpLog = "dump.log";
constexpr const char* kRestoreLog = "restore.log";
constexpr int kHookMilliseconds = 20;
// As long as a machine needs to write its whole memory to a slow disk.
constexpr std::chrono::hours kPatience{12};
constexpr size_t kErrorsMax = 3;

// CRIU's own words say what is wrong; its exit status does not.
std::string reason(const std::string& images, const char* log, const Error& error) {
  const std::string errors = errors_of(content_of(images + "/" + log));
  return "CRIU: " + (errors.empty() ? error.message() : errors);
}

// A varint of Protocol Buffers. Nothing: the text ends before it does.
std::optional<uint64_t> take_varint(std::string_view& text) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && !text.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(text.front());
    text.remove_prefix(1);
    value |= uint64_t{byte & 0x7fU} << shift;
    if (byte < 0x80) {
      return value;
    }
  }
  return std::nullopt;
}

}  // namespace

Result<std::string> find_criu() {
  std::string criu = find_program("criu", kCriuPath);
  return criu.empty() ? Result<std::string>(fail(ErrorKind::kNotFound,
                                                 "criu is not installed (package criu); see "
                                                 "`ckpt-tool doctor`"))
                      : Result<std::string>(std::move(criu));
}

Result<> dump_processes(const CriuDump& dump, HookSocket& hook,
                        const std::function<Result<>(const std::string& action)>& on_action) {
  CKPT_ASSIGN(const std::string criu, find_criu());
  std::vector<std::string> words{
      criu,        "dump",       "--tree", std::to_string(dump.pid), "--images-dir",
      dump.images, "--log-file", kDumpLog, "--action-script",        hook.script()};
  if (dump.leave_running) {
    words.emplace_back("--leave-running");
  }
  words.insert(words.end(), dump.options.begin(), dump.options.end());
  auto running = std::async(std::launch::async, [&] { return output_of(words, kPatience); });
  std::optional<Error> refusal;
  while (running.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    if (auto call = hook.next(kHookMilliseconds)) {
      const auto outcome = on_action(call->action());
      call->answer(outcome);
      if (!outcome && !refusal) {
        refusal = outcome.error();
      }
    }
  }
  const auto said = running.get();
  if (refusal) {
    return Unexpected(*refusal);
  }
  return said ? Result<>()
              : Result<>(fail(ErrorKind::kVoid, reason(dump.images, kDumpLog, said.error())));
}

Result<pid_t> restore_processes(const CriuRestore& restore) {
  CKPT_ASSIGN(const std::string criu, find_criu());
  const std::string number = restore.images + "/restored.pid";
  std::vector<std::string> words{criu,           "restore",    "--images-dir",
                                 restore.images, "--log-file", kRestoreLog,
                                 "--pidfile",    number,       "--restore-detached"};
  words.insert(words.end(), restore.options.begin(), restore.options.end());
  const auto said = output_of(words, kPatience, restore.kept);
  if (!said) {
    return fail(ErrorKind::kHalfway, reason(restore.images, kRestoreLog, said.error()));
  }
  const auto pid = static_cast<pid_t>(std::strtol(content_of(number).c_str(), nullptr, 10));
  return pid > 0 ? Result<pid_t>(pid)
                 : Result<pid_t>(
                       fail(ErrorKind::kHalfway, "CRIU has not said which process it restored"));
}

// Two magic numbers and a length, of 4 bytes each, then a stats_entry: field 1 is of the dump, its
// field 2 the time.
std::optional<std::chrono::microseconds> frozen_time(const std::string& images) {
  const std::string content = content_of(images + "/stats-dump");
  constexpr size_t kStatsHeadBytes = 12;
  if (content.size() < kStatsHeadBytes) {
    return std::nullopt;
  }
  std::string_view text = std::string_view(content).substr(kStatsHeadBytes);
  constexpr uint64_t kDumpField = (1U << 3U) | 2U;
  if (take_varint(text) != kDumpField || !take_varint(text)) {
    return std::nullopt;
  }
  constexpr uint64_t kFrozenField = 2U << 3U;
  while (const auto field = take_varint(text)) {
    const auto value = take_varint(text);
    if (!value || (*field & 7U) != 0) {
      return std::nullopt;
    }
    if (*field == kFrozenField) {
      return std::chrono::microseconds(*value);
    }
  }
  return std::nullopt;
}

// Lines as "(00.012345) Error (criu/files-reg.c:1629): Can't ...".
std::string errors_of(const std::string& log) {
  std::istringstream lines(log);
  std::string errors;
  size_t count = 0;
  for (std::string line; std::getline(lines, line) && count < kErrorsMax;) {
    const size_t at = line.find("Error (");
    const size_t colon = at == std::string::npos ? at : line.find("): ", at);
    // That a child of CRIU's has ended says nothing to anybody.
    if (colon != std::string::npos && line.compare(colon + 3, 6, "exited") != 0) {
      errors += (errors.empty() ? "" : "; ") + line.substr(colon + 3);
      ++count;
    }
  }
  return errors;
}

}  // namespace ckpt
