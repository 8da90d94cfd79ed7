// SPDX-License-Identifier: Apache-2.0
// Where an export goes: a raw file, a block device, or an NBD server.
#pragma once

#include <memory>
#include <string>

#include "common/store_link.h"

namespace ckpt {

// Durability: the content is durable, and under its name, when finish() returns. Without it a file
// is
//             as it was, and a device or NBD export holds whatever has been written.
class Destination : public ExportSink {
 public:
  virtual Result<> finish() = 0;
  // What an NBD server says of its export; empty: nothing, or no NBD server.
  [[nodiscard]] virtual std::string description() const { return ""; }
};

// where: a path, or an NBD URI (nbd://, nbds://, nbd+unix://, ...). force: replaces a file that is
// there, or writes over a block device or an NBD export. Nothing is changed yet. An NBD server is
// connected to.
Result<std::unique_ptr<Destination>> open_destination(const std::string& where, bool force);

// A raw file: holes stay holes, and it comes to exist as a whole. A block device is written in
// place.
Result<std::unique_ptr<Destination>> open_raw_destination(const std::string& path, bool force);

// An export of an NBD server, of at least the disk's size; what is beyond stays as it is.
Result<std::unique_ptr<Destination>> open_nbd_destination(const std::string& uri);

}  // namespace ckpt
