// SPDX-License-Identifier: Apache-2.0
// The content of a simulated file, twice: as the page cache has it, and as the disk has it.
#pragma once

#include <optional>
#include <vector>

#include "common/file.h"
#include "tests/sim/page.h"

namespace ckpt::sim {

// Bytes that can be taken of a file system, and how many are.
struct Space {
  uint64_t capacity_bytes = uint64_t{1} << 40U;
  uint64_t used_bytes = 0;
  [[nodiscard]] uint64_t free_bytes() const {
    return used_bytes < capacity_bytes ? capacity_bytes - used_bytes : 0;
  }
};

// No yield points: these are the instants between them.
class Inode {
 public:
  Inode(Space& space, uint64_t number, uint64_t device, WallTime now);
  ~Inode() { release_space(); }
  Inode(const Inode&) = delete;
  Inode& operator=(const Inode&) = delete;

  // ---- as a process sees it: the cache

  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] FileStamp stamp() const;
  // The range lies within one page, and within the size.
  void read(uint64_t offset, ByteSpan buffer) const;
  // The range lies within one page. Takes space if it has to; the size grows. False: no space.
  // Before, chance may have the kernel write the page back as it was.
  bool write(uint64_t offset, ConstByteSpan bytes, WallTime now, SeededRandom& random);
  // Within one page. Whole pages become holes that keep their space, or give it back.
  bool zero(uint64_t offset, uint64_t length, bool punch, WallTime now, SeededRandom& random);
  bool allocate(uint64_t page, WallTime now);
  void resize(uint64_t size, WallTime now);
  [[nodiscard]] std::optional<ByteRange> next_data(uint64_t offset) const;

  // ---- what becomes durable

  // All that is in the cache, but what a failed sync lost.
  void sync(SeededRandom& random);
  // Some dirty pages get to the disk. The others count as clean from now on, though they are not:
  // as Linux does it, the error is told once and later syncs succeed.
  void fail_sync(SeededRandom& random);
  // The cache is gone. Of what was not synced each page is kept, dropped or torn.
  void lose_power(SeededRandom& random);

  // ---- for the oracle

  [[nodiscard]] std::vector<std::byte> content() const;
  [[nodiscard]] std::vector<std::byte> durable_content() const;
  [[nodiscard]] std::byte durable_byte(uint64_t offset) const;
  // Whether a loss of power would change nothing.
  [[nodiscard]] bool is_clean() const;
  // The same of a part of its content.
  [[nodiscard]] bool is_clean(ByteRange range) const;
  // What another program does to the file, durable at once.
  void tamper(uint64_t offset, ConstByteSpan bytes, WallTime now);

  // ---- space

  // Handles that are open, and whether a directory has it: without either its space is given back.
  void open() { ++handles_; }
  void close();
  void link() { linked_ = true; }
  void unlink();
  // After a loss of power: counts it again, or not.
  void recount(bool linked);

 private:
  struct Slot {
    Page cached;
    Page durable;
    bool allocated = false;
    bool lost = false;  // dirty, but no later sync will write it
    [[nodiscard]] bool dirty() const { return !cached.same_as(durable); }
  };

  Slot& slot(uint64_t offset);
  void write_back_by_chance(Slot& slot, SeededRandom& random);
  bool take_space(Slot& slot);
  void give_space(Slot& slot);
  void release_space();
  void cut_pages(uint64_t size);
  void touch(WallTime now) { modified_ = changed_ = now; }
  void lose_size(SeededRandom& random);
  void lose_page(Slot& slot, SeededRandom& random);

  Space& space_;  // the disk's, which outlives every inode
  uint64_t number_;
  uint64_t device_;
  WallTime birth_;
  uint64_t size_ = 0;
  uint64_t durable_size_ = 0;
  WallTime modified_;
  WallTime changed_;
  WallTime durable_modified_;
  WallTime durable_changed_;
  std::vector<Slot> slots_;
  uint64_t allocated_bytes_ = 0;
  uint32_t handles_ = 0;
  bool linked_ = false;
  bool charged_ = true;  // allocated_bytes_ is in space_.used_bytes
};

}  // namespace ckpt::sim
