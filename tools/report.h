// SPDX-License-Identifier: Apache-2.0
// What is known of a volume and of what happened to it, as a page to look at and as JSON.
#pragma once

#include <string>
#include <vector>

#include "plugin/control_codec.h"

namespace ckpt {

struct Report {
  VolumeStatus status;
  bool served = false;        // by a running server
  std::vector<Event> events;  // oldest first
  WallTime now{};
};

// Whether the volume is protected, and why not: one sentence.
std::string headline_of(const Report& report);

// One HTML file with all that it needs in it. Whatever names and texts hold is only shown.
std::string report_page(const Report& report);

}  // namespace ckpt
