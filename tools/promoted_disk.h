// SPDX-License-Identifier: Apache-2.0
// A disk that is the checkpoint at which its back-up was promoted, and of which there may be no
// back-up yet.
#pragma once

#include <memory>
#include <optional>

#include "tools/open_volume.h"

namespace ckpt {

struct PromotedDisk {
  std::unique_ptr<VolumeApi> store;  // has the checkpoint's attachments
  CheckpointInfo checkpoint;         // as it was called by its promotion
};

// Of a volume whose image lies in a back-up that was promoted. Nothing: it does not, or that is
// another volume's.
std::optional<PromotedDisk> find_promoted(const OpenedVolume& opened);

// Whether the disk still is that checkpoint. as_is: the caller vouches for what was written since.
// kBusy: clients are connected, and might be writing; kInvalid: it was written to, or there is a
// later checkpoint.
Result<> check_still_promoted(const PromotedDisk& promoted, const VolumeStatus& status, bool as_is);
// The same of a volume as it is now. Waits 2 s for clients that are just leaving.
Result<> check_still_promoted(const PromotedDisk& promoted, VolumeApi& volume, bool as_is);

}  // namespace ckpt
