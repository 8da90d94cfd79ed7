// SPDX-License-Identifier: Apache-2.0
// The attachments of the last checkpoint, and those of one that may come to exist: a file each.
//
// Format: docs/attachment-format.md
#pragma once

#include <map>
#include <memory>
#include <set>

#include "common/attachment.h"
#include "common/file.h"
#include "common/store_link.h"

namespace ckpt {

// Which attachment: the epoch of its checkpoint, and its place among those that it has.
struct AttachmentPlace {
  Epoch epoch;
  uint32_t index = 0;
  auto operator<=>(const AttachmentPlace&) const = default;
};

// Lifetime:   the folder outlives it. Each attachment that is pending keeps a file open.
// Threads:    read() by any; the others by one at a time.
// Failure:    errors are the caller's to judge; after any, drop() is what can be done.
// Durability: nothing, until make_durable() has returned.
class Attachments {
 public:
  Attachments(Directory& folder, const Uuid& volume) : folder_(folder), volume_(volume) {}

  // Appends a piece, which is checked. kCorrupt, kInvalid, kNoSpace. The first of a later epoch
  // says that those before it are void: they are unlinked.
  Result<> receive(const AttachmentPlace& place, ConstByteSpan piece);
  // Whether exactly those are here that the checkpoint says. kCorrupt: not so.
  [[nodiscard]] Result<> check(const CheckpointInfo& checkpoint) const;
  // Those of this epoch survive a loss of power when it returns.
  Result<> make_durable(Epoch epoch);
  // Its checkpoint is confirmed: what belongs to it is no longer pending. Those of the one before,
  // and of void epochs, are unlinked; what cannot be is tried again by drop() and the next start.
  void keep(Epoch epoch, const std::optional<CheckpointInfo>& before);
  // Unlinks what is pending.
  Result<> drop();
  // Bytes that are pending, as stored.
  [[nodiscard]] uint64_t pending_bytes() const;

  // Hands over the pieces of an attachment that the checkpoint has. kCorrupt names file and offset.
  Result<> read(const CheckpointInfo& checkpoint, uint32_t index, PieceSink& sink) const;

  // At a start: the names of files that are not of this checkpoint. Changes nothing.
  static Result<std::vector<std::string>> find_leftovers(Directory& folder,
                                                         const std::optional<CheckpointInfo>& last);
  static Result<> remove_leftovers(Directory& folder, const std::vector<std::string>& names);

 private:
  struct Coming {
    std::unique_ptr<File> file;
    AttachmentCounter counter;
    uint64_t written_out_to = 0;
    uint64_t let_go_to = 0;
  };
  Result<Coming*> coming(const AttachmentPlace& place);
  static Result<> free_memory(Coming& attachment, uint64_t end);
  Result<> remove(const AttachmentPlace& place);
  Result<> remove_before(Epoch epoch);

  Directory& folder_;
  const Uuid volume_;
  std::map<AttachmentPlace, Coming> coming_;
  std::set<AttachmentPlace> names_;  // that were, or may have been, made, and are not kept
};

}  // namespace ckpt
