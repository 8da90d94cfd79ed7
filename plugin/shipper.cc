// SPDX-License-Identifier: Apache-2.0
#include "plugin/shipper.h"

#include <algorithm>

namespace ckpt {
namespace {

constexpr uint64_t kChunkBlocks = kLockedBytesMax / kBlockBytes;
// An extent costs a table entry: few enough that a batch stays within its limits.
constexpr size_t kExtentsPerBatch = kBatchExtentsMax / 2;
// Looked up at once when shipping ahead: more than a batch holds if they are full.
constexpr size_t kRegionsAhead = 64;
// Shipping ahead may wait. It rests so many times as long as it works while clients write.
constexpr int kRestWhenCrowded = 15;
constexpr int kRestElse = 1;
// One of zstd's fast levels: half the time of level 1.
constexpr int kLevelWhenCrowded = -7;

}  // namespace

void Shipper::start_session(const Sender& sender) {
  sender_ = sender;
  unconfirmed_.clear();
  sent_ = false;
  start_epoch();
}

void Shipper::start_epoch() {
  ahead_.clear();
  waiting_since_.reset();
  for (uint64_t region = 0; region < disk_.geometry.regions(); ++region) {
    disk_.heat[region].store(0, std::memory_order_relaxed);
  }
}

bool Shipper::is_due() {
  const uint64_t blocks = disk_.epochs.current().unshipped.count();
  if (blocks == 0) {
    waiting_since_.reset();
    return !disk_.preserved.empty();
  }
  if (!waiting_since_) {
    waiting_since_ = disk_.clock.steady();
  }
  const SteadyTime now = disk_.clock.steady();
  const bool enough = blocks >= disk_.batch_blocks || now - *waiting_since_ >= options_.batch_delay;
  return enough && pace_.may_go_on(now, disk_.since_write());
}

bool Shipper::all_sent(const EpochObject& closed) {
  // In this order: a writer counts itself in, takes the bit, hands over its copy, counts itself
  // out.
  return closed.unshipped.count() == 0 && closed.preserving.load() == 0 && disk_.preserved.empty();
}

Result<bool> Shipper::ship_some(EpochObject& epoch) {
  CKPT_ASSIGN(const bool preserved, send_preserved());
  return preserved ? Result<bool>(true) : ship_regions(epoch, hottest(epoch.unshipped));
}

Result<bool> Shipper::ship_ahead() {
  const SteadyTime begin = disk_.clock.steady();
  CKPT_ASSIGN(const bool preserved, send_preserved());
  EpochObject& epoch = disk_.epochs.current();
  CKPT_ASSIGN(const bool shipped, ship_regions(epoch, worth_it(epoch)));
  if (shipped) {
    const SteadyTime end = disk_.clock.steady();
    const int rest = is_crowded_ ? kRestWhenCrowded : kRestElse;
    pace_.rest_for((end - begin) * rest, end);
  } else {
    waiting_since_ = disk_.clock.steady();
  }
  return preserved || shipped;
}

// Some regions that are worth sending ahead, going round from where the last call ended.
std::vector<uint64_t> Shipper::worth_it(EpochObject& epoch) {
  std::vector<uint64_t> regions;
  for (const bool again : {false, true}) {
    auto region = epoch.unshipped.next_region(again ? 0 : region_cursor_);
    for (; region && regions.size() < kRegionsAhead;
         region = epoch.unshipped.next_region(*region + 1)) {
      epoch.unshipped.tidy(*region);
      if (is_worth_it(epoch, *region)) {
        regions.push_back(*region);
      }
    }
  }
  region_cursor_ = regions.empty() ? 0 : regions.back() + 1;
  std::sort(regions.begin(), regions.end());
  regions.erase(std::unique(regions.begin(), regions.end()), regions.end());
  return regions;
}

bool Shipper::is_worth_it(const EpochObject& epoch, uint64_t region) const {
  if (epoch.unshipped.region_empty(region)) {
    return false;
  }
  const auto ahead = ahead_.find(region);
  return ahead == ahead_.end() || ahead->second < epoch.written.count_in(region);
}

// The regions written most often, as many as fill a batch, ascending as a batch must be.
std::vector<uint64_t> Shipper::hottest(const ChangeMap& map) const {
  std::vector<std::pair<uint16_t, uint64_t>> hot;
  for (auto region = map.next_region(0); region; region = map.next_region(*region + 1)) {
    hot.emplace_back(disk_.heat[*region].load(std::memory_order_relaxed), *region);
  }
  std::stable_sort(hot.begin(), hot.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<uint64_t> regions;
  uint64_t bytes = 0;
  for (size_t i = 0; i < hot.size() && bytes < draft_bytes_; ++i) {
    bytes += map.count_in(hot[i].second) * kBlockBytes;
    regions.push_back(hot[i].second);
  }
  std::sort(regions.begin(), regions.end());
  return regions;
}

// One batch of each epoch that there are copies of.
Result<bool> Shipper::send_preserved() {
  const std::vector<PreservedCopy> copies = take_preserved();
  for (auto from = copies.begin(); from != copies.end();) {
    const auto to = std::find_if(from, copies.end(), [from](const PreservedCopy& copy) {
      return copy.epoch != from->epoch;
    });
    CKPT_TRY(send_copies({from, to}));
    from = to;
  }
  return !copies.empty();
}

// As many as fit a batch, ordered as batches need them. Of one block there is only one copy an
// epoch: once its bit was taken from the closed object, no write of that epoch can come to it.
std::vector<PreservedCopy> Shipper::take_preserved() {
  std::vector<PreservedCopy> copies;
  for (uint64_t bytes = 0; bytes < draft_bytes_; bytes += copies.back().range.length) {
    auto copy = disk_.preserved.next();
    if (!copy) {
      break;
    }
    copies.push_back(std::move(*copy));
  }
  std::ranges::sort(copies, [](const PreservedCopy& a, const PreservedCopy& b) {
    return std::pair(a.epoch, a.range.offset) < std::pair(b.epoch, b.range.offset);
  });
  return copies;
}

Result<> Shipper::send_copies(std::span<const PreservedCopy> copies) {
  draft_.begin(++sequence_);
  for (const PreservedCopy& copy : copies) {
    CKPT_TRY(disk_.preserved.read(copy, draft_.room(copy.range.length)));
    draft_.add(copy.range.offset, copy.range.length);
  }
  return send_draft(copies.front().epoch);
}

Result<bool> Shipper::ship_regions(EpochObject& epoch, const std::vector<uint64_t>& regions) {
  const Epoch number{epoch.number.load()};
  draft_.begin(++sequence_);
  for (const uint64_t region : regions) {
    const uint64_t before = draft_.blocks();
    CKPT_ASSIGN(const bool more, read_region(epoch, region));
    epoch.unshipped.tidy(region);
    ahead_[region] += draft_.blocks() - before;
    if (!more) {
      break;
    }
  }
  if (draft_.empty()) {
    return false;
  }
  CKPT_TRY(send_draft(number));
  return true;
}

// False: the draft is full.
Result<bool> Shipper::read_region(EpochObject& epoch, uint64_t region) {
  BlockRange rest = disk_.geometry.region_blocks(region);
  for (auto run = epoch.unshipped.next_run(rest); run; run = epoch.unshipped.next_run(rest)) {
    const uint64_t end = std::min(run->first + kChunkBlocks, rest.end);
    CKPT_ASSIGN(const bool more, read_chunk(epoch, {run->first, end}));
    rest.first = end;
    if (!more) {
      return false;
    }
  }
  return true;
}

Result<bool> Shipper::read_chunk(EpochObject& epoch, BlockRange chunk) {
  const BlockLocks::Hold lock(disk_.locks, chunk);
  std::vector<BlockRange> runs;
  epoch.unshipped.take(chunk, runs);
  CKPT_TRY(read_runs(runs));
  return draft_.data().size() < draft_bytes_ && draft_.extents().size() < kExtentsPerBatch;
}

Result<> Shipper::read_runs(const std::vector<BlockRange>& runs) {
  std::vector<ByteRange> ranges;
  std::vector<Transfer> transfers;
  const ByteSpan room = draft_.room(kLockedBytesMax);
  size_t at = 0;
  for (const BlockRange& run : runs) {
    const ByteRange range = bytes_of(run, disk_.geometry.size_bytes);
    ranges.push_back(range);
    transfers.push_back({range.offset, room.subspan(at, range.length)});
    at += range.length;
  }
  CKPT_TRY(disk_.image.read_many(transfers));
  draft_.add_many(ranges);
  return {};
}

Result<> Shipper::send_draft(Epoch epoch) {
  const BatchHeader identity{.volume = sender_.volume,
                             .timeline = sender_.timeline,
                             .epoch = epoch,
                             .sequence = draft_.sequence(),
                             .incarnation = sender_.incarnation};
  Compression compression = options_.compression;
  compression.level =
      is_crowded_ ? std::min(compression.level, kLevelWhenCrowded) : compression.level;
  encode_batch_into(batch_, identity, draft_.extents(), draft_.data(), compression);
  CKPT_TRY(store_.receive(batch_));
  sent_ = true;
  Sent& sent = unconfirmed_[epoch];
  sent.chain = chain(sent.chain, batch_.header);
  sent.bytes += batch_.header.stored_bytes;
  return {};
}

std::vector<CoveredEpoch> Shipper::covered(Epoch n) const {
  std::vector<CoveredEpoch> epochs;
  for (const auto& [epoch, sent] : unconfirmed_) {
    if (epoch <= n) {
      epochs.push_back({epoch, sent.chain});
    }
  }
  return epochs;
}

uint64_t Shipper::shipped_bytes(Epoch n) const {
  uint64_t bytes = 0;
  for (const auto& [epoch, sent] : unconfirmed_) {
    bytes += epoch <= n ? sent.bytes : 0;
  }
  return bytes;
}

void Shipper::confirmed(Epoch n) {
  unconfirmed_.erase(unconfirmed_.begin(), unconfirmed_.upper_bound(n));
}

}  // namespace ckpt
