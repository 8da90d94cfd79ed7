// SPDX-License-Identifier: Apache-2.0
#include "tools/saved_machine.h"

#include <algorithm>

#include "plugin/checkpoint_name.h"
#include "tools/saved_attachments.h"
#include "tools/vm_disks.h"

namespace ckpt {
namespace {

Result<CheckpointInfo> find_in(VolumeApi& volume, const std::string& id) {
  CKPT_ASSIGN(const auto kept, volume.checkpoints());
  return find_checkpoint(kept, id);
}

Result<VmRecord> read_record(VolumeApi& volume, const CheckpointInfo& checkpoint) {
  CKPT_ASSIGN(const std::string text,
              SavedAttachments(volume, checkpoint).fetch_text(kVmAttachment, kVmRecordBytesMax));
  return decode_vm_record(text);
}

Unexpected no_memory(const CheckpointInfo& checkpoint) {
  return fail(ErrorKind::kNotFound,
              "checkpoint " + std::to_string(checkpoint.id.number.value) +
                  " has no memory of a machine: end the machine, roll back the disk alone "
                  "(--disk-only), and start it anew");
}

}  // namespace

Result<SavedMachine> SavedMachine::fetch(std::vector<OpenedVolume>& volumes,
                                         const std::string& id) {
  SavedMachine saved;
  VolumeApi& first = *volumes.front().volume;
  CKPT_ASSIGN(saved.target_, find_in(first, id));
  if (!find_attachment(saved.target_, kVmAttachment)) {
    return no_memory(saved.target_);
  }
  CKPT_ASSIGN(saved.record_, read_record(first, saved.target_));
  if (!saved.record_.memory) {
    return no_memory(saved.target_);
  }
  CKPT_TRY(saved.find_members(volumes));
  CKPT_TRY(saved.check_kept());
  CKPT_TRY(saved.check_group());
  CKPT_TRY(saved.fetch_memory());
  return saved;
}

// Each that is on record was given, and no other.
Result<> SavedMachine::find_members(std::vector<OpenedVolume>& volumes) {
  for (const VmVolume& of : record_.volumes) {
    const auto found = std::ranges::find_if(volumes, [&of](const OpenedVolume& opened) {
      return opened.volume->status().volume == of.volume;
    });
    if (found == volumes.end()) {
      return fail(ErrorKind::kInvalid, "volume " + of.volume.to_string() +
                                           " is a disk of the same machine, and goes back with "
                                           "it: give it, too (--with VOLUME)");
    }
    members_.push_back({&*found, of});
  }
  return members_.size() == volumes.size()
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid,
                             "checkpoint " + std::to_string(target_.id.number.value) + " is of " +
                                 std::to_string(members_.size()) + " of the " +
                                 std::to_string(volumes.size()) + " volumes that were given"));
}

Result<> SavedMachine::check_kept() const {
  for (const Member& member : members_) {
    const auto found = find_in(*member.opened->volume, std::to_string(member.of.checkpoint.value));
    if (!found) {
      const std::string why = found.error().message() +
                              (members_.size() > 1 ? ". The disks of this machine go back together "
                                                     "or not at all: the next checkpoint of all is "
                                                     "one that they can go back to"
                                                   : "");
      return fail(found.error().kind, member.opened->paths.image + ": " + why);
    }
  }
  return {};
}

// A number says nothing: a volume may have been replaced by a copy of it.
Result<> SavedMachine::check_group() const {
  for (const Member& member : members_) {
    CKPT_ASSIGN(const CheckpointInfo checkpoint,
                find_in(*member.opened->volume, std::to_string(member.of.checkpoint.value)));
    CKPT_ASSIGN(const VmRecord record, read_record(*member.opened->volume, checkpoint));
    if (record.group != record_.group) {
      return fail(ErrorKind::kMismatch,
                  member.opened->paths.image + ": its checkpoint " +
                      std::to_string(member.of.checkpoint.value) +
                      " is not of the same instant: the disks of this machine cannot go back "
                      "together");
    }
  }
  return {};
}

Result<std::vector<std::string>> SavedMachine::check_machine(VirtualMachine& machine) const {
  const std::string which = "the memory of checkpoint " + std::to_string(target_.id.number.value) +
                            " is of another machine: ";
  std::vector<VolumeStatus> statuses;
  for (const Member& member : members_) {
    statuses.push_back(member.opened->volume->status());
  }
  CKPT_ASSIGN(VmDisks disks, check_vm_disks(machine, statuses));
  for (size_t i = 0; i < members_.size(); ++i) {
    if (disks.devices[i] != members_[i].of.device) {
      return fail(ErrorKind::kMismatch, which + statuses[i].image + " was its " +
                                            members_[i].of.device + ", and here it is " +
                                            disks.devices[i]);
    }
  }
  CKPT_ASSIGN(const VmFacts now, machine.facts());
  const std::string difference = difference_between(record_.machine, now);
  return difference.empty()
             ? Result<std::vector<std::string>>(std::move(disks.others))
             : Result<std::vector<std::string>>(fail(ErrorKind::kMismatch, which + difference));
}

std::vector<std::pair<std::string, Epoch>> SavedMachine::images() const {
  std::vector<std::pair<std::string, Epoch>> images;
  for (const Member& member : members_) {
    const bool has_memory = record_.memory == member.of.volume;
    images.insert(has_memory ? images.begin() : images.end(),
                  {member.opened->paths.image, member.of.checkpoint});
  }
  return images;
}

Result<> SavedMachine::fetch_memory() {
  const auto owner = std::ranges::find(members_, *record_.memory,
                                       [](const Member& member) { return member.of.volume; });
  if (owner == members_.end()) {
    return fail(ErrorKind::kCorrupt, "the memory is said to be with a volume that is not there");
  }
  const std::string& folder = owner->opened->paths.state;
  CKPT_TRY(check_room_for_memory(folder, record_.machine.memory_bytes));
  CKPT_ASSIGN(memory_, VmMemory::make(folder));
  VolumeApi& volume = *owner->opened->volume;
  CKPT_ASSIGN(const CheckpointInfo checkpoint,
              find_in(volume, std::to_string(owner->of.checkpoint.value)));
  // With the destination, which is gone when this returns.
  const std::shared_ptr<Destination> file(memory_.get(), [](Destination* /*ours*/) {});
  return SavedAttachments(volume, checkpoint)
      .fetch(kMemoryAttachment, [&file]() -> Result<AttachmentDestination> {
        return AttachmentDestination::into(file);
      });
}

Result<RollbackOutcome> SavedMachine::roll_back(const Progress& progress) {
  std::optional<RollbackOutcome> all;
  for (const Member& member : members_) {
    auto done = member.opened->volume->roll_back(
        {std::to_string(member.of.checkpoint.value), ClientPolicy::kKeep}, progress);
    if (!done) {
      return all ? fail(ErrorKind::kHalfway,
                        member.opened->paths.image +
                            " has not gone back, and others have: " + done.error().message())
                 : Unexpected(done.error());
    }
    const uint64_t before = all ? all->restored_bytes : 0;
    const auto elapsed = all ? all->elapsed : std::chrono::nanoseconds(0);
    all = std::move(*done);
    all->restored_bytes += before;
    all->elapsed += elapsed;
  }
  all->checkpoint = target_;
  return *all;
}

}  // namespace ckpt
