// SPDX-License-Identifier: Apache-2.0
#include "backupd/relay_pump.h"

#include <algorithm>

#include "backupd/thread.h"
#include "common/clock.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kRelayLook{1};  // what the store's listener does not tell of
constexpr std::chrono::seconds kRelayRetryMax{15};

}  // namespace

RelayPump::RelayPump(std::shared_ptr<ServedVolume> volume, RelayTarget target, PrimaryPlace place,
                     LogLine log)
    : volume_(std::move(volume)),
      target_(std::move(target)),
      place_(std::move(place)),
      log_(std::move(log)) {}

Result<std::unique_ptr<RelayPump>> RelayPump::start(std::shared_ptr<ServedVolume> volume,
                                                    const RelayTarget& target,
                                                    const PrimaryPlace& place, LogLine log) {
  std::unique_ptr<RelayPump> pump(new RelayPump(std::move(volume), target, place, std::move(log)));
  CKPT_ASSIGN(pump->thread_, start_thread("backupd-relay", [raw = pump.get()] { raw->run(); }));
  return pump;
}

RelayPump::~RelayPump() {
  stop();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void RelayPump::stop() {
  stopping_.store(true);
  waker_.wake();
  const MutexLock lock(mutex_);
  if (further_ != nullptr) {
    further_->stop();
  }
}

// When there is something to pass on: by then the volume has a name.
RemoteStore* RelayPump::connect(const StoreRecord& record) {
  const MutexLock lock(mutex_);
  further_ = std::make_unique<RemoteStore>(RemoteOptions{.address = target_.to,
                                                         .tls = target_.tls,
                                                         .volume = record.volume,
                                                         .size_bytes = record.size_bytes,
                                                         .name = volume_->name(),
                                                         .place = place_},
                                           system_clock());
  relay_ = std::make_unique<Relay>(volume_->store(), *further_);
  if (stopping_.load()) {
    further_->stop();
  }
  return further_.get();
}

void RelayPump::run() {
  RemoteStore* further = nullptr;
  std::chrono::nanoseconds retry = kRelayLook;
  while (!stopping_.load()) {
    const StoreRecord record = volume_->store().record();
    if (!record.last) {
      waker_.wait(kRelayLook);
      continue;
    }
    if (further == nullptr) {
      further = connect(record);
    }
    further->look();
    const auto passed = relay_->step();
    report(passed);
    if (!passed) {
      rest(retry);
      retry = std::min<std::chrono::nanoseconds>(retry * 2, kRelayRetryMax);
    } else {
      retry = kRelayLook;
      if (!*passed) {
        waker_.wait(std::min<std::chrono::nanoseconds>(kRelayLook, further->silence() / 4));
      }
    }
  }
  relay_.reset();
}

// However often it is woken.
void RelayPump::rest(std::chrono::nanoseconds time) {
  const SteadyTime end = system_clock().steady() + time;
  for (SteadyTime now = system_clock().steady(); now < end && !stopping_.load();
       now = system_clock().steady()) {
    waker_.wait(end - now);
  }
}

void RelayPump::report(const Result<bool>& passed) {
  if (stopping_.load()) {
    return;
  }
  if (!passed) {
    say(passed.error().message());
  } else if (!*passed) {
    say("it has what is here");
  }
}

void RelayPump::say(const std::string& what) {
  if (what != said_) {
    said_ = what;
    log_("volume " + volume_->store().record().volume.to_string() + ": relay to " +
         target_.to.to_string() + ": " + what);
  }
}

}  // namespace ckpt
