// SPDX-License-Identifier: Apache-2.0
#include "tools/vm_checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/clock.h"
#include "tools/descriptor.h"
#include "tools/vm_disks.h"
#include "tools/vm_memory.h"

namespace ckpt {
namespace {

constexpr size_t kCopyBytes = size_t{1} << 20U;
constexpr const char* kRunning = "running";

// What the machine's stop flushes is little then.
Result<> sync_image(const std::string& image) {
  const UniqueFd fd(::open(image.c_str(), O_RDONLY | O_CLOEXEC));
  return fd && ::fdatasync(fd.get()) == 0 ? Result<>() : Result<>(fail_errno(errno, image));
}

}  // namespace

const char* to_text(VmMode mode) {
  return mode == VmMode::kBackground ? "background"
         : mode == VmMode::kSnapshot ? "snapshot"
                                     : "disk";
}

Result<std::unique_ptr<VmCheckpoint>> VmCheckpoint::prepare(std::vector<OpenedVolume>& volumes,
                                                            VirtualMachine& machine,
                                                            const VmCheckpointOptions& options) {
  std::vector<VolumeStatus> statuses;
  for (const OpenedVolume& opened : volumes) {
    statuses.push_back(opened.volume->status());
    CKPT_TRY(check_takes_checkpoint(statuses.back()));
  }
  CKPT_TRY(machine.take_over());
  std::unique_ptr<VmCheckpoint> checkpoint(new VmCheckpoint(machine));
  CKPT_ASSIGN(VmDisks disks, check_vm_disks(machine, statuses));
  checkpoint->devices_ = std::move(disks.devices);
  checkpoint->outcome_.others = std::move(disks.others);
  checkpoint->timeout_ = options.timeout;
  checkpoint->agent_ = options.agent;
  CKPT_TRY(checkpoint->choose_mode(options.mode));
  CKPT_ASSIGN(checkpoint->record_.machine, machine.facts());
  checkpoint->record_.group = system_random().uuid();
  checkpoint->record_.command = machine.command();
  checkpoint->record_.directory = machine.directory();
  checkpoint->held_.emplace();  // before there is any other thread
  for (size_t i = 0; i < volumes.size(); ++i) {
    CKPT_TRY(checkpoint->add(volumes[i], std::move(statuses[i]), options));
  }
  const std::string& folder = volumes.front().paths.state;
  CKPT_TRY(checkpoint->has_memory()
               ? check_room_for_memory(folder, checkpoint->record_.machine.memory_bytes)
               : Result<>());
  return checkpoint;
}

VmCheckpoint::~VmCheckpoint() {
  machine_.end_background();
  give_up({ErrorKind::kVoid, 0, "it was given up"});
}

// One that stands still already is not made to run.
Result<> VmCheckpoint::choose_mode(std::optional<VmMode> wanted) {
  CKPT_ASSIGN(const bool is_half_way, machine_.is_marked());
  if (is_half_way) {
    return fail(ErrorKind::kHalfway,
                "the machine's disks and its memory are of two instants, since a rollback has "
                "stopped half-way: repeat that, or end QEMU and roll back with --fresh");
  }
  CKPT_ASSIGN(const std::string state, machine_.state());
  ran_ = state == kRunning;
  outcome_.mode = wanted.value_or(VmMode::kBackground);
  if (outcome_.mode != VmMode::kBackground) {
    return {};
  }
  const auto can = ran_ ? machine_.check_background() : Result<>();
  if (!can && (wanted || can.error().kind != ErrorKind::kInvalid)) {
    return can;
  }
  if (!can || !ran_) {
    outcome_.mode = VmMode::kSnapshot;
    outcome_.why_mode = can ? "" : can.error().message();
  }
  return {};
}

Result<> VmCheckpoint::add(OpenedVolume& opened, VolumeStatus status,
                           const VmCheckpointOptions& options) {
  Member member{&opened, std::move(status)};
  std::vector<std::string> names{kVmAttachment};
  if (has_memory() && members_.empty()) {
    names.emplace_back(kMemoryAttachment);
    record_.memory = member.status.volume;
  }
  CKPT_ASSIGN(
      AttachmentPipes pipes,
      AttachmentPipes::open(names, {}, member.status.attachments_folder, member.status.volume));
  CheckpointRequest request{options.name, options.message, options.timeout, pipes.feed()};
  member.pipes.emplace(std::move(pipes));
  member.asked = std::make_unique<AskedCheckpoint>(*opened.volume, std::move(request));
  members_.push_back(std::move(member));
  return {};
}

Result<VmCheckpointOutcome> VmCheckpoint::make() {
  for (const Member& member : members_) {
    CKPT_TRY(sync_image(member.status.image));
  }
  const std::string& folder = members_.front().opened->paths.state;
  if (outcome_.mode == VmMode::kBackground) {
    CKPT_ASSIGN(memory_, make_unnamed_file(folder));
    CKPT_TRY(reserve_for_memory(memory_.get(), folder, record_.machine.memory_bytes));
    CKPT_TRY(machine_.prepare_background(memory_.get()));
  } else if (has_memory()) {
    CKPT_ASSIGN(side_, VmSideImage::make(folder));
  }
  CKPT_TRY(freeze_guest());
  auto saved = stop_and_save();
  if (const auto going = go_on(); !going) {
    saved =
        fail(ErrorKind::kVoid, (saved ? "" : saved.error().message() + "; ") +
                                   "the machine was not told to go on: " + going.error().message());
  }
  machine_.end_background();
  if (const auto thawed = frozen_ ? frozen_->thaw() : Result<>(); !thawed) {
    saved = Unexpected(thawed.error());
  }
  const auto delivered = saved ? deliver() : Unexpected(saved.error());
  if (!delivered) {
    give_up(delivered.error());
    return Unexpected(delivered.error());
  }
  for (Member& member : members_) {
    outcome_.made.push_back(**member.asked->outcome());
    const std::string no_copy = member.pipes->keep_copy(member.number);
    outcome_.no_copy = no_copy.empty() ? outcome_.no_copy : no_copy;
  }
  return outcome_;
}

// Only one that runs can.
Result<> VmCheckpoint::freeze_guest() {
  if (agent_ != nullptr && ran_) {
    CKPT_ASSIGN(frozen_, FrozenFileSystems::freeze(*agent_));
    outcome_.frozen = frozen_->count();
  }
  return {};
}

Result<> VmCheckpoint::stop_and_save() {
  CKPT_ASSIGN(const std::string state, machine_.state());
  if ((state == kRunning) != ran_) {
    return fail(ErrorKind::kBusy,
                "the machine was stopped, or told to go on, by somebody else "
                "meanwhile");
  }
  stopping_ = system_clock().steady();
  is_stopped_ = true;
  CKPT_TRY(machine_.stop());
  outcome_.flush = system_clock().steady() - stopping_;
  CKPT_TRY(cut());
  return has_memory() ? save() : Result<>();
}

Result<> VmCheckpoint::cut() {
  const SteadyTime began = system_clock().steady();
  for (Member& member : members_) {
    member.asked->ask();
  }
  for (Member& member : members_) {
    CKPT_ASSIGN(member.number, member.asked->await_cut());
    record_.volumes.push_back(
        {member.status.volume, member.number, devices_[record_.volumes.size()]});
  }
  outcome_.cut = system_clock().steady() - began;
  return {};
}

Result<> VmCheckpoint::save() {
  const auto saved = side_ ? save_standing() : save_in_background();
  return saved ? saved
               : Result<>(Unexpected(
                     explain_by_room(members_.front().opened->paths.state, saved.error())));
}

Result<> VmCheckpoint::save_in_background() {
  CKPT_TRY(
      machine_.save_in_background([this] { note_running(); }, system_clock().steady() + timeout_));
  struct stat status {};
  if (::fstat(memory_.get(), &status) != 0 || status.st_size == 0) {
    return fail(ErrorKind::kVoid, "QEMU has saved no memory");
  }
  outcome_.memory_bytes = static_cast<uint64_t>(status.st_size);
  return ::ftruncate(memory_.get(), status.st_size) == 0  // what was reserved, and was not needed
             ? Result<>()
             : Result<>(fail_errno(errno, "make a memory file"));
}

Result<> VmCheckpoint::save_standing() {
  CKPT_TRY(machine_.save(side_->fd()));
  CKPT_ASSIGN(outcome_.memory_bytes, side_->find_stream());
  return {};
}

void VmCheckpoint::note_running() {
  if (is_stopped_) {
    outcome_.paused = system_clock().steady() - stopping_;
  }
  is_stopped_ = false;
  held_.reset();
}

Result<> VmCheckpoint::go_on() {
  if (ran_ && is_stopped_) {
    CKPT_ASSIGN(const std::string state, machine_.state());
    CKPT_TRY(state == kRunning ? Result<>() : machine_.go_on());
  }
  note_running();
  return {};
}

// The first volume's checkpoint comes to exist last: without it and the memory that it has, the
// others are none that could be gone back to.
Result<> VmCheckpoint::deliver() {
  Member& first = members_.front();
  CKPT_TRY(first.pipes->put_text(record(), kVmRecordBytesMax));
  if (const auto copied = has_memory() ? copy_memory(first.pipes->in(1).get()) : Result<>();
      !copied) {
    return why_not_copied(first, copied.error());
  }
  CKPT_TRY(check_all_wait());
  CKPT_TRY(deliver_to_others());
  first.pipes->close();
  const auto made = first.asked->await();
  if (!made && members_.size() > 1) {
    return within(
        "the other disks have their checkpoint, and there is none that the machine could "
        "go back to with its memory until the next one",
        made.error());
  }
  return made ? Result<>() : Result<>(Unexpected(made.error()));
}

// A pipe may have taken what nobody takes any more. Where one disk's checkpoint has failed already,
// none of the others is to exist.
Result<> VmCheckpoint::check_all_wait() {
  for (Member& member : members_) {
    if (member.asked->has_ended()) {
      const Unexpected why =
          why_not_copied(member, {ErrorKind::kVoid, 0, "the server has not waited for the memory"});
      return members_.size() > 1 ? within(member.status.image, why.error()) : why;
    }
  }
  return {};
}

// Why nobody takes it any more says more than that nobody does.
Unexpected VmCheckpoint::why_not_copied(Member& member, const Error& error) {
  if (!member.pipes->feed()->problem()) {
    member.pipes->feed()->abort(error);
  }
  const auto made = member.asked->await();
  return Unexpected(made ? error : made.error());
}

Result<> VmCheckpoint::deliver_to_others() {
  for (size_t i = 1; i < members_.size(); ++i) {
    CKPT_TRY(members_[i].pipes->put_text(record(), kVmRecordBytesMax));
  }
  for (size_t i = 1; i < members_.size(); ++i) {
    if (const auto made = members_[i].asked->await(); !made) {
      return within("checkpoint " + std::to_string(members_[i].number.value) + " of " +
                        members_[i].status.image,
                    made.error());
    }
  }
  return {};
}

Result<> VmCheckpoint::copy_memory(int pipe) const {
  std::vector<std::byte> buffer(kCopyBytes);
  for (uint64_t offset = 0; offset < outcome_.memory_bytes;) {
    const ByteSpan part =
        ByteSpan(buffer).first(std::min<uint64_t>(kCopyBytes, outcome_.memory_bytes - offset));
    CKPT_TRY(read_memory(offset, part));
    CKPT_TRY(write_all(pipe, part, "write into a pipe"));
    offset += part.size();
  }
  return {};
}

Result<> VmCheckpoint::read_memory(uint64_t offset, ByteSpan buffer) const {
  if (side_) {
    return side_->read(offset, buffer);
  }
  return read_all_at(memory_.get(), offset, buffer, "read the saved memory");
}

std::string VmCheckpoint::record() const { return encode_vm_record(record_); }

// There will be no checkpoint, unless it exists already.
void VmCheckpoint::give_up(const Error& why) {
  for (Member& member : members_) {
    member.pipes->feed()->abort(why);
    member.pipes->close();
    member.asked->give_up(why);
  }
}

}  // namespace ckpt
