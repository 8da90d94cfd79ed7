// SPDX-License-Identifier: Apache-2.0
// Who may write, and what a rollback does about those who are connected; with real threads.
#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

#include "plugin/client_gate.h"

namespace ckpt {
namespace {

using std::chrono::milliseconds;
using ClientPtr = std::shared_ptr<Client>;

void let_others_run() { std::this_thread::sleep_for(milliseconds(40)); }

// A call on a thread of its own, and whether it has returned.
class Call {
 public:
  template <typename Function>
  explicit Call(Function function)
      : thread_([this, function] {
          outcome_ = function();
          done_.store(true);
        }) {}
  ~Call() { thread_.join(); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  [[nodiscard]] bool is_waiting() const {
    let_others_run();
    return !done_.load();
  }
  Result<> outcome() {
    while (!done_.load()) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    return outcome_;
  }

 private:
  Result<> outcome_;
  std::atomic<bool> done_{false};
  std::thread thread_;
};

ClientPtr connected(ClientGate& gate) { return std::move(*gate.connect()); }

void expect_fenced(const Result<>& outcome) {
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().kind, ErrorKind::kFenced);
  EXPECT_EQ(outcome.error().to_errno(), ESHUTDOWN);
}

// One whole request.
Result<> request(ClientGate& gate, Client& client, bool is_write) {
  CKPT_TRY(gate.enter(client, is_write));
  gate.leave(client);
  return {};
}

TEST(ClientGate, TellsHowManyAreConnected) {
  ClientGate gate({});
  std::vector<uint32_t> told;
  gate.set_listener([&](uint32_t count) { told.push_back(count); });
  const auto a = connected(gate);
  const auto b = connected(gate);
  gate.disconnect(a);
  EXPECT_EQ(gate.count(), 1U);
  gate.disconnect(b);
  EXPECT_EQ(told, (std::vector<uint32_t>{1, 2, 1, 0}));
}

TEST(ClientGate, TheFirstWriteOfANewConnectionFencesTheOldWriter) {
  ClientGate gate({});
  const auto old = connected(gate);
  ASSERT_TRUE(request(gate, *old, true));
  const auto fresh = connected(gate);
  ASSERT_TRUE(request(gate, *fresh, false));
  ASSERT_TRUE(request(gate, *old, true)) << "a reader must fence nobody";
  ASSERT_TRUE(request(gate, *fresh, true));
  expect_fenced(request(gate, *old, true));
  EXPECT_TRUE(request(gate, *old, false)) << "readers are never fenced";
  EXPECT_TRUE(request(gate, *fresh, true));
}

TEST(ClientGate, TheNewWriterWaitsForTheOldOnesRequestsInFlight) {
  ClientGate gate({});
  const auto old = connected(gate);
  const auto fresh = connected(gate);
  ASSERT_TRUE(gate.enter(*old, true));
  Call call([&] { return request(gate, *fresh, true); });
  EXPECT_TRUE(call.is_waiting());
  expect_fenced(request(gate, *old, true));
  gate.leave(*old);
  EXPECT_TRUE(call.outcome());
}

TEST(ClientGate, TakeoverRefuseRefusesTheSecondWriterWhileTheFirstIsThere) {
  ClientGate gate({.takeover = Takeover::kRefuse});
  const auto first = connected(gate);
  const auto second = connected(gate);
  ASSERT_TRUE(request(gate, *first, true));
  const auto refused = request(gate, *second, true);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kBusy);
  EXPECT_TRUE(request(gate, *first, true));
  gate.disconnect(first);
  EXPECT_TRUE(request(gate, *second, true));
}

TEST(ClientGate, WithMultiConnNobodyIsFenced) {
  ClientGate gate({.multi_conn = true});
  const auto a = connected(gate);
  const auto b = connected(gate);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(request(gate, *a, true));
    EXPECT_TRUE(request(gate, *b, true));
  }
}

TEST(ClientGate, RefusingARollbackLeavesClientsAlone) {
  ClientGate gate({});
  const auto client = connected(gate);
  const auto closed = gate.close(ClientPolicy::kRefuse, milliseconds(10));
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().kind, ErrorKind::kBusy);
  EXPECT_TRUE(request(gate, *client, true));
  EXPECT_TRUE(gate.connect());
  EXPECT_FALSE(gate.is_refusing());
}

TEST(ClientGate, RefuseWaitsForAClientThatIsClosing) {
  ClientGate gate({});
  const auto client = connected(gate);
  Call call([&] { return gate.close(ClientPolicy::kRefuse, std::chrono::seconds(20)); });
  EXPECT_TRUE(call.is_waiting());
  EXPECT_FALSE(gate.connect()) << "no new client while a rollback waits for the old";
  gate.disconnect(client);
  EXPECT_TRUE(call.outcome());
}

TEST(ClientGate, FenceFailsTheirRequestsAndRefusesNewOnesUntilAccept) {
  ClientGate gate({});
  const auto client = connected(gate);
  ASSERT_TRUE(gate.close(ClientPolicy::kFence, milliseconds(0)));
  expect_fenced(request(gate, *client, true));
  expect_fenced(request(gate, *client, false));
  EXPECT_FALSE(gate.connect());
  gate.open(true);
  EXPECT_TRUE(gate.is_refusing());
  const auto refused = gate.connect();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kFenced);
  expect_fenced(request(gate, *client, false));
  gate.accept();
  const auto next = connected(gate);
  EXPECT_TRUE(request(gate, *next, true));
  expect_fenced(request(gate, *client, false));
}

TEST(ClientGate, TheEndIsForGood) {
  ClientGate gate({});
  const auto client = *gate.connect();
  gate.end("over");
  gate.shut("something else");
  gate.open(false);
  gate.accept();
  const auto entered = gate.enter(*client, false);
  ASSERT_FALSE(entered);
  EXPECT_EQ(entered.error().context, "over");
  EXPECT_FALSE(gate.connect());
  EXPECT_FALSE(gate.close(ClientPolicy::kKeep, std::chrono::seconds(0)));
  EXPECT_FALSE(gate.enter(*client, true));
}

TEST(ClientGate, FenceWaitsForRequestsInFlight) {
  ClientGate gate({});
  const auto client = connected(gate);
  ASSERT_TRUE(gate.enter(*client, true));
  Call call([&] { return gate.close(ClientPolicy::kFence, milliseconds(0)); });
  EXPECT_TRUE(call.is_waiting());
  gate.leave(*client);
  EXPECT_TRUE(call.outcome());
}

TEST(ClientGate, KeepHoldsTheirRequestsReadsIncludedUntilItIsDone) {
  for (const bool is_write : {false, true}) {
    ClientGate gate({});
    const auto client = connected(gate);
    ASSERT_TRUE(gate.close(ClientPolicy::kKeep, milliseconds(0)));
    Call call([&] { return request(gate, *client, is_write); });
    EXPECT_TRUE(call.is_waiting());
    gate.open(false);
    EXPECT_TRUE(call.outcome());
    EXPECT_TRUE(gate.connect());
  }
}

TEST(ClientGate, KeepWaitsForRequestsInFlight) {
  ClientGate gate({});
  const auto client = connected(gate);
  ASSERT_TRUE(gate.enter(*client, false));
  Call call([&] { return gate.close(ClientPolicy::kKeep, milliseconds(0)); });
  EXPECT_TRUE(call.is_waiting());
  gate.leave(*client);
  EXPECT_TRUE(call.outcome());
}

TEST(ClientGate, WhoIsGoneKeepsNobodyWaiting) {
  ClientGate gate({});
  auto client = connected(gate);
  ASSERT_TRUE(gate.enter(*client, true));
  Call call([&] { return gate.close(ClientPolicy::kKeep, milliseconds(0)); });
  EXPECT_TRUE(call.is_waiting());
  gate.disconnect(client);
  client.reset();
  EXPECT_TRUE(call.outcome());
}

// No request runs between close() and open(), and none is lost.
TEST(ClientGate, NothingRunsInsideUnderLoad) {
  ClientGate gate({.multi_conn = true});
  std::atomic<bool> inside{false};
  std::atomic<bool> stop{false};
  std::atomic<bool> clash{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, client = connected(gate)] {
      while (!stop.load()) {
        if (gate.enter(*client, true)) {
          clash.store(clash.load() || inside.load());
          gate.leave(*client);
        }
      }
    });
  }
  for (int round = 0; round < 200; ++round) {
    ASSERT_TRUE(gate.close(ClientPolicy::kKeep, milliseconds(0)));
    inside.store(true);
    std::this_thread::yield();
    inside.store(false);
    gate.open(false);
  }
  stop.store(true);
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_FALSE(clash.load());
}

}  // namespace
}  // namespace ckpt
