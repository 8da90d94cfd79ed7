// SPDX-License-Identifier: Apache-2.0
// Connected clients: who may write, and what a rollback does about them.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "common/mutex.h"
#include "common/result.h"
#include "plugin/volume_api.h"

namespace ckpt {

// One connection, from open to close.
struct Client {
  std::atomic<uint32_t> requests{0};  // in flight
  std::atomic<bool> fenced{false};    // its writes fail: another writer took over
  std::atomic<bool> cut_off{false};   // all its requests fail: the disk was rolled back under it
};

enum class Takeover {
  kFence,   // the first write of a new connection fences the old writer
  kRefuse,  // ... is refused while the old writer is connected
};

// Threads: connect(), disconnect(), enter() and leave() from any; close() and open() by one
// rollback at
//          a time. Whoever enters counts itself in and then looks at the state; whoever changes the
//          state then waits for the count: one sees the other.
class ClientGate {
 public:
  struct Options {
    bool multi_conn = false;  // any connection may write at any time
    Takeover takeover = Takeover::kFence;
  };
  explicit ClientGate(Options options) : options_(options) {}
  // Called with the number of connections whenever it changes.
  void set_listener(std::function<void(uint32_t)> listener) { listener_ = std::move(listener); }

  // kFenced while new connections are refused.
  Result<std::shared_ptr<Client>> connect();
  void disconnect(const std::shared_ptr<Client>& client);
  [[nodiscard]] uint32_t count();

  // A request begins. Waits while requests are held. kFenced: it may not run. leave() follows
  // success.
  Result<> enter(Client& client, bool is_write);
  void leave(Client& client);

  // Keeps requests out for a rollback and waits until none is in flight. kBusy with kRefuse when
  // clients stay connected.
  Result<> close(ClientPolicy policy, std::chrono::nanoseconds patience);
  // Lets requests in again. With refuse_new, nobody new until accept().
  void open(bool refuse_new);
  // All requests fail, held ones too, and nobody may connect; clients are told why.
  void shut(const std::string& why);
  // The same for good: none of the others changes it any more.
  void end(const std::string& why);
  void accept();
  [[nodiscard]] bool is_refusing();

 private:
  enum class State { kOpen, kHeld, kShut };
  void announce() CKPT_REQUIRES(mutex_);
  Result<> admit(Client& client, bool is_write);
  Result<> take_over(Client& client);
  void wait_until_open();
  Unexpected shut_out() CKPT_EXCLUDES(mutex_);
  void refuse_all(const std::string& why) CKPT_REQUIRES(mutex_);
  void wait_idle(const Client& client) CKPT_REQUIRES(mutex_);

  const Options options_;
  std::function<void(uint32_t)> listener_;
  std::atomic<State> state_{State::kOpen};
  std::atomic<Client*> writer_{nullptr};
  std::atomic<uint32_t> waiters_{0};  // who wait for requests to end
  Mutex mutex_;
  CondVar changed_;
  // As they connected: an order by address would differ from run to run of the simulator.
  std::vector<std::shared_ptr<Client>> clients_ CKPT_GUARDED_BY(mutex_);
  bool refusing_ CKPT_GUARDED_BY(mutex_) = false;
  bool ended_ CKPT_GUARDED_BY(mutex_) = false;
  std::string shut_why_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt
