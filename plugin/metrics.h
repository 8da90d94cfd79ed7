// SPDX-License-Identifier: Apache-2.0
// A volume's status as metrics, in Prometheus' text exposition format, version 0.0.4.
#pragma once

#include <string>

#include "plugin/volume_api.h"

namespace ckpt {

inline constexpr const char* kMetricsType = "text/plain; version=0.0.4; charset=utf-8";

// served: by a running server. Without one, what is not known is left out rather than zero.
std::string encode_metrics(const VolumeStatus& status, bool served);

}  // namespace ckpt
