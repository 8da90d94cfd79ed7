// SPDX-License-Identifier: Apache-2.0
#include "plugin/event_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "common/posix_file.h"
#include "plugin/control_fields.h"

namespace ckpt {
namespace {

void take_checkpoint(Fields& fields, Event& event) {
  event.kind = EventKind::kCheckpoint;
  event.checkpoint = fields.number("checkpoint");
  event.name = fields.text("name");
  event.changed_bytes = fields.number("changed_bytes");
  event.shipped_bytes = fields.number("shipped_bytes");
  event.stall = fields.duration<std::chrono::microseconds>("stall_us");
  event.confirm = fields.duration<std::chrono::milliseconds>("confirm_ms");
}

void take_void(Fields& fields, Event& event) {
  event.kind = EventKind::kVoid;
  event.checkpoint = fields.optional("checkpoint") != nullptr ? fields.number("checkpoint") : 0;
  event.text = fields.text("why");
}

void take_missed(Fields& fields, Event& event) {
  event.kind = EventKind::kMissed;
  event.count = fields.number("count");
  event.text = fields.text("why");
}

void take_rollback(Fields& fields, Event& event) {
  event.kind = EventKind::kRollback;
  event.checkpoint = fields.number("checkpoint");
  event.restored_bytes = fields.number("restored_bytes");
  event.elapsed = fields.duration<std::chrono::milliseconds>("elapsed_ms");
  event.fenced = fields.flag("fenced");
}

void take_store(Fields& fields, Event& event) {
  event.kind = EventKind::kStore;
  event.state = fields.text("state");
  event.text = fields.text("error");
}

void take_rest(const std::string& word, Fields& fields, Event& event) {
  if (word == "start") {
    event.kind = EventKind::kStart;
  } else if (word == "stop") {
    event.kind = EventKind::kStop;
  } else if (word == "accept") {
    event.kind = EventKind::kAccept;
  } else if (word == "checkpoint") {
    take_checkpoint(fields, event);
  } else if (word == "void") {
    take_void(fields, event);
  } else if (word == "missed") {
    take_missed(fields, event);
  } else if (word == "rollback") {
    take_rollback(fields, event);
  } else if (word == "store") {
    take_store(fields, event);
  } else {
    fields.refuse("event", "is none that is known");
  }
}

// Nothing: there is no such regular file.
Result<std::unique_ptr<File>> open_regular(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!fd || fstat(fd.get(), &status) != 0) {
    // ELOOP: a symbolic link; ENXIO: a socket (open(2)).
    const bool is_other = errno == ENOENT || errno == ELOOP || errno == ENXIO;
    return is_other ? Result<std::unique_ptr<File>>(nullptr) : fail_errno(errno, "open " + path);
  }
  if (!S_ISREG(status.st_mode)) {
    return std::unique_ptr<File>();
  }
  return std::unique_ptr<File>(std::make_unique<PosixFile>(std::move(fd), path, RingUse{}));
}

// The end of the file that is looked at; where it begins within a line, that line is no event.
Result<std::string> read_tail(File& file) {
  CKPT_ASSIGN(const uint64_t size_bytes, file.size());
  const uint64_t length = std::min(size_bytes, kEventFileBytesMax);
  std::vector<std::byte> bytes(length);
  CKPT_TRY(file.read(size_bytes - length, bytes));
  std::string text;
  text.reserve(length);
  for (const std::byte byte : bytes) {
    text += static_cast<char>(byte);
  }
  return text;
}

}  // namespace

std::optional<Event> decode_event(std::string_view line) {
  const auto object = parse_object(line, kEventLineBytesMax, ErrorKind::kCorrupt);
  if (!object) {
    return std::nullopt;
  }
  Fields fields(*object, ErrorKind::kCorrupt);
  Event event;
  event.time = fields.time("time");
  take_rest(fields.text("event"), fields, event);
  auto whole = fields.finish(std::move(event));
  return whole ? std::optional(std::move(*whole)) : std::nullopt;
}

Result<std::vector<Event>> read_events(File& file, size_t most) {
  CKPT_ASSIGN(const std::string text, read_tail(file));
  std::vector<Event> events;
  size_t end = text.rfind('\n');  // what follows it is being written
  while (end != std::string::npos && events.size() < most) {
    const size_t before = end == 0 ? std::string::npos : text.rfind('\n', end - 1);
    const size_t begin = before == std::string::npos ? 0 : before + 1;
    if (auto event = decode_event(std::string_view(text).substr(begin, end - begin))) {
      events.push_back(std::move(*event));
    }
    end = before;
  }
  std::ranges::reverse(events);
  return events;
}

Result<std::vector<Event>> read_events(const std::string& state_path, size_t most) {
  CKPT_ASSIGN(const auto file, open_regular(state_path + "/" + kEventFileName));
  return file == nullptr ? std::vector<Event>() : read_events(*file, most);
}

}  // namespace ckpt
