// SPDX-License-Identifier: Apache-2.0
#include "plugin/remote_volumes.h"

namespace ckpt {
namespace {

// An older one does not know this role, and refuses hello.
Unexpected older(const Error& error) {
  return error.kind == ErrorKind::kCorrupt || error.kind == ErrorKind::kInvalid
             ? within("the back-up may be too old to be asked which volumes it has (give the UUID)",
                      error)
             : Unexpected(error);
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
    more = part.more;
    volumes.insert(volumes.end(), part.volumes.begin(), part.volumes.end());
  }
  return volumes;
}

}  // namespace ckpt
