// SPDX-License-Identifier: Apache-2.0
// Precompiled: the large headers of libraries that nearly every file of the tool needs.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
