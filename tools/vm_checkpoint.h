// SPDX-License-Identifier: Apache-2.0
// A checkpoint of the disks of a virtual machine together with its memory: of one instant.
#pragma once

#include "tools/asked_checkpoint.h"
#include "tools/guest_agent.h"
#include "tools/held_signals.h"
#include "tools/open_volume.h"
#include "tools/vm_memory.h"
#include "tools/vm_record.h"

namespace ckpt {

enum class VmMode {
  kBackground,  // it stands still until the disks are cut, and its memory is saved while it runs
  kSnapshot,    // it stands still until its memory is saved
  kDisk,        // the disks alone
};
const char* to_text(VmMode mode);

struct VmCheckpointOptions {
  std::optional<VmMode> mode{};  // nothing: the first that this QEMU can
  std::string name{};
  std::string message{};
  std::chrono::milliseconds timeout{};
  GuestAgent* agent = nullptr;  // which makes the guest's file systems stand still before the disks
                                // are cut; only without memory
};

struct VmCheckpointOutcome {
  std::vector<CheckpointOutcome> made;  // of each volume
  VmMode mode = VmMode::kDisk;
  std::string why_mode{};             // if it is not the best one
  std::chrono::nanoseconds paused{};  // how long it stood still
  std::chrono::nanoseconds flush{};  // of that, until it stood still and its disks had been flushed
  std::chrono::nanoseconds cut{};    // of that, until they were cut
  uint64_t memory_bytes = 0;         // as saved
  uint64_t frozen = 0;               // file systems, by the guest's agent
  std::vector<std::string> others{};  // its disks that are no volumes
  std::string no_copy{};              // why there is none in attachments=, if there should be
};

// Threads: one. Blocks until the checkpoints exist.
// Failure: kVoid: the machine runs on, if it ran, and there is no checkpoint, or none that could be
//          gone back to with the memory, which is said.
class VmCheckpoint {
 public:
  // Looks at everything, and stops nothing. All outlive it; the first volume gets the memory.
  static Result<std::unique_ptr<VmCheckpoint>> prepare(std::vector<OpenedVolume>& volumes,
                                                       VirtualMachine& machine,
                                                       const VmCheckpointOptions& options);
  ~VmCheckpoint();
  VmCheckpoint(const VmCheckpoint&) = delete;
  VmCheckpoint& operator=(const VmCheckpoint&) = delete;

  Result<VmCheckpointOutcome> make();

 private:
  // A volume, and what is asked of it.
  struct Member {
    OpenedVolume* opened = nullptr;
    VolumeStatus status{};
    std::optional<AttachmentPipes> pipes{};
    std::unique_ptr<AskedCheckpoint> asked{};
    Epoch number{};
  };
  explicit VmCheckpoint(VirtualMachine& machine) : machine_(machine) {}
  Result<> choose_mode(std::optional<VmMode> wanted);
  Result<> add(OpenedVolume& opened, VolumeStatus status, const VmCheckpointOptions& options);
  [[nodiscard]] bool has_memory() const { return outcome_.mode != VmMode::kDisk; }
  Result<> freeze_guest();
  // It stands still from its begin to its end.
  Result<> stop_and_save();
  Result<> cut();
  Result<> save();
  Result<> save_in_background();
  Result<> save_standing();
  Result<> read_memory(uint64_t offset, ByteSpan buffer) const;
  void note_running();
  // Whatever has happened, one that ran runs.
  Result<> go_on();
  // Brings what was saved; then waits for the checkpoints.
  Result<> deliver();
  Result<> copy_memory(int pipe) const;
  Result<> check_all_wait();
  static Unexpected why_not_copied(Member& member, const Error& error);
  Result<> deliver_to_others();
  [[nodiscard]] std::string record() const;
  void give_up(const Error& why);

  std::optional<HeldSignals> held_;  // until it runs again
  VirtualMachine& machine_;
  std::vector<Member> members_;
  VmRecord record_;
  std::vector<std::string> devices_;  // of the members
  std::chrono::milliseconds timeout_{};
  GuestAgent* agent_ = nullptr;
  std::unique_ptr<FrozenFileSystems> frozen_;
  UniqueFd memory_;                    // the stream, where it is saved in the background
  std::unique_ptr<VmSideImage> side_;  // else
  bool ran_ = false;
  SteadyTime stopping_{};
  bool is_stopped_ = false;
  VmCheckpointOutcome outcome_;
};

}  // namespace ckpt
