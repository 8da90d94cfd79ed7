// SPDX-License-Identifier: Apache-2.0
// Which primary the server of an image is, as its back-up tells it from a copy.
#pragma once

#include <string>

#include "common/file.h"
#include "common/primary_place.h"

namespace ckpt {

// That of an image with that stamp, in this boot. Whoever serves the same file or block device
// again, whatever it is called by then, has the same identity; a copy has another, as has a machine
// that is one (by its boot), and this one after a boot.
PrimaryPlace place_of_image(const FileStamp& stamp, const std::string& path,
                            const std::string& boot_id);

}  // namespace ckpt
