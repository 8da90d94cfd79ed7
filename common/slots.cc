// SPDX-License-Identifier: Apache-2.0
#include "common/slots.h"

#include <algorithm>

#include "common/checksum.h"
#include "common/mutex.h"

namespace ckpt {
namespace {

constexpr uint32_t kSlotMagic = 0x53504b43;  // "CKPS" in the order of the bytes
constexpr uint16_t kSlotVersion = 1;
constexpr uint64_t kSlotBytes = 65536;
constexpr uint64_t kCopies = 2;
constexpr size_t kSlotHeaderBytes = 64;
static_assert(kSlotHeaderBytes + kSlotPayloadBytesMax <= kSlotBytes);

enum class Condition { kEmpty, kValid, kDamaged, kNewer };

struct Slot {
  Condition condition = Condition::kDamaged;
  uint64_t generation = 0;
  std::vector<std::byte> payload;
};

uint64_t slot_offset(uint64_t generation, uint64_t copy) {
  return (generation % 2 * kCopies + copy) * kSlotBytes;
}

std::vector<std::byte> encode_slot(uint64_t generation, ConstByteSpan payload) {
  Encoder encoder;
  encoder.put(kSlotMagic);
  encoder.put(kSlotVersion);
  encoder.put(uint16_t{0});
  encoder.put(generation);
  encoder.put(static_cast<uint32_t>(payload.size()));
  encoder.put_zeroes(4);
  encoder.put_array(digest_of(payload).bytes);
  encoder.put_zeroes(kSlotHeaderBytes - encoder.size() - sizeof(uint32_t));
  encoder.put(crc32c(encoder.bytes()));
  encoder.put_bytes(payload);
  return encoder.take();
}

Slot decode_slot(ConstByteSpan bytes, uint64_t parity) {
  Slot slot;
  if (is_zero(bytes)) {
    slot.condition = Condition::kEmpty;
    return slot;
  }
  const ConstByteSpan header = bytes.first(kSlotHeaderBytes);
  Decoder decoder(header);
  const bool ours = decoder.get<uint32_t>() == kSlotMagic;
  const auto version = decoder.get<uint16_t>();
  const bool known = ours && version == kSlotVersion && decoder.get<uint16_t>() == 0;
  if (ours && version > kSlotVersion) {
    slot.condition = Condition::kNewer;
    return slot;
  }
  slot.generation = decoder.get<uint64_t>();
  const auto length = decoder.get<uint32_t>();
  decoder.get_zeroes(4);
  const Digest digest{decoder.get_array<16>()};
  decoder.get_zeroes(decoder.remaining() - sizeof(uint32_t));
  const bool intact =
      decoder.get<uint32_t>() == crc32c(header.first(kSlotHeaderBytes - sizeof(uint32_t)));
  if (!known || !intact || !decoder.ok() || length > kSlotPayloadBytesMax || slot.generation == 0 ||
      slot.generation % 2 != parity) {
    return slot;
  }
  const ConstByteSpan payload = bytes.subspan(kSlotHeaderBytes, length);
  if (digest_of(payload) == digest) {
    slot.condition = Condition::kValid;
    slot.payload.assign(payload.begin(), payload.end());
  }
  return slot;
}

// A crash leaves at most one such copy of a generation. One that looks newer may be a flipped bit.
bool is_useless(const Slot& slot) {
  return slot.condition == Condition::kDamaged || slot.condition == Condition::kNewer;
}

// The newest generation among slots, or a null pointer if they say that none is to be trusted.
const Slot* newest(const std::vector<Slot>& slots) {
  const Slot* best = nullptr;
  for (uint64_t parity = 0; parity < 2; ++parity) {
    const Slot& first = slots[parity * kCopies];
    const Slot& second = slots[parity * kCopies + 1];
    if (is_useless(first) && is_useless(second)) {
      return nullptr;
    }
    for (const Slot* slot : {&first, &second}) {
      if (slot->condition == Condition::kValid &&
          (best == nullptr || slot->generation > best->generation)) {
        best = slot;
      }
    }
  }
  return best;
}

}  // namespace

Result<Slots> Slots::create(Directory& directory, const std::string& name, ConstByteSpan payload) {
  const std::string temporary = name + ".new";
  if (auto removed = directory.remove(temporary);
      !removed && removed.error().kind != ErrorKind::kNotFound) {
    return Unexpected(removed.error());
  }
  CKPT_ASSIGN(auto file, directory.open(temporary, OpenMode::kCreate));
  Slots slots(std::move(file), directory.path() + "/" + name);
  CKPT_TRY(slots.file_->allocate({0, 2 * kCopies * kSlotBytes}));
  CKPT_TRY(slots.file_->resize(2 * kCopies * kSlotBytes));
  CKPT_TRY(slots.write(payload));
  CKPT_TRY(directory.rename(temporary, name));
  CKPT_TRY(directory.sync());
  return slots;
}

Result<Slots> Slots::open(Directory& directory, const std::string& name) {
  CKPT_ASSIGN(auto file, directory.open(name, OpenMode::kReadWrite));
  Slots slots(std::move(file), directory.path() + "/" + name);
  CKPT_TRY(slots.load());
  return slots;
}

Result<> Slots::load() {
  // What a killed process wrote may be in the page cache only.
  if (!CKPT_PLANTED(recover_without_sync)) {
    CKPT_TRY(file_->sync());
  }
  CKPT_ASSIGN(const uint64_t size_bytes, file_->size());
  if (size_bytes != 2 * kCopies * kSlotBytes) {
    return fail(ErrorKind::kCorrupt,
                name_ + " has " + std::to_string(size_bytes) + " bytes, not the " +
                    std::to_string(2 * kCopies * kSlotBytes) + " of such a file");
  }
  std::vector<Slot> slots;
  std::vector<std::byte> bytes(kSlotBytes);
  for (uint64_t i = 0; i < 2 * kCopies; ++i) {
    CKPT_TRY(file_->read(i * kSlotBytes, bytes));
    slots.push_back(decode_slot(bytes, i / kCopies));
  }
  const Slot* slot = newest(slots);
  if (std::ranges::any_of(slots,
                          [](const Slot& one) { return one.condition == Condition::kDamaged; })) {
    CKPT_PROBE(slot_was_torn);
  }
  const auto is_newer = [](const Slot& one) { return one.condition == Condition::kNewer; };
  if (slot == nullptr && std::ranges::count_if(slots, is_newer) >= static_cast<int>(kCopies)) {
    return fail(ErrorKind::kInvalid,
                name_ + ": written by a newer version of ckpt; use one as new");
  }
  if (slot == nullptr) {
    return fail(ErrorKind::kCorrupt, name_ + ": both copies of a generation are damaged");
  }
  generation_ = slot->generation;
  payload_ = slot->payload;
  return {};
}

Result<> Slots::write(ConstByteSpan payload) {
  CKPT_CHECK(payload.size() <= kSlotPayloadBytesMax);
  if (failed_) {
    return Unexpected(*failed_);
  }
  if (auto written = write_generation(generation_ + 1, payload); !written) {
    failed_ = written.error();
    return within(name_, written.error());
  }
  ++generation_;
  payload_.assign(payload.begin(), payload.end());
  return {};
}

Result<> Slots::write_generation(uint64_t generation, ConstByteSpan payload) {
  const std::vector<std::byte> slot = encode_slot(generation, payload);
  for (uint64_t copy = 0; copy < kCopies; ++copy) {
    CKPT_TRY(file_->write(slot_offset(generation, copy), slot));
    if (auto synced = file_->sync(); !synced) {
      // Whatever the errno: after a failed sync nothing can be taken back.
      return fail(ErrorKind::kIo, synced.error().context, synced.error().number);
    }
  }
  return {};
}

}  // namespace ckpt
