// SPDX-License-Identifier: Apache-2.0
// What passes between a primary and its store, for who looks for a fault (nbdkit -D ckpt.ship=1).
#pragma once

#include <functional>
#include <string>

#include "common/clock.h"
#include "common/store_link.h"

namespace ckpt {

// Where lines go, without a newline. From any thread; not slow: the shipper waits for it. Empty:
// nowhere.
using TraceLine = std::function<void(const std::string&)>;

struct LinkTraceOptions {
  TraceLine ship;   // each batch
  TraceLine store;  // all else but reads and questions: sessions, checkpoints, rollbacks, exports
  [[nodiscard]] bool traces() const { return ship != nullptr || store != nullptr; }
};

// Passes everything on to another link, which outlives it, and says what it was, how long it took
// and what came of it.
class LinkTrace : public StoreLink {
 public:
  LinkTrace(StoreLink& link, LinkTraceOptions options, const Clock& clock)
      : link_(link), options_(std::move(options)), clock_(clock) {}

  Result<StoreGreeting> begin_session() override;
  Result<std::vector<BlockRange>> stale(uint64_t from) override { return link_.stale(from); }
  Result<> accept(uint64_t incarnation) override;
  Result<> tell_forks(const std::vector<CheckpointId>& forks) override {
    return link_.tell_forks(forks);
  }
  Result<> receive(const EncodedBatch& batch) override;
  Result<> confirm(const Confirmation& confirmation) override;
  Result<> roll_back(const CheckpointId& from, const Uuid& to) override;
  Result<> check_promotes() override { return link_.check_promotes(); }
  Result<> promote(const CheckpointId& from, const Uuid& to) override {
    return link_.promote(from, to);
  }
  Result<> read_confirmed(uint64_t offset, ByteSpan buffer) override;
  Result<std::optional<ByteRange>> next_confirmed_data(uint64_t offset) override;
  Result<> read_ranges(std::span<const ByteRange> ranges, ContentSink& sink) override {
    return link_.read_ranges(ranges, sink);
  }
  Result<> attach(Epoch epoch, uint32_t index, ConstByteSpan piece) override {
    return link_.attach(epoch, index, piece);
  }
  Result<> read_attachment(Epoch number, const std::string& name, PieceSink& sink) override {
    return link_.read_attachment(number, name, sink);
  }
  Result<std::vector<Digest>> digests(const DigestQuery& query) override {
    return link_.digests(query);
  }
  [[nodiscard]] Result<> check_link() override { return link_.check_link(); }
  Result<> export_checkpoint(std::optional<Epoch> number, ExportSink& sink) override;
  Result<std::vector<CheckpointInfo>> checkpoints() override;
  StoreStatus status() override;
  Result<StoreStatus> ask() override { return link_.ask(); }

 private:
  template <typename Call>
  auto timed(const TraceLine& line, const std::string& what, const Call& call) -> decltype(call());

  StoreLink& link_;
  const LinkTraceOptions options_;
  const Clock& clock_;
};

}  // namespace ckpt
