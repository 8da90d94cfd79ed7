// SPDX-License-Identifier: Apache-2.0
#include "tools/asked_checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "common/clock.h"

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kCutLook{1};
constexpr std::chrono::seconds kCutPatience{10};  // everything stands still meanwhile

std::string path_of(int fd) {
  return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd);
}

}  // namespace

Result<AttachmentPipes> AttachmentPipes::open(const std::vector<std::string>& names,
                                              const std::vector<std::string>& more,
                                              const std::string& base, const Uuid& volume) {
  AttachmentPipes pipes;
  std::vector<UniqueFd> outs;
  std::vector<std::string> words;
  for (const std::string& name : names) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
      return fail_errno(errno, "pipe");
    }
    outs.emplace_back(ends[0]);
    pipes.pipes_.emplace_back(ends[1]);
    words.push_back(name + "=" + path_of(ends[0]));
  }
  words.insert(words.end(), more.begin(), more.end());
  pipes.open_copy(words, base, volume);
  // It opens the pipes once more: who writes is told when nobody reads any more. But the first
  // holds a text, which waits for nobody.
  CKPT_ASSIGN(pipes.source_, AttachmentSource::open(words, pipes.copy_));
  pipes.first_out_ = std::move(outs.front());
  return pipes;
}

// Without one there is a checkpoint all the same.
void AttachmentPipes::open_copy(const std::vector<std::string>& words, const std::string& base,
                                const Uuid& volume) {
  if (base.empty()) {
    return;
  }
  std::vector<std::string> names;
  for (const std::string& word : words) {
    names.push_back(word.substr(0, word.find('=')));
  }
  if (!std::ranges::all_of(names, valid_attachment_name)) {
    return;  // there will be no checkpoint either
  }
  if (auto made = AttachmentCopy::make(base, volume, names)) {
    copy_ = std::make_shared<AttachmentCopy>(std::move(*made));
  } else {
    no_copy_ = made.error().message();
  }
}

Result<> AttachmentPipes::put_text(const std::string& text, size_t bytes_max) {
  UniqueFd& pipe = pipes_.front();
  if (text.size() > bytes_max) {
    return fail(ErrorKind::kInvalid,
                "what is to be on record has more than " + std::to_string(bytes_max) + " bytes");
  }
  if (::fcntl(pipe.get(), F_SETPIPE_SZ, static_cast<int>(bytes_max)) < 0 ||
      ::write(pipe.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return fail_errno(errno, "write into a pipe");
  }
  pipe.reset();
  return {};
}

std::string AttachmentPipes::keep_copy(Epoch checkpoint) {
  if (copy_ != nullptr) {
    const auto kept = copy_->keep(checkpoint);
    no_copy_ = kept ? "" : kept.error().message();
  }
  return no_copy_;
}

Result<> check_takes_checkpoint(const VolumeStatus& status) {
  const bool is_there =
      status.store && (status.store->state == "connected" || status.store->state == "syncing");
  return is_there
             ? Result<>()
             : Result<>(fail(status.store ? ErrorKind::kUnreachable : ErrorKind::kInvalid,
                             "the back-up takes no checkpoint now: " +
                                 (status.store ? status.store->address + " is " +
                                                     status.store->state + "; " + status.problem
                                               : std::string("backup=none"))));
}

AskedCheckpoint::~AskedCheckpoint() { give_up({ErrorKind::kVoid, 0, "it was given up"}); }

void AskedCheckpoint::ask() {
  request_.on_cut = [this](Epoch number) { cut_.set_value(number); };
  asked_ = std::async(std::launch::async, [this] {
    auto made = volume_.checkpoint(request_);
    if (request_.attachments != nullptr) {
      request_.attachments->stop();  // a checkpoint that has failed takes no more
    }
    return made;
  });
}

Result<Epoch> AskedCheckpoint::await_cut() {
  const SteadyTime deadline = system_clock().steady() + kCutPatience;
  auto told = cut_.get_future();
  while (told.wait_for(kCutLook) != std::future_status::ready) {
    if (system_clock().steady() > deadline) {
      return fail(ErrorKind::kVoid,
                  "the disk was not cut within 10 s, and what stands still was not to wait longer: "
                  "see `ckpt-tool status`");
    }
    if (has_ended()) {
      CKPT_TRY(await());
      return fail(ErrorKind::kIo, "the server has not told of the cut");
    }
  }
  return told.get();
}

bool AskedCheckpoint::has_ended() const {
  return made_ ||
         (asked_.valid() && asked_.wait_for(std::chrono::seconds(0)) == std::future_status::ready);
}

Result<CheckpointOutcome> AskedCheckpoint::await() {
  if (asked_.valid()) {
    made_ = asked_.get();
  }
  return *made_;
}

void AskedCheckpoint::give_up(const Error& why) {
  if (request_.attachments != nullptr) {
    request_.attachments->abort(why);
  }
  if (asked_.valid()) {
    made_ = asked_.get();
  }
}

}  // namespace ckpt
