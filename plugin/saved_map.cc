// SPDX-License-Identifier: Apache-2.0
#include "plugin/saved_map.h"

#include "common/checksum.h"

namespace ckpt {
namespace {

constexpr char kSavedMapName[] = "saved-map";
constexpr char kSavedMapTemporaryName[] = "saved-map.new";
constexpr uint32_t kSavedMapMagic = 0x56504b43;  // "CKPV" in the order of the bytes
constexpr uint16_t kSavedMapVersion = 1;
constexpr size_t kSavedMapHeaderBytes = 64;
// Beyond so many runs whole regions are saved: a few blocks too many, and never a file of
// gigabytes.
constexpr size_t kRunsMax = size_t{1} << 20U;

std::vector<BlockRange> runs_of(const ChangeMap& map) {
  std::vector<BlockRange> runs;
  map.for_each_run([&runs](BlockRange run) { runs.push_back(run); });
  if (runs.size() <= kRunsMax) {
    return runs;
  }
  runs.clear();
  for (auto region = map.next_region(0); region; region = map.next_region(*region + 1)) {
    runs.push_back(map.geometry().region_blocks(*region));
  }
  return runs;
}

std::vector<std::byte> encode_map(const Uuid& volume, const ChangeMap& map) {
  const std::vector<BlockRange> runs = runs_of(map);
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
                                           const Geometry& geometry) {
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
    if (first >= geometry.blocks() || length == 0 || length > geometry.blocks() - first) {
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

Result<Digest> save_map(Directory& directory, const Uuid& volume, const ChangeMap& map) {
  if (auto removed = directory.remove(kSavedMapTemporaryName);
      !removed && removed.error().kind != ErrorKind::kNotFound) {
    return Unexpected(removed.error());
  }
  CKPT_ASSIGN(auto file, directory.open(kSavedMapTemporaryName, OpenMode::kCreate));
  const std::vector<std::byte> bytes = encode_map(volume, map);
  CKPT_TRY(file->write(0, bytes));
  CKPT_TRY(file->sync());
  CKPT_TRY(directory.rename(kSavedMapTemporaryName, kSavedMapName));
  CKPT_TRY(directory.sync());
  return digest_of(bytes);
}

Result<std::vector<BlockRange>> load_map(Directory& directory, const Uuid& volume,
                                         const Digest& digest, const Geometry& geometry) {
  CKPT_ASSIGN(auto file, directory.open(kSavedMapName, OpenMode::kRead));
  CKPT_ASSIGN(const uint64_t size_bytes, file->size());
  if (size_bytes > kSavedMapHeaderBytes + 16 * kRunsMax) {
    return fail(ErrorKind::kCorrupt, "saved map: too large");
  }
  std::vector<std::byte> bytes(size_bytes);
  CKPT_TRY(file->read(0, bytes));
  if (digest_of(bytes) != digest) {
    return fail(ErrorKind::kCorrupt, "saved map: its digest is not the recorded one");
  }
  return decode_map(bytes, volume, geometry);
}

}  // namespace ckpt
