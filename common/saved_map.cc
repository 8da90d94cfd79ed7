// SPDX-License-Identifier: Apache-2.0
#include "common/saved_map.h"

#include "common/checksum.h"

namespace ckpt {
namespace {

constexpr uint32_t kSavedMapMagic = 0x56504b43;  // "CKPV" in the order of the bytes
constexpr uint16_t kSavedMapVersion = 1;
constexpr size_t kSavedMapHeaderBytes = 64;

std::vector<std::byte> encode_map(const Uuid& volume, std::span<const BlockRange> runs) {
  CKPT_CHECK(runs.size() <= kSavedRunsMax);
  Encoder encoder;
  encoder.put(kSavedMapMagic);
  encoder.put(kSavedMapVersion);
  encoder.put(uint16_t{0});
  encoder.put_array(volume.bytes);
  encoder.put(uint64_t{runs.size()});
  encoder.put_zeroes(kSavedMapHeaderBytes - encoder.size());
  for (const BlockRange& run : runs) {
    encoder.put(run.first);
    encoder.put(run.count());
  }
  return encoder.take();
}

Result<std::vector<BlockRange>> decode_map(ConstByteSpan bytes, const Uuid& volume,
                                           uint64_t blocks) {
  Decoder decoder(bytes);
  const bool known = decoder.get<uint32_t>() == kSavedMapMagic &&
                     decoder.get<uint16_t>() == kSavedMapVersion && decoder.get<uint16_t>() == 0 &&
                     decoder.get_array<16>() == volume.bytes;
  const auto count = decoder.get<uint64_t>();
  decoder.get_zeroes(kSavedMapHeaderBytes - 32);
  const bool whole = decoder.remaining() / 16 == count && decoder.remaining() % 16 == 0;
  std::vector<BlockRange> runs;
  for (uint64_t i = 0; known && whole && i < count; ++i) {
    const auto first = decoder.get<uint64_t>();
    const auto length = decoder.get<uint64_t>();
    if (first >= blocks || length == 0 || length > blocks - first) {
      return fail(ErrorKind::kCorrupt, "saved map: a run is not on the disk");
    }
    runs.push_back({first, first + length});
  }
  if (!known || !whole || !decoder.ok()) {
    return fail(ErrorKind::kCorrupt, "saved map: not valid, or of another volume");
  }
  return runs;
}

}  // namespace

Result<Digest> save_map(Directory& directory, const std::string& name, const Uuid& volume,
                        std::span<const BlockRange> runs) {
  const std::string temporary = name + ".new";
  if (auto removed = directory.remove(temporary);
      !removed && removed.error().kind != ErrorKind::kNotFound) {
    return Unexpected(removed.error());
  }
  CKPT_ASSIGN(auto file, directory.open(temporary, OpenMode::kCreate));
  const std::vector<std::byte> bytes = encode_map(volume, runs);
  CKPT_TRY(file->write(0, bytes));
  CKPT_TRY(file->sync());
  CKPT_TRY(directory.rename(temporary, name));
  CKPT_TRY(directory.sync());
  return digest_of(bytes);
}

Result<std::vector<BlockRange>> load_map(Directory& directory, const std::string& name,
                                         const Uuid& volume, const Digest& digest,
                                         uint64_t blocks) {
  CKPT_ASSIGN(auto file, directory.open(name, OpenMode::kRead));
  CKPT_ASSIGN(const uint64_t size_bytes, file->size());
  if (size_bytes > kSavedMapHeaderBytes + 16 * kSavedRunsMax) {
    return fail(ErrorKind::kCorrupt, "saved map: too large");
  }
  std::vector<std::byte> bytes(size_bytes);
  CKPT_TRY(file->read(0, bytes));
  if (digest_of(bytes) != digest) {
    return fail(ErrorKind::kCorrupt, "saved map: its digest is not the recorded one");
  }
  return decode_map(bytes, volume, blocks);
}

}  // namespace ckpt
