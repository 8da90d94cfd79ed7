// SPDX-License-Identifier: Apache-2.0
// Runs every target over every file of its corpus, and over each cut short.
//
// Usage: fuzz_replay CORPUS. Exit code 1: a target accepts nothing of its corpus, or has none; or a
// corpus has no target.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

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

// Whether it is accepted.
bool replay_file(const ckpt::fuzz::Target& target, const fs::path& path) {
  std::printf("%s %s\n", target.name, path.filename().c_str());  // seen if the next one crashes
  std::fflush(stdout);
  const auto bytes = read_file(path);
  for (size_t cut = 0; cut < kCuts; ++cut) {
    (void)target.run(ckpt::ConstByteSpan(bytes).first(bytes.size() * cut / kCuts));
  }
  const bool is_accepted = target.run(bytes);
  std::printf("%s\n", is_accepted ? "  accepted" : "  refused");
  return is_accepted;
}

// How many files it was run over. Nothing: it accepts none of them, and so hardly anything was
// tested.
std::optional<size_t> replay(const ckpt::fuzz::Target& target, const fs::path& corpus) {
  size_t files = 0;
  size_t accepted = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(corpus / target.name, error)) {
    accepted += replay_file(target, entry.path()) ? 1 : 0;
    ++files;
  }
  if (accepted == 0) {
    std::fprintf(stderr, "%s: accepts none of %zu inputs\n", target.name, files);
    return std::nullopt;
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
    const auto replayed = replay(target, argv[1]);
    good = good && replayed;
    files += replayed.value_or(0);
  }
  std::printf("%zu files\n", files);
  return good ? 0 : 1;
}
