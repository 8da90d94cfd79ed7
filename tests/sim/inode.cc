// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/inode.h"

#include <algorithm>
#include <cstring>

#include "common/result.h"

namespace ckpt::sim {
namespace {

// So often the kernel has written a dirty page back by the time that it is overwritten, unasked: a
// loss of power may then find a version that is neither the synced nor the last one.
constexpr uint64_t kWriteBackOneIn = 8;

std::vector<std::byte> bytes_of_pages(size_t page_count, uint64_t size, auto&& page) {
  std::vector<std::byte> bytes(page_count * kPageBytes);
  for (size_t i = 0; i < page_count; ++i) {
    if (const Page& from = page(i); !from.is_hole()) {
      std::memcpy(bytes.data() + i * kPageBytes, from.read(), kPageBytes);
    }
  }
  bytes.resize(size);
  return bytes;
}

}  // namespace

Inode::Inode(Space& space, uint64_t number, uint64_t device, WallTime now)
    : space_(space),
      number_(number),
      device_(device),
      birth_(now),
      modified_(now),
      changed_(now),
      durable_modified_(now),
      durable_changed_(now) {}

FileStamp Inode::stamp() const {
  return {.device = device_,
          .inode = number_,
          .birth = birth_,
          .size_bytes = size_,
          .modified = modified_,
          .changed = changed_};
}

Inode::Slot& Inode::slot(uint64_t offset) {
  const size_t index = offset / kPageBytes;
  if (index >= slots_.size()) {
    slots_.resize(index + 1);
  }
  return slots_[index];
}

void Inode::read(uint64_t offset, ByteSpan buffer) const {
  const size_t index = offset / kPageBytes;
  if (index >= slots_.size() || slots_[index].cached.is_hole()) {
    std::memset(buffer.data(), 0, buffer.size());
    return;
  }
  std::memcpy(buffer.data(), slots_[index].cached.read() + offset % kPageBytes, buffer.size());
}

bool Inode::write(uint64_t offset, ConstByteSpan bytes, WallTime now, SeededRandom& random) {
  Slot& target = slot(offset);
  if (!take_space(target)) {
    return false;
  }
  write_back_by_chance(target, random);
  std::memcpy(target.cached.write() + offset % kPageBytes, bytes.data(), bytes.size());
  target.lost = false;
  size_ = std::max(size_, offset + bytes.size());
  touch(now);
  return true;
}

bool Inode::zero(uint64_t offset, uint64_t length, bool punch, WallTime now, SeededRandom& random) {
  Slot& target = slot(offset);
  const bool whole = offset % kPageBytes == 0 && (length == kPageBytes || offset + length >= size_);
  if (!punch && !take_space(target)) {
    return false;
  }
  if (!target.cached.is_hole()) {
    write_back_by_chance(target, random);
    if (whole) {
      target.cached = Page();
    } else {
      std::memset(target.cached.write() + offset % kPageBytes, 0, length);
    }
  }
  if (whole && punch) {
    give_space(target);
  }
  target.lost = false;
  touch(now);
  return true;
}

bool Inode::allocate(uint64_t page, WallTime now) {
  changed_ = now;
  return take_space(slot(page * kPageBytes));
}

void Inode::resize(uint64_t size, WallTime now) {
  if (size < size_) {
    cut_pages(size);
  }
  size_ = size;
  touch(now);
}

// What lies beyond the new size reads as zeroes should the file grow again.
void Inode::cut_pages(uint64_t size) {
  const size_t kept = block_count(size);
  for (size_t i = kept; i < slots_.size(); ++i) {
    slots_[i].cached = Page();
    slots_[i].lost = false;
    give_space(slots_[i]);
  }
  const size_t tail = size % kPageBytes;
  if (tail != 0 && kept <= slots_.size() && !slots_[kept - 1].cached.is_hole()) {
    std::memset(slots_[kept - 1].cached.write() + tail, 0, kPageBytes - tail);
  }
}

std::optional<ByteRange> Inode::next_data(uint64_t offset) const {
  const auto is_data = [](const Slot& candidate) { return !candidate.cached.is_hole(); };
  const auto from =
      slots_.begin() + static_cast<ptrdiff_t>(std::min(offset / kPageBytes, slots_.size()));
  const auto first = std::find_if(from, slots_.end(), is_data);
  const auto last = std::find_if_not(first, slots_.end(), is_data);
  const auto begin = static_cast<uint64_t>(first - slots_.begin()) * kPageBytes;
  const auto end = static_cast<uint64_t>(last - slots_.begin()) * kPageBytes;
  if (first == slots_.end() || std::max(begin, offset) >= size_) {
    return std::nullopt;
  }
  return ByteRange{std::max(begin, offset), std::min(end, size_) - std::max(begin, offset)};
}

// ---- what becomes durable

void Inode::write_back_by_chance(Slot& slot, SeededRandom& random) {
  if (slot.dirty() && !slot.lost && random.one_in(kWriteBackOneIn)) {
    slot.durable = slot.cached;
  }
}

void Inode::sync(SeededRandom& random) {
  for (Slot& slot : slots_) {
    if (!slot.lost) {
      slot.durable = slot.cached;
    }
  }
  // fdatasync(2) may leave times that no size depends on for later.
  if (size_ != durable_size_ || random.one_in(2)) {
    durable_modified_ = modified_;
    durable_changed_ = changed_;
  }
  durable_size_ = size_;
}

void Inode::fail_sync(SeededRandom& random) {
  for (Slot& slot : slots_) {
    if (!slot.dirty() || slot.lost) {
      continue;
    }
    if (random.one_in(2)) {
      slot.durable = slot.cached;
    } else {
      slot.lost = true;
    }
  }
}

void Inode::lose_power(SeededRandom& random) {
  lose_size(random);
  slots_.resize(std::max<size_t>(slots_.size(), block_count(size_)));
  for (Slot& slot : slots_) {
    if (slot.dirty()) {
      lose_page(slot, random);
    }
  }
  cut_pages(size_);
  for (Slot& slot : slots_) {
    slot.durable = slot.cached;
    slot.allocated = slot.allocated || !slot.cached.is_hole();
    slot.lost = false;
  }
  if (random.one_in(2)) {
    modified_ = durable_modified_;
    changed_ = durable_changed_;
  }
  durable_modified_ = modified_;
  durable_changed_ = changed_;
  durable_size_ = size_;
}

// Kept, dropped, or somewhere between: a file may have grown in several steps.
void Inode::lose_size(SeededRandom& random) {
  if (size_ == durable_size_ || random.one_in(3)) {
    return;
  }
  const uint64_t low_pages = std::min(size_, durable_size_) / kPageBytes;
  const uint64_t high_pages = std::max(size_, durable_size_) / kPageBytes;
  if (random.one_in(2) && high_pages > low_pages + 1) {
    size_ = random.between(low_pages + 1, high_pages - 1) * kPageBytes;
  } else {
    size_ = durable_size_;
  }
}

void Inode::lose_page(Slot& slot, SeededRandom& random) {
  switch (random.below(3)) {
    case 0: break;
    case 1: slot.cached = slot.durable; break;
    default: slot.cached = Page::torn(slot.cached, slot.durable, random);
  }
}

// ---- for the oracle

std::vector<std::byte> Inode::content() const {
  return bytes_of_pages(slots_.size(), size_, [&](size_t i) { return slots_[i].cached; });
}

std::vector<std::byte> Inode::durable_content() const {
  return bytes_of_pages(slots_.size(), durable_size_, [&](size_t i) { return slots_[i].durable; });
}

std::byte Inode::durable_byte(uint64_t offset) const {
  const size_t index = offset / kPageBytes;
  if (offset >= durable_size_ || index >= slots_.size() || slots_[index].durable.is_hole()) {
    return std::byte{0};
  }
  return slots_[index].durable.read()[offset % kPageBytes];
}

bool Inode::is_clean() const {
  return size_ == durable_size_ &&
         std::none_of(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.dirty(); });
}

bool Inode::is_clean(ByteRange range) const {
  const size_t end = std::min<size_t>(slots_.size(), (range.end() + kPageBytes - 1) / kPageBytes);
  for (size_t page = range.offset / kPageBytes; page < end; ++page) {
    if (slots_[page].dirty()) {
      return false;
    }
  }
  return true;
}

void Inode::tamper(uint64_t offset, ConstByteSpan bytes, WallTime now) {
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), kPageBytes - offset % kPageBytes);
    Slot& target = slot(offset);
    std::memcpy(target.cached.write() + offset % kPageBytes, bytes.data(), count);
    target.durable = target.cached;
    offset += count;
    bytes = bytes.subspan(count);
  }
  size_ = durable_size_ = std::max(size_, offset);
  touch(now);
  durable_modified_ = durable_changed_ = now;
}

// ---- space

bool Inode::take_space(Slot& slot) {
  if (slot.allocated) {
    return true;
  }
  if (charged_ && space_.free_bytes() < kPageBytes) {
    return false;
  }
  slot.allocated = true;
  allocated_bytes_ += kPageBytes;
  space_.used_bytes += charged_ ? kPageBytes : 0;
  return true;
}

void Inode::give_space(Slot& slot) {
  if (slot.allocated) {
    slot.allocated = false;
    allocated_bytes_ -= kPageBytes;
    space_.used_bytes -= charged_ ? kPageBytes : 0;
  }
}

void Inode::release_space() {
  if (charged_) {
    space_.used_bytes -= allocated_bytes_;
    charged_ = false;
  }
}

void Inode::close() {
  // A loss of power has closed all handles, those of processes that are still to be cleaned up too.
  if (handles_ != 0 && --handles_ == 0 && !linked_) {
    release_space();
  }
}

void Inode::unlink() {
  linked_ = false;
  if (handles_ == 0) {
    release_space();
  }
}

void Inode::recount(bool linked) {
  linked_ = linked;
  handles_ = 0;
  release_space();
  allocated_bytes_ = 0;
  for (const Slot& slot : slots_) {
    allocated_bytes_ += slot.allocated ? kPageBytes : 0;
  }
  if (linked) {
    charged_ = true;
    space_.used_bytes += allocated_bytes_;
  }
}

}  // namespace ckpt::sim
