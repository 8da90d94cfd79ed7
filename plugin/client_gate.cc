// SPDX-License-Identifier: Apache-2.0
#include "plugin/client_gate.h"

#include <cerrno>
#include <vector>

namespace ckpt {
namespace {

// Lost wake-ups cannot happen; this only bounds the wait for what else may change.
constexpr std::chrono::milliseconds kGateLook{100};

Unexpected fenced(const std::string& why) { return fail(ErrorKind::kFenced, why, ESHUTDOWN); }

}  // namespace

Result<std::shared_ptr<Client>> ClientGate::connect() {
  auto client = std::make_shared<Client>();
  const MutexLock lock(mutex_);
  if (state_.load() == State::kShut) {
    return fenced(shut_why_);
  }
  if (refusing_) {
    return fenced(
        "the disk was rolled back while clients were connected; when their caches are gone, let "
        "clients connect again with: ckpt-tool accept");
  }
  clients_.push_back(client);
  announce();
  return client;
}

void ClientGate::disconnect(const std::shared_ptr<Client>& client) {
  const MutexLock lock(mutex_);
  std::erase(clients_, client);
  Client* self = client.get();
  writer_.compare_exchange_strong(self, nullptr);
  changed_.notify_all();
  announce();
}

// Under the lock: the listener must hear the counts in their order.
void ClientGate::announce() {
  if (listener_) {
    listener_(static_cast<uint32_t>(clients_.size()));
  }
}

uint32_t ClientGate::count() {
  const MutexLock lock(mutex_);
  return static_cast<uint32_t>(clients_.size());
}

Result<> ClientGate::enter(Client& client, bool is_write) {
  while (true) {
    ++client.requests;
    sim_point();
    if (state_.load() == State::kOpen) {
      auto admitted = admit(client, is_write);
      if (!admitted) {
        leave(client);
      }
      return admitted;
    }
    leave(client);
    if (state_.load() == State::kShut) {
      return shut_out();
    }
    if (client.cut_off.load()) {
      return fenced("the disk is being rolled back under this connection");
    }
    wait_until_open();
  }
}

void ClientGate::leave(Client& client) {
  --client.requests;
  if (waiters_.load() > 0) {
    const MutexLock lock(mutex_);
    changed_.notify_all();
  }
}

Result<> ClientGate::admit(Client& client, bool is_write) {
  if (client.cut_off.load()) {
    return fenced("the disk was rolled back under this connection");
  }
  if (!is_write || options_.multi_conn) {
    return {};
  }
  if (writer_.load() != &client && !client.fenced.load()) {
    CKPT_TRY(take_over(client));
  }
  if (client.fenced.load()) {
    return fenced("another connection has taken over writing");
  }
  return {};
}

// The old writer's requests in flight end first: none of them can land over a newer write.
Result<> ClientGate::take_over(Client& client) {
  const MutexLock lock(mutex_);
  while (writer_.load() != &client && !client.fenced.load()) {
    Client* const old = writer_.load();
    if (old != nullptr && options_.takeover == Takeover::kRefuse) {
      return fail(ErrorKind::kBusy, "another connection is writing (takeover=refuse)", EBUSY);
    }
    if (old != nullptr) {
      old->fenced.store(true);
      wait_idle(*old);
    }
    // Somebody else may have taken over meanwhile: then fence that one.
    Client* expected = old;
    if (!writer_.compare_exchange_strong(expected, &client) && expected == nullptr) {
      writer_.store(&client);
    }
  }
  return {};
}

void ClientGate::wait_idle(const Client& client) {
  ++waiters_;
  // A connection that is gone has no requests left, and its memory may go: look for it each time.
  const auto in_flight = [&]() CKPT_REQUIRES(mutex_) {
    for (const auto& known : clients_) {
      if (known.get() == &client) {
        return known->requests.load() > 0;
      }
    }
    return false;
  };
  while (in_flight()) {
    changed_.wait_for(mutex_, kGateLook);
  }
  --waiters_;
}

void ClientGate::wait_until_open() {
  const MutexLock lock(mutex_);
  while (state_.load() == State::kHeld) {
    changed_.wait_for(mutex_, kGateLook);
  }
}

Result<> ClientGate::close(ClientPolicy policy, std::chrono::nanoseconds patience) {
  const MutexLock lock(mutex_);
  if (ended_) {
    return fenced(shut_why_);
  }
  const bool was_refusing = refusing_;
  refusing_ = policy != ClientPolicy::kKeep || refusing_;
  std::chrono::nanoseconds waited{0};
  while (policy == ClientPolicy::kRefuse && !clients_.empty() && waited < patience) {
    changed_.wait_for(mutex_, kGateLook);
    waited += kGateLook;
  }
  if (policy == ClientPolicy::kRefuse && !clients_.empty()) {
    refusing_ = was_refusing;
    return fail(ErrorKind::kBusy,
                std::to_string(clients_.size()) +
                    " client(s) connected: disconnect them, or see --clients=fence and "
                    "--clients=keep");
  }
  if (ended_) {  // while this waited
    return fenced(shut_why_);
  }
  state_.store(State::kHeld);
  const std::vector<std::shared_ptr<Client>> clients(clients_.begin(), clients_.end());
  for (const auto& client : clients) {
    client->cut_off.store(policy == ClientPolicy::kFence || client->cut_off.load());
    wait_idle(*client);
  }
  return {};
}

void ClientGate::open(bool refuse_new) {
  const MutexLock lock(mutex_);
  if (ended_) {
    return;
  }
  refusing_ = refuse_new;
  state_.store(State::kOpen);
  changed_.notify_all();
}

Unexpected ClientGate::shut_out() {
  const MutexLock lock(mutex_);
  return fenced(shut_why_);
}

void ClientGate::refuse_all(const std::string& why) {
  refusing_ = true;
  shut_why_ = why;
  state_.store(State::kShut);
  changed_.notify_all();
}

void ClientGate::shut(const std::string& why) {
  const MutexLock lock(mutex_);
  if (!ended_) {
    refuse_all(why);
  }
}

void ClientGate::end(const std::string& why) {
  const MutexLock lock(mutex_);
  ended_ = true;
  refuse_all(why);
}

void ClientGate::accept() {
  const MutexLock lock(mutex_);
  refusing_ = ended_;
}

bool ClientGate::is_refusing() {
  const MutexLock lock(mutex_);
  return refusing_;
}

}  // namespace ckpt
