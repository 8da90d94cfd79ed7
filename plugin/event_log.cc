// SPDX-License-Identifier: Apache-2.0
#include "plugin/event_log.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace ckpt {
namespace {

constexpr const char* kNewFileName = "events.new";
constexpr std::chrono::seconds kRetry{5};  // after the file could not be written

}  // namespace

void EventLog::add(Event event) {
  event.time = clock_.wall();
  event.text.resize(std::min(event.text.size(), kEventTextBytesMax));
  const MutexLock lock(mutex_);
  count(event);
  waiting_.push_back(std::move(event));
  if (waiting_.size() > kEventsWaitingMax) {
    waiting_.pop_front();
  }
}

void EventLog::count(const Event& event) {
  if (event.kind == EventKind::kCheckpoint) {
    ++counts_.checkpoints;
    counts_.shipped_bytes += event.shipped_bytes;
    counts_.confirm_last = event.confirm;
  } else if (event.kind == EventKind::kVoid) {
    ++counts_.void_checkpoints;
  } else if (event.kind == EventKind::kMissed) {
    counts_.missed_checkpoints += event.count;
  } else if (event.kind == EventKind::kRollback) {
    ++counts_.rollbacks;
  }
}

EventCounts EventLog::counts() const {
  const MutexLock lock(mutex_);
  return counts_;
}

std::deque<Event> EventLog::take() {
  const MutexLock lock(mutex_);
  return std::exchange(waiting_, {});
}

void EventLog::give_back(std::deque<Event> events) {
  const MutexLock lock(mutex_);
  std::ranges::move(waiting_, std::back_inserter(events));
  waiting_ = std::move(events);
  while (waiting_.size() > kEventsWaitingMax) {
    waiting_.pop_front();
  }
}

void EventLog::write_out() {
  if (clock_.steady() < next_try_) {
    return;
  }
  std::deque<Event> events = take();
  if (events.empty()) {
    return;
  }
  std::string lines;
  for (const Event& event : events) {
    lines += encode_event(event) + "\n";
  }
  if (!append(lines)) {
    next_try_ = clock_.steady() + kRetry;
    give_back(std::move(events));
  }
}

// Opened each time: it is seldom, and whoever removes or cuts the file does no harm.
Result<> EventLog::append(const std::string& lines) {
  CKPT_ASSIGN(auto file, open_file());
  CKPT_ASSIGN(uint64_t end, file->size());
  if (end + lines.size() > kEventFileBytesMax) {
    CKPT_ASSIGN(file, drop_older_half(*file));
    CKPT_ASSIGN(end, file->size());
  }
  std::byte last{'\n'};
  if (end > 0) {
    CKPT_TRY(file->read(end - 1, {&last, 1}));
  }
  if (last != std::byte{'\n'}) {
    // A kill or a full disk tore the line there: it is to spoil none after it.
    CKPT_TRY(file->write(end, as_bytes_of("\n")));
    ++end;
  }
  return file->write(end, as_bytes_of(lines));
}

Result<std::unique_ptr<File>> EventLog::open_file() {
  auto file = state_.open(kEventFileName, OpenMode::kReadWrite);
  const bool missing = !file && file.error().kind == ErrorKind::kNotFound;
  return missing ? state_.open(kEventFileName, OpenMode::kCreate) : std::move(file);
}

// The newer half, from the first whole line on, becomes the file. However long the file is, no more
// of it is read.
Result<std::unique_ptr<File>> EventLog::drop_older_half(File& file) {
  CKPT_ASSIGN(const uint64_t size_bytes, file.size());
  std::vector<std::byte> kept(std::min(size_bytes, kEventFileBytesMax / 2));
  CKPT_TRY(file.read(size_bytes - kept.size(), kept));
  const auto newline = std::ranges::find(kept, std::byte{'\n'});
  kept.erase(kept.begin(), newline == kept.end() ? newline : newline + 1);
  (void)state_.remove(kNewFileName);  // most often there is none
  CKPT_ASSIGN(auto replacement, state_.open(kNewFileName, OpenMode::kCreate));
  CKPT_TRY(replacement->write(0, kept));
  CKPT_TRY(state_.rename(kNewFileName, kEventFileName));
  return replacement;
}

}  // namespace ckpt
