// SPDX-License-Identifier: Apache-2.0
// What happened to a volume: counted, and kept in a file of bounded size for people to look at.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/file.h"
#include "common/mutex.h"

namespace ckpt {

inline constexpr const char* kEventFileName = "events";
// About a week of a checkpoint every 90 s; then the older half is dropped.
inline constexpr uint64_t kEventFileBytesMax = uint64_t{1} << 20U;
// A line has a name of 255 bytes and a text of kEventTextBytesMax, each byte escaped.
inline constexpr size_t kEventTextBytesMax = 512;
inline constexpr size_t kEventLineBytesMax = 8192;
// That wait for the file; while it cannot be written the oldest are dropped.
inline constexpr size_t kEventsWaitingMax = 512;

enum class EventKind { kStart, kStop, kCheckpoint, kVoid, kMissed, kRollback, kAccept, kStore };

// One thing that happened. Each kind has some of the fields; the others mean nothing.
struct Event {
  EventKind kind = EventKind::kStart;
  WallTime time{};                     // set by EventLog::add()
  uint64_t checkpoint = 0;             // checkpoint, void (0: it was never begun), rollback
  std::string name{};                  // checkpoint
  uint64_t changed_bytes = 0;          // checkpoint
  uint64_t shipped_bytes = 0;          // checkpoint
  std::chrono::nanoseconds stall{};    // checkpoint
  std::chrono::nanoseconds confirm{};  // checkpoint
  uint64_t count = 0;                  // missed: so many due times in a row
  uint64_t restored_bytes = 0;         // rollback
  std::chrono::nanoseconds elapsed{};  // rollback
  bool fenced = false;                 // rollback
  std::string state{};                 // store
  std::string text{};                  // void, missed: why; store: its error
};

// Since the server's start.
struct EventCounts {
  uint64_t checkpoints = 0;
  uint64_t void_checkpoints = 0;
  uint64_t missed_checkpoints = 0;
  uint64_t rollbacks = 0;
  uint64_t shipped_bytes = 0;               // of these checkpoints
  std::chrono::nanoseconds confirm_last{};  // of the last of them

  bool operator==(const EventCounts&) const = default;
};

// As one line of the file, without its newline.
std::string encode_event(const Event& event);

// Threads:    add() and counts() from any; write_out() by one at a time, outside all other locks.
// Failure:    never one of the volume: what cannot be written waits, and is tried again later.
// Durability: none: nothing is synced. A kill may lose what was added just before it, a loss of
// power any part of the file.
// Format:     docs/events-format.md
class EventLog {
 public:
  EventLog(Directory& state, Clock& clock) : state_(state), clock_(clock) {}

  // It happened now. Neither waits nor fails.
  void add(Event event) CKPT_EXCLUDES(mutex_);
  [[nodiscard]] EventCounts counts() const CKPT_EXCLUDES(mutex_);
  // Appends what was added since to the file, if it can be.
  void write_out() CKPT_EXCLUDES(mutex_);

 private:
  void count(const Event& event) CKPT_REQUIRES(mutex_);
  std::deque<Event> take() CKPT_EXCLUDES(mutex_);
  void give_back(std::deque<Event> events) CKPT_EXCLUDES(mutex_);
  Result<> append(const std::string& lines);
  Result<std::unique_ptr<File>> open_file();
  Result<std::unique_ptr<File>> drop_older_half(File& file);

  Directory& state_;
  Clock& clock_;
  mutable Mutex mutex_;
  std::deque<Event> waiting_ CKPT_GUARDED_BY(mutex_);
  EventCounts counts_ CKPT_GUARDED_BY(mutex_);
  SteadyTime next_try_{};  // the writer's own
};

}  // namespace ckpt
