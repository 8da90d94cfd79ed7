// SPDX-License-Identifier: Apache-2.0
// The least that a confirmed checkpoint costs, for comparison: reads ranges of a file, compresses
// them in batches, writes those to a new file, and syncs it. Nothing else.
//
// Usage: limit SOURCE TARGET < RANGES, a line "OFFSET LENGTH" each. Prints seconds, from the first
// read to the end of the sync.
#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <vector>

namespace {

constexpr size_t kBatchBytes = size_t{1} << 20U;
constexpr int kLevel = 1;

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

struct Range {
  off_t offset = 0;
  size_t length = 0;
};

std::vector<Range> read_ranges() {
  std::vector<Range> ranges;
  Range range;
  while (std::cin >> range.offset >> range.length) {
    ranges.push_back(range);
  }
  return ranges;
}

class Target {
 public:
  Target(const char* path, size_t bytes) : fd_(::open(path, O_WRONLY | O_CREAT | O_EXCL, 0600)) {
    if (fd_ < 0 || ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes)) != 0) {
      fail(path);
    }
  }
  // Compresses and writes it.
  void put(const std::vector<char>& batch) {
    const size_t size = ZSTD_compressCCtx(context_.get(), packed_.data(), packed_.size(),
                                          batch.data(), batch.size(), kLevel);
    if (ZSTD_isError(size) != 0 ||
        ::pwrite(fd_, packed_.data(), size, end_) != static_cast<ssize_t>(size)) {
      fail("write");
    }
    end_ += static_cast<off_t>(size);
  }
  void sync() const {
    if (::fdatasync(fd_) != 0) {
      fail("fdatasync");
    }
  }

 private:
  const int fd_;
  off_t end_ = 0;
  std::vector<char> packed_ = std::vector<char>(ZSTD_compressBound(2 * kBatchBytes));
  std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context_{ZSTD_createCCtx(), ZSTD_freeCCtx};
};

void copy(int source, Target& target, const std::vector<Range>& ranges) {
  std::vector<char> batch;
  for (const Range& range : ranges) {
    const size_t begin = batch.size();
    batch.resize(begin + range.length);
    if (::pread(source, batch.data() + begin, range.length, range.offset) !=
        static_cast<ssize_t>(range.length)) {
      fail("read");
    }
    if (batch.size() >= kBatchBytes) {
      target.put(batch);
      batch.clear();
    }
  }
  target.put(batch);
  target.sync();
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) {
    std::fprintf(stderr, "usage: limit SOURCE TARGET < RANGES\n");
    return 2;
  }
  const int source = ::open(words[1], O_RDONLY);
  if (source < 0) {
    fail(words[1]);
  }
  const std::vector<Range> ranges = read_ranges();
  size_t bytes = kBatchBytes;
  for (const Range& range : ranges) {
    bytes += range.length + (range.length >> 7U);
    if (range.length > kBatchBytes) {
      std::fprintf(stderr, "limit: a range is longer than %zu bytes\n", kBatchBytes);
      return 2;
    }
  }
  Target target(words[2], bytes);
  const auto began = std::chrono::steady_clock::now();
  copy(source, target, ranges);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - began;
  std::printf("%.6f\n", taken.count());
  return 0;
}
