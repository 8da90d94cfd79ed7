// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/store_guard.h"

#include <string_view>

#include "backupd/store/journal_format.h"
#include "common/bytes.h"
#include "common/checksum.h"

namespace ckpt::sim {
namespace {

constexpr std::string_view kStoreImage = "/backup.img";
constexpr std::string_view kStoreRecord = "/volume";
constexpr std::string_view kStoreJournal = "/journal/";
// docs/volume-format.md, "Slots"
constexpr size_t kSlotCount = 4;
constexpr size_t kSlotBytes = 65536;
constexpr size_t kHeaderBytes = 64;

struct DurableSlot {
  uint64_t generation = 0;  // 0: not whole
  ConstByteSpan payload;
};

DurableSlot slot_at(ConstByteSpan bytes) {
  Decoder decoder(bytes.subspan(8));
  const auto generation = decoder.get<uint64_t>();
  const auto length = decoder.get<uint32_t>();
  decoder.get_zeroes(4);
  const Digest digest{decoder.get_array<16>()};
  if (length > kSlotBytes - kHeaderBytes ||
      digest_of(bytes.subspan(kHeaderBytes, length)) != digest) {
    return {};
  }
  return {generation, bytes.subspan(kHeaderBytes, length)};
}

}  // namespace

ConstByteSpan StoreGuard::newest_slot(ConstByteSpan file) {
  DurableSlot newest;
  for (size_t i = 0; file.size() == kSlotCount * kSlotBytes && i < kSlotCount; ++i) {
    const DurableSlot slot = slot_at(file.subspan(i * kSlotBytes, kSlotBytes));
    newest = slot.generation > newest.generation ? slot : newest;
  }
  return newest.payload;
}

std::optional<StoreRecord> StoreGuard::read_record(const std::string& folder) const {
  const auto bytes = disk_.durable(folder + std::string(kStoreRecord));
  auto record = decode_store_record(bytes ? newest_slot(*bytes) : ConstByteSpan());
  return record ? std::optional(std::move(*record)) : std::nullopt;
}

const std::optional<StoreRecord>& StoreGuard::durable_record(const std::string& folder) {
  auto found = records_.find(folder);
  if (found == records_.end()) {
    found = records_.emplace(folder, read_record(folder)).first;
  }
  return found->second;
}

void StoreGuard::on_write(const std::string& path, ByteRange range) {
  IoGuard::on_write(path, range);
  if (!path.ends_with(kStoreImage)) {
    return;
  }
  const auto& record = durable_record(path.substr(0, path.size() - kStoreImage.size()));
  // Before the first checkpoint nobody needs what is there.
  if (!record || (record->last && record->last->id.number <= record->applied)) {
    report("guard: " + path + " is written at " + std::to_string(range.offset) +
           ", and no checkpoint is confirmed durably that it does not have");
  }
}

void StoreGuard::on_give_back(const std::string& path, ByteRange range) {
  IoGuard::on_write(path, range);
}

void StoreGuard::on_synced(const std::string& path, bool done) {
  IoGuard::on_synced(path, done);
  // Until it is opened again it goes by the name that it was made under: volume.new.
  if (const size_t at = path.rfind(kStoreRecord); at != std::string::npos) {
    records_.erase(path.substr(0, at));
  }
}

void StoreGuard::on_remove(const std::string& path) {
  const size_t at = path.rfind(kStoreJournal);
  if (at == std::string::npos) {
    return;
  }
  const std::string folder = path.substr(0, at);
  const auto& record = durable_record(folder);
  const Epoch epoch = parse_journal_name(path.substr(at + kStoreJournal.size()));
  if (!record || !record->last || epoch > record->last->id.number) {
    return;
  }
  if (epoch > record->applied) {
    report("guard: " + path + " is freed, and confirmed, and not applied durably");
  } else if (!disk_.is_clean(folder + std::string(kStoreImage))) {
    report("guard: " + path + " is freed, and not all of the image is durable");
  }
}

void StoreGuard::restart() {
  IoGuard::restart();
  records_.clear();
}

}  // namespace ckpt::sim
