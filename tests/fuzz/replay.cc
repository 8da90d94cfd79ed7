// SPDX-License-Identifier: Apache-2.0
// Runs every target over every file of its corpus, and over each cut short.
//
// Usage: fuzz_replay CORPUS. Exit code 1: a target has no corpus, or a corpus no target.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/fuzz/target.h"

namespace {

namespace fs = std::filesystem;

// Cut short at this many places, evenly.
constexpr size_t kCuts = 64;

std::vector<std::byte> read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto bytes = ckpt::as_bytes_of(text);
  return {bytes.begin(), bytes.end()};
}

void replay_file(const ckpt::fuzz::Target& target, const fs::path& path) {
  std::printf("%s %s\n", target.name, path.filename().c_str());  // seen if the next one crashes
  std::fflush(stdout);
  const auto bytes = read_file(path);
  target.run(bytes);
  for (size_t cut = 0; cut < kCuts; ++cut) {
    target.run(ckpt::ConstByteSpan(bytes).first(bytes.size() * cut / kCuts));
  }
}

// How many files it was run over.
size_t replay(const ckpt::fuzz::Target& target, const fs::path& corpus) {
  size_t files = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(corpus / target.name, error)) {
    replay_file(target, entry.path());
    ++files;
  }
  if (files == 0) {
    std::fprintf(stderr, "%s: no corpus\n", target.name);
  }
  return files;
}

bool all_known(const fs::path& corpus) {
  bool known = true;
  for (const auto& entry : fs::directory_iterator(corpus)) {
    if (ckpt::fuzz::find_target(entry.path().filename().string()) == nullptr) {
      std::fprintf(stderr, "%s: no such target\n", entry.path().c_str());
      known = false;
    }
  }
  return known;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || !fs::is_directory(argv[1])) {
    std::fputs("usage: fuzz_replay CORPUS\n", stderr);
    return 2;
  }
  bool good = all_known(argv[1]);
  size_t files = 0;
  for (const auto& target : ckpt::fuzz::all_targets()) {
    const size_t replayed = replay(target, argv[1]);
    good = good && replayed > 0;
    files += replayed;
  }
  std::printf("%zu files\n", files);
  return good ? 0 : 1;
}
