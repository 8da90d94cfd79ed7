// SPDX-License-Identifier: Apache-2.0
#include "plugin/remote_volumes.h"

#include <algorithm>

namespace ckpt {
namespace {

// More than any back-up has: a list that is longer never ends.
constexpr size_t kVolumesMax = 1000000;

// An older one does not know this role: it takes hello for damaged.
Unexpected older(const Error& error) {
  return error.kind == ErrorKind::kCorrupt
             ? within("the back-up may be too old to be asked which volumes it has (give the UUID)",
                      error)
             : Unexpected(error);
}

// Whether a part of the list goes on after that volume, with what was asked for.
bool goes_on(const VolumeList& part, const Uuid& after, const std::string& name) {
  const bool is_named = std::ranges::all_of(
      part.volumes, [&name](const NamedVolume& one) { return name.empty() || one.name == name; });
  return is_named && (part.volumes.empty() || after < part.volumes.front().volume);
}

}  // namespace

Result<std::vector<NamedVolume>> list_remote_volumes(const RemoteOptions& options,
                                                     const std::string& name,
                                                     const ConnectStream& connect) {
  RemoteOptions visited = options;
  visited.volume = Uuid{};
  visited.size_bytes = 0;
  StoreDialer dialer(visited, connect);
  auto call = dialer.dial(Role::kVisitor);
  if (!call) {
    return older(call.error());
  }
  std::vector<NamedVolume> volumes;
  bool more = true;
  while (more) {
    const Uuid after = volumes.empty() ? Uuid{} : volumes.back().volume;
    CKPT_ASSIGN(
        const ConstByteSpan body,
        (**call)->ask(FrameType::kVolumes, encode_volumes({after, name}), FrameType::kVolumeList));
    CKPT_ASSIGN(VolumeList part, decode_volume_list(body));
    if (!goes_on(part, after, name) || volumes.size() > kVolumesMax) {
      return fail(ErrorKind::kCorrupt,
                  options.address.to_string() + ": its list of volumes has no order, or no end");
    }
    more = part.more;
    volumes.insert(volumes.end(), part.volumes.begin(), part.volumes.end());
  }
  return volumes;
}

}  // namespace ckpt
