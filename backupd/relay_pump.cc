// SPDX-License-Identifier: Apache-2.0
#include "backupd/relay_pump.h"

#include <algorithm>

#include "backupd/thread.h"
#include "common/clock.h"
#include "common/text.h"

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

// When there is something to pass on: by then the volume has a name. The lock is not held while the
// store is asked for anything.
RelayPump::Parties RelayPump::connect(const StoreRecord& record) {
  auto further = std::make_unique<RemoteStore>(RemoteOptions{.address = target_.to,
                                                             .tls = target_.tls,
                                                             .volume = record.volume,
                                                             .size_bytes = record.size_bytes,
                                                             .name = volume_->name(),
                                                             .place = place_,
                                                             .is_relay = true},
                                               system_clock());
  const auto keep_alive = [further = further.get(), looked_at = SteadyTime{}]() mutable {
    if (const SteadyTime now = system_clock().steady(); now - looked_at >= kRelayLook) {
      looked_at = now;
      further->look();
    }
  };
  auto relay = std::make_unique<Relay>(volume_->store(), *further, kRelayQueueBytesMax, keep_alive);
  const MutexLock lock(mutex_);
  further_ = std::move(further);
  relay_ = std::move(relay);
  if (stopping_.load()) {
    further_->stop();
  }
  return {further_.get(), relay_.get()};
}

void RelayPump::run() {
  Parties parties;
  std::chrono::nanoseconds retry = kRelayLook;
  while (!stopping_.load()) {
    const StoreRecord record = volume_->store().record();
    if (!record.last) {
      waker_.wait(kRelayLook);
      continue;
    }
    if (parties.relay == nullptr) {
      parties = connect(record);
    }
    parties.further->look();
    const auto passed = parties.relay->step();
    report(passed);
    if (!passed) {
      rest(retry);
      retry = std::min<std::chrono::nanoseconds>(retry * 2, kRelayRetryMax);
    } else {
      retry = kRelayLook;
      if (!*passed) {
        waker_.wait(std::min<std::chrono::nanoseconds>(kRelayLook, parties.further->silence() / 4));
      }
    }
  }
}

RelayState RelayPump::state() {
  RelayState state;
  state.address = target_.to.to_string();
  const MutexLock lock(mutex_);
  state.error = error_;
  if (const auto passed = relay_ ? relay_->passed() : std::nullopt) {
    state.passed = passed->number;
  }
  return state;
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
  {
    const MutexLock lock(mutex_);
    error_ = passed ? "" : passed.error().message();
  }
  if (!passed) {
    say(printable(passed.error().message()));
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
