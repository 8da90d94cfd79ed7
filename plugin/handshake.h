// SPDX-License-Identifier: Apache-2.0
// What a new session means: the table of design 3, "Session and handshake".
#pragma once

#include "plugin/volume_record.h"

namespace ckpt {

enum class HandshakeRow {
  kFirstCopy,  // the store has nothing, and never had
  kGoOn,       // it has our last checkpoint; an open intent is void
  kAdopt,      // it has the one we intended: that exists
  kRollBack,   // our rollback to it is under way
  kResync,     // it has an older one of ours, or has lost all: everything counts as changed
  kRejoin,  // its image was a primary's, at our last but for what it names: that counts as changed
  kDiverged,  // it has something that is not ours: refuse
};

HandshakeRow decide_handshake(const VolumeRecord& record, const StoreGreeting& greeting);

}  // namespace ckpt
