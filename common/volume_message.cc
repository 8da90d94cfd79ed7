// SPDX-License-Identifier: Apache-2.0
#include "common/volume_message.h"

#include "common/whole_body.h"

namespace ckpt {

std::vector<std::byte> encode_name(const std::string& name) {
  Encoder encoder;
  encoder.put_string(name);
  return encoder.take();
}

Result<std::string> decode_name(ConstByteSpan body) {
  Decoder decoder(body);
  std::string name = decoder.get_string();
  const bool valid = valid_volume_name(name);
  return whole(decoder, valid, FrameType::kName, std::move(name));
}

std::vector<std::byte> encode_place(const PrimaryPlace& place) {
  Encoder encoder;
  encoder.put_array(place.identity.bytes);
  encoder.put_string(place.host);
  encoder.put_string(place.path);
  return encoder.take();
}

Result<PrimaryPlace> decode_place(ConstByteSpan body) {
  Decoder decoder(body);
  PrimaryPlace place;
  place.identity.bytes = decoder.get_array<16>();
  place.host = decoder.get_string();
  place.path = decoder.get_string();
  return whole(decoder, valid_place(place), FrameType::kBeginSession, place);
}

std::vector<std::byte> encode_volumes(const VolumesRequest& request) {
  Encoder encoder;
  encoder.put_array(request.after.bytes);
  encoder.put_string(request.name);
  return encoder.take();
}

Result<VolumesRequest> decode_volumes(ConstByteSpan body) {
  Decoder decoder(body);
  VolumesRequest request;
  request.after.bytes = decoder.get_array<16>();
  request.name = decoder.get_string();
  return whole(decoder, request.name.empty() || valid_volume_name(request.name),
               FrameType::kVolumes, request);
}

std::vector<std::byte> encode_volume_list(const VolumeList& list) {
  Encoder encoder;
  encoder.put(static_cast<uint32_t>(list.volumes.size()));
  encoder.put(uint32_t{list.more ? 1U : 0U});
  for (const NamedVolume& one : list.volumes) {
    encoder.put_array(one.volume.bytes);
    encoder.put(one.size_bytes);
    encoder.put_string(one.name);
  }
  return encoder.take();
}

Result<VolumeList> decode_volume_list(ConstByteSpan body) {
  Decoder decoder(body);
  VolumeList list;
  const auto count = decoder.get<uint32_t>();
  const auto more = decoder.get<uint32_t>();
  list.more = more == 1;
  bool valid = count <= kVolumesPerAnswer && more <= 1 && (more == 0 || count > 0);
  Uuid last;
  while (valid && list.volumes.size() < count) {
    NamedVolume one;
    one.volume.bytes = decoder.get_array<16>();
    one.size_bytes = decoder.get<uint64_t>();
    one.name = decoder.get_string();
    valid = last < one.volume && one.size_bytes <= kDiskBytesMax &&
            (one.name.empty() || valid_volume_name(one.name));
    last = one.volume;
    list.volumes.push_back(std::move(one));
  }
  return whole(decoder, valid, FrameType::kVolumeList, list);
}

std::vector<std::byte> encode_release(const ReleaseRequest& request) {
  Encoder encoder;
  encoder.put_array(request.volume.bytes);
  encoder.put(uint8_t{request.force ? uint8_t{1} : uint8_t{0}});
  encoder.put_zeroes(7);
  return encoder.take();
}

Result<ReleaseRequest> decode_release(ConstByteSpan body) {
  Decoder decoder(body);
  ReleaseRequest request;
  request.volume.bytes = decoder.get_array<16>();
  const auto force = decoder.get<uint8_t>();
  decoder.get_zeroes(7);
  request.force = force == 1;
  return whole(decoder, force <= 1 && !request.volume.is_nil(), FrameType::kRelease, request);
}

}  // namespace ckpt
