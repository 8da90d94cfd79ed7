// SPDX-License-Identifier: Apache-2.0
// A volume on this machine's files, its store, embedded or remote, and the threads that pump them.
#pragma once

#include <thread>

#include "backupd/store/store.h"
#include "common/posix_file.h"
#include "common/remote_store.h"
#include "common/shared_memory.h"
#include "plugin/crowd_meter.h"
#include "plugin/io_engine.h"
#include "plugin/link_trace.h"
#include "plugin/no_store.h"
#include "plugin/volume.h"

namespace ckpt {

struct LocalOptions {
  std::string image_path;                // absolute
  std::string state_path;                // empty: IMAGE.ckpt
  std::string store_place;               // backup=, as backup_place.h has it
  bool is_place_said = false;            // else the volume knows it itself
  TlsOptions tls;                        // to a back-up behind backupd
  std::optional<uint64_t> create_bytes;  // size=: makes a missing image
  bool has_backup = true;                // not with backup=none
  IoMode io = IoMode::kAuto;
  bool direct = false;  // direct=on: past the page cache
  bool raw = false;     // format=raw: any content is an image
  std::chrono::seconds checkpoint_interval{0};
  LinkTraceOptions trace;
  VolumeOptions volume;
};

// Threads:  open() and the destructor start none; start_pumps() does, close() joins them.
// Lifetime: the destructor without close() abandons the volume, as a kill would.
class LocalVolume {
 public:
  // Locks the image, waiting for a killed server's last I/O; opens all. kBusy: another server has
  // it.
  static Result<std::unique_ptr<LocalVolume>> open(const LocalOptions& options);
  ~LocalVolume();
  LocalVolume(const LocalVolume&) = delete;
  LocalVolume& operator=(const LocalVolume&) = delete;

  // After the fork: rings and threads belong to the process that uses them.
  void start_pumps();
  // The server stops: whoever waits for a checkpoint, or for the store, returns soon.
  void stop_waiting();
  // Ends the pumps and stops the volume cleanly.
  Result<> close();
  Volume& volume() { return *volume_; }
  [[nodiscard]] const std::string& state_path() const { return state_path_; }
  // What people should know about space: a full back-up would not fit. Empty: it would.
  [[nodiscard]] std::string space_note() const;

 private:
  void leave_remote();
  explicit LocalVolume(LocalOptions options) : options_(std::move(options)) {}
  [[nodiscard]] Result<> check_record() const;
  [[nodiscard]] Result<> check_no_backup() const;
  Result<> look_at_image();
  Result<> open_image();
  Result<std::unique_ptr<File>> open_image_file(int flags);
  Result<> create_image();
  Result<> check_format();
  Result<> lock(int fd, const std::string& path);
  Result<> open_state();
  Result<> open_volume();
  bool free_reserve();
  Result<StoreLink*> open_store(const VolumeRecord& record);
  [[nodiscard]] Result<> check_same_address(const std::string& recorded) const;
  [[nodiscard]] Result<std::string> place_of_store(const std::string& recorded) const;
  Result<StoreLink*> open_folder(const VolumeRecord& record, const std::string& path);
  Result<StoreLink*> open_remote(const VolumeRecord& record, const std::string& place);
  void ship();
  void hurry();
  void ship_once(CrowdMeter& crowd, std::chrono::nanoseconds wait_most);
  void keep();
  void apply();
  void look_after_link();
  void stop_pumps();

  LocalOptions options_;
  std::string state_path_;
  std::string place_;  // of the store
  std::string io_text_;
  RingUse ring_;
  bool is_device_ = false;  // the image is a block device
  bool has_left_ = false;   // the back-up
  std::unique_ptr<File> image_;
  int image_fd_ = -1;  // the image's own
  std::unique_ptr<PosixDirectory> state_;
  std::unique_ptr<TmpfsMemoryStore> memory_;
  UniqueFd store_lock_;
  std::unique_ptr<Store> store_;         // nothing: it is none of ours,
  std::unique_ptr<RemoteStore> remote_;  // but there; or backup=none
  NoStore no_store_;
  std::unique_ptr<LinkTrace> trace_;  // nothing: not traced
  std::unique_ptr<Volume> volume_;
  std::atomic<bool> stopping_{false};
  Waker keeper_;
  std::atomic<bool> wanted_sync_{false};  // as the keeper was told last
  Waker applier_;
  // Who ships: hurry(), while it is set, else ship().
  std::atomic<bool> hurrying_{false};
  Waker hurried_;
  Waker resumed_;
  std::vector<std::thread> pumps_;
};

// The name of a format that is not raw, by an image's first bytes (64 are enough): a guest's data
// must not be taken for a disk's. Empty: none that is known.
std::string foreign_format(ConstByteSpan head);

// IMAGE.ckpt beside the image.
std::string default_state_path(const std::string& image_path);

}  // namespace ckpt
