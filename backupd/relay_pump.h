// SPDX-License-Identifier: Apache-2.0
// The thread that passes the checkpoints of one volume on to a further backupd.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "backupd/log_line.h"
#include "backupd/relay.h"
#include "backupd/relay_target.h"
#include "backupd/served_volume.h"
#include "common/primary_place.h"
#include "common/remote_store.h"

namespace ckpt {

// Threads:  wake() and stop() by any; it has one of its own.
// Failure:  what goes wrong is said in the log, once, and tried again; the volume is served on.
class RelayPump {
 public:
  // place: who passes on, for the further backupd. kBusy: the system has no thread more.
  static Result<std::unique_ptr<RelayPump>> start(std::shared_ptr<ServedVolume> volume,
                                                  const RelayTarget& target,
                                                  const PrimaryPlace& place, LogLine log);
  ~RelayPump();
  RelayPump(const RelayPump&) = delete;
  RelayPump& operator=(const RelayPump&) = delete;

  // There may be a checkpoint more.
  void wake() { waker_.wake(); }
  [[nodiscard]] RelayState state() CKPT_EXCLUDES(mutex_);
  // What is under way ends soon; the destructor waits for it.
  void stop() CKPT_EXCLUDES(mutex_);

 private:
  RelayPump(std::shared_ptr<ServedVolume> volume, RelayTarget target, PrimaryPlace place,
            LogLine log);
  void run();
  // What the thread works with.
  struct Parties {
    RemoteStore* further = nullptr;
    Relay* relay = nullptr;
  };
  Parties connect(const StoreRecord& record) CKPT_EXCLUDES(mutex_);
  void rest(std::chrono::nanoseconds time);
  void say(const std::string& what);
  void report(const Result<bool>& passed) CKPT_EXCLUDES(mutex_);

  const std::shared_ptr<ServedVolume> volume_;
  const RelayTarget target_;
  const PrimaryPlace place_;
  const LogLine log_;
  Waker waker_;
  std::atomic<bool> stopping_{false};
  Mutex mutex_;  // of the pointers; what they point to is the thread's, but for stop() and passed()
  std::unique_ptr<RemoteStore> further_ CKPT_GUARDED_BY(mutex_);
  std::unique_ptr<Relay> relay_ CKPT_GUARDED_BY(mutex_);
  std::string error_ CKPT_GUARDED_BY(mutex_);  // of the last step
  std::string said_;                           // last; the thread's
  std::thread thread_;
};

}  // namespace ckpt
