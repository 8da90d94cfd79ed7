// SPDX-License-Identifier: Apache-2.0
// The bodies of frames about the volumes of a back-up: what they are called, where their primaries
// are, and which is to be let go of.
//
// Format: docs/wire-protocol.md, "Messages"
#pragma once

#include "common/frame.h"
#include "common/primary_place.h"
#include "common/volume_name.h"

namespace ckpt {

// Volumes that come after that one, and are called so.
struct VolumesRequest {
  Uuid after;        // nil: from the first
  std::string name;  // empty: whatever they are called
};

// A volume that the daemon is to let go of.
struct ReleaseRequest {
  Uuid volume;
  bool force = false;  // also while its primary is connected
};

// A name that is not valid is refused.
std::vector<std::byte> encode_name(const std::string& name);
Result<std::string> decode_name(ConstByteSpan body);
// Of `begin session`, where it says which primary it is. One that is not valid is refused.
std::vector<std::byte> encode_place(const PrimaryPlace& place);
Result<PrimaryPlace> decode_place(ConstByteSpan body);
std::vector<std::byte> encode_volumes(const VolumesRequest& request);
Result<VolumesRequest> decode_volumes(ConstByteSpan body);
std::vector<std::byte> encode_volume_list(const VolumeList& list);
Result<VolumeList> decode_volume_list(ConstByteSpan body);
std::vector<std::byte> encode_release(const ReleaseRequest& request);
Result<ReleaseRequest> decode_release(ConstByteSpan body);

}  // namespace ckpt
