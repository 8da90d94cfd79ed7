// SPDX-License-Identifier: Apache-2.0
// Events as lines of the file `events` (docs/events-format.md).
#include <algorithm>
#include <nlohmann/json.hpp>

#include "plugin/event_log.h"

namespace ckpt {
namespace {

using Json = nlohmann::ordered_json;

template <typename Unit>
uint64_t count_of(std::chrono::nanoseconds time) {
  return static_cast<uint64_t>(
      std::max<int64_t>(0, std::chrono::duration_cast<Unit>(time).count()));
}

uint64_t microseconds(std::chrono::nanoseconds time) {
  return count_of<std::chrono::microseconds>(time);
}

uint64_t milliseconds(std::chrono::nanoseconds time) {
  return count_of<std::chrono::milliseconds>(time);
}

Json number_or_null(uint64_t number) { return number == 0 ? Json() : Json(number); }

Json fields_of(const Event& event) {
  switch (event.kind) {
    case EventKind::kStart: return {{"event", "start"}};
    case EventKind::kStop: return {{"event", "stop"}};
    case EventKind::kAccept: return {{"event", "accept"}};
    case EventKind::kCheckpoint:
      return {{"event", "checkpoint"},
              {"checkpoint", event.checkpoint},
              {"name", event.name},
              {"changed_bytes", event.changed_bytes},
              {"shipped_bytes", event.shipped_bytes},
              {"stall_us", microseconds(event.stall)},
              {"confirm_ms", milliseconds(event.confirm)}};
    case EventKind::kVoid:
      return {
          {"event", "void"}, {"checkpoint", number_or_null(event.checkpoint)}, {"why", event.text}};
    case EventKind::kMissed:
      return {{"event", "missed"}, {"count", event.count}, {"why", event.text}};
    case EventKind::kRollback:
      return {{"event", "rollback"},
              {"checkpoint", event.checkpoint},
              {"restored_bytes", event.restored_bytes},
              {"elapsed_ms", milliseconds(event.elapsed)},
              {"fenced", event.fenced}};
    case EventKind::kStore:
      return {{"event", "store"}, {"state", event.state}, {"error", event.text}};
  }
  return {};
}

}  // namespace

std::string encode_event(const Event& event) {
  Json object{{"schema", 1}, {"time", format_time(event.time)}};
  object.update(fields_of(event));
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace ckpt
