// SPDX-License-Identifier: Apache-2.0
#include "plugin/shipper.h"

#include <algorithm>

namespace ckpt {
namespace {

// An extent costs a table entry: few enough that a batch stays within its limits.
constexpr size_t kExtentsPerBatch = kBatchExtentsMax / 2;
// Looked up at once when shipping ahead: more than a batch holds if they are full.
constexpr size_t kRegionsAhead = 64;
// Shipping ahead may wait. It rests so many times as long as it works while clients write.
constexpr int kRestWhenCrowded = 100;
constexpr int kRestElse = 1;
// How often it looks then whether they still do: five hundred times a second cost them 2 %.
constexpr std::chrono::milliseconds kLookWhenCrowded{50};
// What could not be read is not tried again at once.
constexpr std::chrono::seconds kRestUnreadable{1};
// One of zstd's fast levels: half the time of level 1.
constexpr int kLevelWhenCrowded = -7;

}  // namespace

void Shipper::start_session(const Sender& sender) {
  sender_ = sender;
  unconfirmed_.clear();
  sent_ = false;
  unreadable_.reset();
  start_epoch();
}

void Shipper::start_epoch() {
  ahead_.assign(disk_.geometry.regions(), 0);
  hot_.clear();
  hot_at_ = 0;
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
  const SteadyTime now = disk_.clock.steady();
  waiting_since_ = waiting_since_.value_or(now);
  const bool enough = blocks >= disk_.batch_blocks || now - *waiting_since_ >= options_.batch_delay;
  return enough && now >= not_before_ && pace_.may_go_on(now, disk_.since_write());
}

std::chrono::nanoseconds Shipper::rest() const {
  const SteadyTime now = disk_.clock.steady();
  const auto rest = disk_.crowded.load() ? pace_.rest(now, kLookWhenCrowded) : pace_.rest(now);
  return std::max<std::chrono::nanoseconds>(rest, not_before_ - now);
}

bool Shipper::all_sent(const EpochObject& closed) {
  // In this order: a writer counts itself in, takes the bit, hands over its copy, counts itself
  // out.
  return closed.unshipped.count() == 0 && closed.preserving.load() == 0 && disk_.preserved.empty();
}

// Copies come in one by one while clients write: they wait until they fill a batch, or nothing else
// is left.
Result<bool> Shipper::ship_some(EpochObject& epoch) {
  if (disk_.preserved.waiting_bytes() < draft_bytes_) {
    CKPT_ASSIGN(const bool shipped, ship_regions(epoch, hottest(epoch)));
    if (shipped) {
      return true;
    }
  }
  return send_preserved();
}

Result<bool> Shipper::ship_ahead() {
  const SteadyTime begin = disk_.clock.steady();
  CKPT_ASSIGN(const bool preserved, send_preserved());
  EpochObject& epoch = disk_.epochs.current();
  CKPT_ASSIGN(const bool shipped, ship_regions(epoch, worth_it(epoch)));
  if (shipped) {
    const SteadyTime end = disk_.clock.steady();
    const int rest = disk_.crowded.load() ? kRestWhenCrowded : kRestElse;
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
  return !epoch.unshipped.region_empty(region) && ahead_[region] < epoch.written.count_in(region);
}

// Looks at all regions, which takes long on a large disk: once an epoch, if no late writer adds
// more.
void Shipper::order_by_heat(const EpochObject& epoch) {
  hot_.clear();
  hot_at_ = 0;
  hot_epoch_ = Epoch{epoch.number.load()};
  for (auto region = epoch.unshipped.next_region(0); region;
       region = epoch.unshipped.next_region(*region + 1)) {
    hot_.push_back(static_cast<uint32_t>(*region));
  }
  // Heat changes meanwhile: a sort needs one that does not.
  std::vector<uint16_t> heat(disk_.geometry.regions());
  for (const uint32_t region : hot_) {
    heat[region] = disk_.heat[region].load(std::memory_order_relaxed);
  }
  std::ranges::sort(hot_, [&heat](uint32_t a, uint32_t b) {
    return std::pair(heat[b], a) < std::pair(heat[a], b);
  });
}

// The regions written most often, as many as fill a batch, ascending as a batch must be.
std::vector<uint64_t> Shipper::hottest(const EpochObject& epoch) {
  const auto skip_empty = [&] {
    while (hot_at_ < hot_.size() && epoch.unshipped.region_empty(hot_[hot_at_])) {
      ++hot_at_;
    }
  };
  skip_empty();
  if (hot_epoch_.value != epoch.number.load() || hot_at_ == hot_.size()) {
    order_by_heat(epoch);
    skip_empty();
  }
  std::vector<uint64_t> regions;
  uint64_t bytes = 0;
  for (size_t i = hot_at_; i < hot_.size() && bytes < draft_bytes_; ++i) {
    bytes += epoch.unshipped.count_in(hot_[i]) * kBlockBytes;
    regions.push_back(hot_[i]);
  }
  std::sort(regions.begin(), regions.end());
  return regions;
}

Result<bool> Shipper::send_preserved() {
  const std::vector<PreservedCopy> copies = take_preserved();
  const auto sent = send_epochs(copies);
  disk_.preserved.release(copies);
  CKPT_TRY(sent);
  return !copies.empty();
}

// One batch of each epoch that there are copies of.
Result<> Shipper::send_epochs(std::span<const PreservedCopy> copies) {
  for (auto from = copies.begin(); from != copies.end();) {
    const auto to = std::find_if(from, copies.end(), [from](const PreservedCopy& copy) {
      return copy.epoch != from->epoch;
    });
    CKPT_TRY(send_copies({from, to}));
    from = to;
  }
  return {};
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
    const Transfer transfer{copy.range.offset, draft_.room(copy.range.length)};
    if (disk_.preserved.read(copy, transfer.buffer)) {
      draft_.add({&transfer, 1});
    } else {
      disk_.preserved.lose(copy.epoch);
    }
  }
  return draft_.empty() ? Result<>() : send_draft(copies.front().epoch);
}

Result<bool> Shipper::ship_regions(EpochObject& epoch, const std::vector<uint64_t>& regions) {
  const Epoch number{epoch.number.load()};
  draft_.begin(++sequence_);
  for (const uint64_t region : regions) {
    const uint64_t before = draft_.blocks();
    const bool more = read_region(epoch, region);
    epoch.unshipped.tidy(region);
    ahead_[region] += static_cast<uint32_t>(draft_.blocks() - before);
    if (!more) {
      break;
    }
  }
  if (!draft_.empty()) {
    CKPT_TRY(send_draft(number));
  }
  CKPT_TRY(take_unreadable());
  return !draft_.empty();
}

// False: the draft is full.
bool Shipper::read_region(EpochObject& epoch, uint64_t region) {
  BlockRange rest = disk_.geometry.region_blocks(region);
  for (auto run = epoch.unshipped.next_run(rest); run; run = epoch.unshipped.next_run(rest)) {
    const uint64_t end = std::min(run->first + kLockedBlocksMax, rest.end);
    read_chunk(epoch, {run->first, end});
    rest.first = end;
    if (draft_.data().size() >= draft_bytes_ || draft_.extents().size() >= kExtentsPerBatch) {
      return false;
    }
  }
  return true;
}

void Shipper::read_chunk(EpochObject& epoch, BlockRange chunk) {
  std::vector<BlockRange> runs;
  if (CKPT_PLANTED(clear_outside_lock)) {
    epoch.unshipped.take(chunk, runs);
  }
  const BlockLocks::Hold lock(disk_.locks, chunk);
  epoch.unshipped.take(chunk, runs);
  if (runs.empty()) {
    CKPT_PROBE(writer_took_the_block_first);
  }
  if (auto read = read_runs(runs); !read) {
    CKPT_PROBE(block_could_not_be_read);
    put_back(epoch, runs, read.error());
    bad_chunk_ = chunk;
  } else if (bad_chunk_ && bad_chunk_->overlaps(chunk)) {
    bad_chunk_.reset();
    disk_.trouble.all_read();
  }
}

// Still under the block lock: nobody has seen the bits gone.
void Shipper::put_back(EpochObject& epoch, std::span<const BlockRange> runs, const Error& error) {
  for (const BlockRange& run : runs) {
    epoch.unshipped.set(run);
  }
  if (!unreadable_) {
    unreadable_ = error;
    unreadable_->kind = ErrorKind::kUnreadable;
  }
}

Result<> Shipper::take_unreadable() {
  if (!unreadable_) {
    return {};
  }
  const Error error = *std::exchange(unreadable_, std::nullopt);
  disk_.trouble.unreadable(error);
  not_before_ = disk_.clock.steady() + kRestUnreadable;
  return Unexpected(error);
}

Result<> Shipper::read_runs(std::span<const BlockRange> runs) {
  std::vector<Transfer> transfers;
  const ByteSpan room = draft_.room(kLockedBytesMax);
  size_t at = 0;
  for (const BlockRange& run : runs) {
    const ByteRange range = bytes_of(run, disk_.geometry.size_bytes);
    transfers.push_back({range.offset, room.subspan(at, range.length)});
    at += range.length;
  }
  CKPT_TRY(disk_.image.read_many(transfers));
  draft_.add(transfers);
  return {};
}

Result<> Shipper::send_draft(Epoch epoch) {
  if (CKPT_PLANTED(label_at_send)) {
    epoch = Epoch{disk_.epochs.current().number.load()};
  }
  const BatchHeader identity{.volume = sender_.volume,
                             .timeline = sender_.timeline,
                             .epoch = epoch,
                             .sequence = draft_.sequence(),
                             .incarnation = sender_.incarnation};
  Compression compression = options_.compression;
  compression.level =
      disk_.crowded.load() ? std::min(compression.level, kLevelWhenCrowded) : compression.level;
  encode_batch_into(batch_, identity, draft_.extents(), draft_.data(), compression);
  CKPT_TRY(store_.receive(batch_));
  sent_ = true;
  Sent& sent = unconfirmed_[epoch];
  sent.chain = chain(sent.chain, batch_.header);
  sent.amount.bytes += batch_.header.stored_bytes;
  sent.amount.blocks += draft_.blocks();
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

Shipper::Amount Shipper::shipped(Epoch n) const {
  Amount total;
  for (const auto& [epoch, sent] : unconfirmed_) {
    if (epoch <= n) {
      total.bytes += sent.amount.bytes;
      total.blocks += sent.amount.blocks;
    }
  }
  return total;
}

void Shipper::confirmed(Epoch n) {
  unconfirmed_.erase(unconfirmed_.begin(), unconfirmed_.upper_bound(n));
}

}  // namespace ckpt
