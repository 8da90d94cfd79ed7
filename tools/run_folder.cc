// SPDX-License-Identifier: Apache-2.0
#include "tools/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "common/clock.h"
#include "plugin/control_codec.h"
#include "plugin/control_fields.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr const char* kAsk = ".ask";
constexpr const char* kAnswer = ".answer";
constexpr const char* kRoot = "root";
constexpr const char* kBase = "base";
constexpr size_t kAnswerBytesMax = 65536;
constexpr std::chrono::milliseconds kAnswerLook{10};

std::vector<std::string> names_with(const std::string& folder, const std::string& suffix) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(suffix)) {
      names.push_back(name.substr(0, name.size() - suffix.size()));
    }
  }
  return names;
}

std::string encode_run_answer(const Result<RunAnswer>& answer) {
  return answer ? to_line(Json{{"schema", kControlSchema},
                               {"type", "result"},
                               {"checkpoint", answer->checkpoint.value},
                               {"restored", answer->restored}})
                : encode_error(answer.error());
}

Result<RunAnswer> decode_run_answer(const std::string& text) {
  CKPT_ASSIGN(const ParsedJson object, parse_object(text, kAnswerBytesMax, ErrorKind::kCorrupt));
  Fields fields(object, ErrorKind::kCorrupt);
  if (fields.text("type") == "error") {
    const auto kind = error_kind_of(fields.text("kind"));
    return fail(kind.value_or(ErrorKind::kVoid), fields.text("message"));
  }
  const RunAnswer answer{Epoch{fields.number("checkpoint")}, fields.flag("restored")};
  return fields.finish(answer);
}

}  // namespace

Result<RunFolder> RunFolder::open(const std::string& state) {
  const std::string path = state + "/run";
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "make " + path);
  }
  UniqueFd lock(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!lock) {
    return fail_errno(errno, "open " + path);
  }
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(ErrorKind::kBusy, path + ": another `ckpt-tool run` has this volume");
  }
  return RunFolder(path, std::move(lock));
}

Result<> RunFolder::note_root(pid_t root) const {
  std::ofstream file(path_ + "/" + kRoot);
  file << root << " " << start_of(root) << "\n";
  file.close();
  return file ? Result<>() : Result<>(fail_errno(errno, "write " + path_ + "/" + kRoot));
}

std::optional<ProcessIdentity> RunFolder::leftover() const {
  const std::string text = first_line_of(path_ + "/" + kRoot);
  std::istringstream words(text);
  pid_t pid = 0;
  uint64_t start = 0;
  words >> pid >> start;
  // That very process, and no other with its number.
  if (pid <= 0 || start == 0 || start_of(pid) != start || !has_own_numbers(pid)) {
    return std::nullopt;
  }
  const auto tree = process_tree(pid);
  return tree ? std::optional(tree->front()) : std::nullopt;
}

// Who was told just before it asked once more waits for nothing.
std::vector<std::string> RunFolder::asks() const {
  std::vector<std::string> waiting = names_with(path_, kAsk);
  std::erase_if(waiting, [this](const std::string& name) {
    const std::string path = path_ + "/" + name;
    return ::access((path + kAnswer).c_str(), F_OK) == 0 && ::unlink((path + kAsk).c_str()) == 0;
  });
  return waiting;
}

void RunFolder::answer(const std::vector<std::string>& asks,
                       const Result<RunAnswer>& answer) const {
  if (answer) {
    remove_all(kAnswer);
  }
  for (const std::string& ask : asks) {
    write(ask + kAnswer, encode_run_answer(answer));
    ::unlink((path_ + "/" + ask + kAsk).c_str());
  }
}

void RunFolder::go_back(Epoch target) const {
  remove_all(kAsk);
  for (const std::string& name : names_with(path_, kAnswer)) {
    write(name + kAnswer, encode_run_answer(RunAnswer{target, true}));
  }
}

void RunFolder::forget_asks() const {
  remove_all(kAsk);
  remove_all(kAnswer);
}

Result<> RunFolder::note_base(Epoch base) const {
  const std::string path = path_ + "/" + kBase;
  std::ofstream file(path + ".new");
  file << base.value << "\n";
  file.close();
  const UniqueFd written(::open((path + ".new").c_str(), O_RDONLY | O_CLOEXEC));
  return file && written && ::fsync(written.get()) == 0 &&
                 ::rename((path + ".new").c_str(), path.c_str()) == 0 && ::fsync(lock_.get()) == 0
             ? Result<>()
             : Result<>(fail_errno(errno, "write " + path));
}

Epoch RunFolder::base() const {
  return Epoch{std::strtoull(first_line_of(path_ + "/" + kBase).c_str(), nullptr, 10)};
}

// As a whole, or not at all. One that cannot be written is one that is waited for in vain.
void RunFolder::write(const std::string& name, const std::string& text) const {
  const std::string path = path_ + "/" + name;
  std::ofstream file(path + ".new");
  file << text << "\n";
  file.close();
  if (file) {
    (void)::rename((path + ".new").c_str(), path.c_str());
  }
}

void RunFolder::remove_all(const std::string& suffix) const {
  for (const std::string& name : names_with(path_, suffix)) {
    ::unlink((path_ + "/" + name + suffix).c_str());
  }
}

Result<RunAnswer> ask_for_checkpoint(const std::string& folder, std::chrono::milliseconds timeout) {
  const std::string name = folder + "/" + system_random().uuid().to_string();
  const SteadyTime deadline = system_clock().steady() + timeout;
  for (;;) {
    if (const std::string text = first_line_of(name + kAnswer); !text.empty()) {
      ::unlink((name + kAsk).c_str());
      return decode_run_answer(text);
    }
    // Again where the command was brought back to before its answer. No file is open at any instant
    // that could be saved.
    if (::mknod((name + kAsk).c_str(), S_IFREG | 0600, 0) != 0 && errno != EEXIST) {
      return fail_errno(errno, "ask for a checkpoint in " + folder);
    }
    if (system_clock().steady() >= deadline) {
      ::unlink((name + kAsk).c_str());
      return fail(ErrorKind::kTimeout, "no checkpoint in time; it may still come");
    }
    std::this_thread::sleep_for(kAnswerLook);
  }
}

}  // namespace ckpt
