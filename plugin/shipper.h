// SPDX-License-Identifier: Apache-2.0
// The shipper: reads unshipped blocks from the primary and sends them to the store in batches.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <vector>

#include "common/store_link.h"
#include "plugin/disk.h"
#include "common/draft.h"
#include "plugin/pace.h"

namespace ckpt {

// The most that the shipper locks against writers at once.
inline constexpr uint64_t kLockedBytesMax = 65536;
inline constexpr uint64_t kLockedBlocksMax = kLockedBytesMax / kBlockBytes;

// A batch is sent when it holds so much, however large the trigger is: it is read, compressed and
// checksummed while it is in a processor's cache.
inline constexpr uint64_t kDraftBytesMax = uint64_t{1} << 20U;

// Shipping ahead goes on when no client has written for so long.
inline constexpr std::chrono::milliseconds kLookAhead{2};

struct ShipOptions {
  uint64_t batch_bytes = uint64_t{4} << 20U;  // so much unshipped is reason to ship
  std::chrono::milliseconds batch_delay{100};
  Compression compression;
};

// Who sends: what every batch names.
struct Sender {
  Uuid volume;
  Uuid timeline;
  uint64_t incarnation = 0;
};

// Step functions: one thread at a time. Preserved copies and blocks are sent in the order in which
// they were read, so the store can apply by (epoch, sequence).
// Failure: an error of the store ends the session; what was read is then unshipped again, because a
// new session makes everything that is changed unshipped. kUnreadable does not: what could be read
// was sent, the rest is unshipped again.
class Shipper {
 public:
  Shipper(Disk& disk, StoreLink& store, ShipOptions options)
      : disk_(disk),
        store_(store),
        options_(options),
        draft_bytes_(std::min(options.batch_bytes, kDraftBytesMax)),
        // What comes last may begin just below the limit; a preserved copy is the largest.
        draft_(draft_bytes_ + kPieceBytes) {}

  // A new session: nothing is pending at the store.
  void start_session(const Sender& sender);
  // Sends a batch of the epoch object's unshipped blocks, the most often written regions first, or
  // of preserved copies, if they fill one or no block is left. False: nothing was left to send.
  Result<bool> ship_some(EpochObject& epoch);
  // The same for the current epoch ahead of its cut: leaves alone what was sent and rewritten
  // since, so that a block is sent once or twice an epoch, however often it is written.
  Result<bool> ship_ahead();
  // Whether enough bytes or enough time have come together for ship_ahead(), and it need not rest.
  [[nodiscard]] bool is_due();
  // How long until is_due() is worth asking again; 0: it does not rest.
  [[nodiscard]] std::chrono::nanoseconds rest() const;
  // Whether every block of the closed epoch, read or preserved, has been sent. Only when it is
  // frozen.
  [[nodiscard]] bool all_sent(const EpochObject& closed);

  // Chains of the epochs up to n that were sent since the last confirmed checkpoint.
  [[nodiscard]] std::vector<CoveredEpoch> covered(Epoch n) const;
  // What was sent of these: bytes as stored; blocks, each as often as it was sent.
  struct Amount {
    uint64_t bytes = 0;
    uint64_t blocks = 0;
  };
  [[nodiscard]] Amount shipped(Epoch n) const;
  // Checkpoint n exists.
  void confirmed(Epoch n);
  // The current epoch began: nothing of it was sent, all regions are cold.
  void start_epoch();
  [[nodiscard]] bool has_sent() const { return sent_; }

 private:
  struct Sent {
    Digest chain;
    Amount amount;
  };
  Result<bool> send_preserved();
  std::vector<PreservedCopy> take_preserved();
  Result<> send_epochs(std::span<const PreservedCopy> copies);
  Result<> send_copies(std::span<const PreservedCopy> copies);
  Result<bool> ship_regions(EpochObject& epoch, const std::vector<uint64_t>& regions);
  bool read_region(EpochObject& epoch, uint64_t region);
  void read_chunk(EpochObject& epoch, BlockRange chunk);
  Result<> read_runs(std::span<const BlockRange> runs);
  void put_back(EpochObject& epoch, std::span<const BlockRange> runs, const Error& error);
  [[nodiscard]] Result<> take_unreadable();
  Result<> send_draft(Epoch epoch);
  void order_by_heat(const EpochObject& epoch);
  [[nodiscard]] std::vector<uint64_t> hottest(const EpochObject& epoch);
  [[nodiscard]] std::vector<uint64_t> worth_it(EpochObject& epoch);
  [[nodiscard]] bool is_worth_it(const EpochObject& epoch, uint64_t region) const;

  Disk& disk_;
  StoreLink& store_;
  ShipOptions options_;
  uint64_t draft_bytes_;
  Sender sender_;
  uint64_t sequence_ = 0;
  bool sent_ = false;  // anything in this session
  std::map<Epoch, Sent> unconfirmed_;
  std::vector<uint32_t> ahead_;  // a region each: blocks sent ahead in this epoch
  uint64_t region_cursor_ = 0;
  std::vector<uint32_t> hot_;  // regions of the closed epoch, hottest first, from hot_at_ on
  size_t hot_at_ = 0;
  Epoch hot_epoch_;
  Draft draft_;
  EncodedBatch batch_;                       // its memory is used again
  std::optional<SteadyTime> waiting_since_;  // when unshipped blocks were first seen
  Pace pace_{kLookAhead};                    // of shipping ahead
  std::optional<Error> unreadable_;          // the first read that failed for this draft
  std::optional<BlockRange> bad_chunk_;      // and where, until that was read
  SteadyTime not_before_{};                  // shipping ahead, after such a failure
};

}  // namespace ckpt
