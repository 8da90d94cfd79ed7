// SPDX-License-Identifier: Apache-2.0
#include "plugin/shipper.h"

#include <algorithm>

#include "common/checksum.h"

namespace ckpt {
namespace {

constexpr uint64_t kChunkBlocks = kLockedBytesMax / kBlockBytes;
// An extent costs a table entry: few enough that a batch stays within its limits.
constexpr size_t kExtentsPerBatch = kBatchExtentsMax / 2;
// Looked up at once when shipping ahead: more than a batch holds if they are full.
constexpr size_t kRegionsAhead = 64;

void add_extent(std::vector<Extent>& extents, const Extent& extent) {
  if (!extents.empty()) {
    Extent& last = extents.back();
    if (last.kind == extent.kind && last.offset + last.length == extent.offset) {
      last.length += extent.length;
      return;
    }
  }
  extents.push_back(extent);
}

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
  return blocks >= disk_.batch_blocks ||
         disk_.clock.steady() - *waiting_since_ >= options_.batch_delay;
}

bool Shipper::all_sent(const EpochObject& closed) {
  // In this order: a writer counts itself in, takes the bit, hands over its copy, counts itself
  // out.
  return closed.unshipped.count() == 0 && closed.preserving.load() == 0 && disk_.preserved.empty();
}

Result<bool> Shipper::ship_some(EpochObject& epoch) {
  // Taken before the preserved copies are sent: one that comes later than this ends the draft.
  const uint64_t arrivals = disk_.preserved.arrivals();
  CKPT_ASSIGN(const bool preserved, send_preserved());
  CKPT_ASSIGN(const bool shipped, ship_regions(epoch, hottest(epoch.unshipped), arrivals));
  return preserved || shipped;
}

Result<bool> Shipper::ship_ahead() {
  const uint64_t arrivals = disk_.preserved.arrivals();
  CKPT_ASSIGN(const bool preserved, send_preserved());
  EpochObject& epoch = disk_.epochs.current();
  CKPT_ASSIGN(const bool shipped, ship_regions(epoch, worth_it(epoch), arrivals));
  if (!shipped) {
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

Result<bool> Shipper::send_preserved() {
  bool any = false;
  while (true) {
    CKPT_ASSIGN(auto copy, disk_.preserved.next());
    if (!copy) {
      return any;
    }
    Draft draft{++sequence_, 0, 0, {}, {}};
    add_blocks(copy->offset, copy->data, draft);
    CKPT_TRY(send(copy->epoch, std::move(draft)));
    any = true;
  }
}

Result<bool> Shipper::ship_regions(EpochObject& epoch, const std::vector<uint64_t>& regions,
                                   uint64_t arrivals) {
  const Epoch number{epoch.number.load()};
  Draft draft{++sequence_, arrivals, 0, {}, {}};
  for (const uint64_t region : regions) {
    const uint64_t before = draft.blocks;
    CKPT_ASSIGN(const bool more, read_region(epoch, region, draft));
    epoch.unshipped.tidy(region);
    ahead_[region] += draft.blocks - before;
    if (!more) {
      break;
    }
  }
  if (draft.extents.empty()) {
    // A draft that a preserved copy ended before it began is not the end of the work.
    return disk_.preserved.arrivals() != arrivals;
  }
  CKPT_TRY(send(number, std::move(draft)));
  return true;
}

// False: the draft is full, or ended.
Result<bool> Shipper::read_region(EpochObject& epoch, uint64_t region, Draft& draft) {
  BlockRange rest = disk_.geometry.region_blocks(region);
  for (auto run = epoch.unshipped.next_run(rest); run; run = epoch.unshipped.next_run(rest)) {
    const uint64_t end = std::min(run->first + kChunkBlocks, rest.end);
    CKPT_ASSIGN(const bool more, read_chunk(epoch, {run->first, end}, draft));
    rest.first = end;
    if (!more) {
      return false;
    }
  }
  return true;
}

Result<bool> Shipper::read_chunk(EpochObject& epoch, BlockRange chunk, Draft& draft) {
  const BlockLocks::Hold lock(disk_.locks, chunk);
  // A copy of one of these blocks that was preserved since the draft began is older than what would
  // be read now, and must be sent first.
  if (disk_.preserved.arrivals() != draft.arrivals) {
    return false;
  }
  std::vector<BlockRange> runs;
  epoch.unshipped.take(chunk, runs);
  CKPT_TRY(read_runs(runs, draft));
  return draft.data.size() < draft_bytes_ && draft.extents.size() < kExtentsPerBatch;
}

Result<> Shipper::read_runs(const std::vector<BlockRange>& runs, Draft& draft) {
  std::vector<Transfer> transfers;
  size_t at = 0;
  for (const BlockRange& run : runs) {
    const ByteRange range = bytes_of(run, disk_.geometry.size_bytes);
    transfers.push_back({range.offset, ByteSpan(chunk_).subspan(at, range.length)});
    at += range.length;
    draft.blocks += run.count();
  }
  CKPT_TRY(disk_.image.read_many(transfers));
  for (const Transfer& transfer : transfers) {
    add_blocks(transfer.offset, transfer.buffer, draft);
  }
  return {};
}

void Shipper::add_blocks(uint64_t offset, ConstByteSpan data, Draft& draft) {
  while (!data.empty()) {
    const ConstByteSpan block = data.first(std::min<size_t>(kBlockBytes, data.size()));
    const bool zero = is_zero(block);
    add_extent(draft.extents, {offset, block.size(), zero ? ExtentKind::kZero : ExtentKind::kData});
    if (!zero) {
      draft.data.insert(draft.data.end(), block.begin(), block.end());
    }
    offset += block.size();
    data = data.subspan(block.size());
  }
}

Result<> Shipper::send(Epoch epoch, Draft draft) {
  const BatchHeader identity{.volume = sender_.volume,
                             .timeline = sender_.timeline,
                             .epoch = epoch,
                             .sequence = draft.sequence,
                             .incarnation = sender_.incarnation};
  const EncodedBatch batch =
      encode_batch(identity, draft.extents, draft.data, options_.compression);
  CKPT_TRY(store_.receive(batch));
  sent_ = true;
  Sent& sent = unconfirmed_[epoch];
  sent.chain = chain(sent.chain, batch.header);
  sent.bytes += batch.header.stored_bytes;
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
