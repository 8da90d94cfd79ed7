// SPDX-License-Identifier: Apache-2.0
// The network between two simulated machines: a server of one listens, processes of the other
// connect.
//
// Bytes take their time, and come in order. A connection may break after any byte: both sides hear
// of it; or neither does, and what is sent is lost; or one does, and the other goes on hearing what
// was under way, late. A killed process closes its connections as the kernel does: what it has sent
// still comes. One whose machine has lost its power says nothing any more.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "common/stream.h"
#include "common/waker.h"
#include "tests/sim/scheduler.h"

namespace ckpt::sim {

struct NetworkOptions {
  SteadyTime delay_max = std::chrono::milliseconds(2);  // of what is sent at once
  uint64_t room_bytes = 65536;      // that may be under way in one direction, before a sender waits
  uint64_t break_one_in = 0;        // of connections; 0: none
  uint64_t bytes_before_break = 0;  // at most, in the direction that breaks; a few are as likely as many
};

// One direction of a connection.
struct Pipe {
  struct Segment {
    SteadyTime arrives{};
    std::vector<std::byte> bytes;
    size_t taken = 0;
  };
  std::deque<Segment> segments;
  uint64_t bytes = 0;  // under way, or not taken yet
  SteadyTime last_arrives{};
  std::optional<SteadyTime> end_arrives;  // then the reader knows that nothing more comes
  bool is_cut = false;                    // what is sent is lost
  bool is_deaf = false;                   // the reader is gone
  std::optional<uint64_t> breaks_after;   // so many bytes more
  Waker readable;
  Waker writable;
};

enum class LinkEnd { kClient, kServer };

// Both ends' streams have it.
struct Wire {
  explicit Wire(const NetworkOptions& network) : options(network) {}
  const NetworkOptions options;
  Pipe to_server;
  Pipe to_client;
  // The process at each end; kHarness: it has closed.
  ProcessId client = kHarness;
  ProcessId server = kHarness;
  [[nodiscard]] Pipe& into(LinkEnd end) { return end == LinkEnd::kServer ? to_server : to_client; }
  [[nodiscard]] Pipe& out_of(LinkEnd end) {
    return end == LinkEnd::kServer ? to_client : to_server;
  }
  [[nodiscard]] ProcessId& owner(LinkEnd end) { return end == LinkEnd::kServer ? server : client; }
};

// How often what is rare has happened.
struct NetworkCounts {
  uint64_t resets = 0;      // both sides heard of it
  uint64_t silences = 0;    // neither did
  uint64_t one_sided = 0;   // one did
  uint64_t late_bytes = 0;  // were heard after the sender had given up
};

class SimNetwork final : private ProcessListener {
 public:
  SimNetwork(Scheduler& scheduler, const NetworkOptions& options, SeededRandom random);
  ~SimNetwork() override;
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  // ---- fibers

  // At once if a server listens or was killed; after that time, and in vain, if its machine is
  // down.
  Result<std::unique_ptr<Stream>> connect(std::chrono::milliseconds patience);
  // The fiber's process is the server.
  void listen() { listener_ = scheduler_.process(); }
  // Until a server does so.
  void wait_for_listener();
  // Waits so long for a connection, at most; null: none came.
  std::unique_ptr<Stream> accept(SteadyTime time);

  // ---- the harness

  // From here on, connections do not break, and bytes take no longer than they must.
  void set_breaking(bool breaking) { is_breaking_ = breaking; }
  // The process is about to be killed with its machine: nobody hears of it.
  void lose_power(ProcessId process) { powerless_ = process; }
  [[nodiscard]] const NetworkCounts& counts() const { return counts_; }

 private:
  friend class SimStream;

  void on_kill(ProcessId process) override;
  void on_killed(ProcessId /*process*/) override {}
  // The kernel of that end closes it.
  void close(Wire& wire, LinkEnd end);
  static void cut(Pipe& pipe);
  void break_wire(Wire& wire);
  void break_one_sided(Wire& wire, LinkEnd hears);
  void end(Pipe& pipe, SteadyTime after);
  [[nodiscard]] SteadyTime draw_delay();

  Scheduler& scheduler_;  // outlives this
  NetworkOptions options_;
  SeededRandom random_;
  bool is_breaking_ = false;
  ProcessId listener_ = kHarness;
  ProcessId powerless_ = kHarness;
  bool is_down_ = false;  // the listener's machine
  std::deque<std::shared_ptr<Wire>> unaccepted_;
  Waker connected_;
  std::vector<std::weak_ptr<Wire>> wires_;
  NetworkCounts counts_;
};

// Lifetime: the network outlives it.
class SimStream final : public Stream {
 public:
  SimStream(SimNetwork& network, std::shared_ptr<Wire> wire, LinkEnd end,
            std::chrono::milliseconds silence)
      : network_(network), wire_(std::move(wire)), end_(end), silence_(silence) {}
  ~SimStream() override { close(); }

  Result<> shake_hands(const std::string& /*host*/) override { return {}; }
  Result<> read(ByteSpan buffer) override;
  Result<> write(ConstByteSpan head, ConstByteSpan body) override;
  [[nodiscard]] bool can_write() const override;
  [[nodiscard]] bool is_over() const override;
  void stop_reading() override { is_reading_ = false; }
  void shut_down() override;
  void set_silence(std::chrono::milliseconds silence) override { silence_ = silence; }

 private:
  [[nodiscard]] SteadyTime now() const;
  [[nodiscard]] Result<> check_open() const;
  [[nodiscard]] bool has_ended() const;
  size_t take(ByteSpan buffer);
  size_t put(ConstByteSpan bytes);
  Result<> write_all(ConstByteSpan bytes);
  void close();

  SimNetwork& network_;
  std::shared_ptr<Wire> wire_;
  const LinkEnd end_;
  std::chrono::milliseconds silence_;
  bool is_closed_ = false;
  bool is_reading_ = true;
};

}  // namespace ckpt::sim
