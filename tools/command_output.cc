// SPDX-License-Identifier: Apache-2.0
#include "tools/command_output.h"

#include <filesystem>
#include <fstream>

namespace ckpt {
namespace {

constexpr size_t kOutputPieceBytes = 65536;

}  // namespace

CommandOutput::CommandOutput(std::string path) : path_(std::move(path)) {
  std::error_code missing;
  const auto size = std::filesystem::file_size(path_, missing);
  offset_ = missing ? 0 : size;
}

std::string CommandOutput::next() {
  std::ifstream file(path_, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset_));
  std::string text(kOutputPieceBytes, 0);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  offset_ += text.size();
  return text;
}

}  // namespace ckpt
