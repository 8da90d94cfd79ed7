// SPDX-License-Identifier: Apache-2.0
// What a volume's primary calls it, kept beside its store.
//
// Format: docs/store-format.md, "Layout"
#pragma once

#include <string>

#include "common/file.h"

namespace ckpt {

// Replaces the name durably; a crash leaves the old or the new one.
Result<> write_name(Directory& folder, const std::string& name);
// Empty: none was written, or what is there is none. Nothing depends on it but what people see.
std::string read_name(Directory& folder);

}  // namespace ckpt
