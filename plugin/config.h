// SPDX-License-Identifier: Apache-2.0
// The plugin's parameters (design 7).
#pragma once

#include "plugin/local_volume.h"

namespace ckpt {

// Takes one key=value. kInvalid says what is wrong with it, and what would be right.
// Paths are made absolute by the caller's working directory: nbdkit changes it later.
Result<> set_parameter(LocalOptions& options, const std::string& key, const std::string& value);

// What a volume is called where name= is not given: as the image's file; empty if that is no name.
std::string default_name(const std::string& image_path);

// What only all of them together tell: kInvalid says which do not fit.
Result<> check_parameters(const LocalOptions& options);

// "embedded" gives nothing, "embedded:DIR" the absolute path of DIR, anything else the address of a
// backupd.
Result<std::string> parse_backup(const std::string& value);
// The same as a tool's --backup, which an error names.
Result<std::string> parse_backup_option(const std::string& value);

// A size as nbdkit writes them: bytes, or with a suffix of b, s, k, M, G, T, P, E.
Result<uint64_t> parse_size(const std::string& value);

}  // namespace ckpt
