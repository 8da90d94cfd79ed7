// SPDX-License-Identifier: Apache-2.0
#include "backupd/relay.h"

#include <algorithm>

#include "common/lineage.h"

namespace ckpt {
namespace {

// What waits is sent when it is such a part of what may.
constexpr uint64_t kDrainedPart = 4;

void merge(BlockSet& into, const BlockSet& from, BlockRange within) {
  while (const auto run = within.empty() ? std::nullopt : from.find(within, true)) {
    into.add(*run);
    within.first = run->end;
  }
}

std::string described(const CheckpointId& id) {
  return "checkpoint " + std::to_string(id.number.value) + " of timeline " +
         id.timeline.to_string();
}

std::optional<BaseCheckpoint> base_of(const StoreGreeting& greeting) {
  return greeting.last ? std::optional(BaseCheckpoint{greeting.last->id, greeting.last->digest})
                       : std::nullopt;
}

BaseCheckpoint last_of(const StoreRecord& record) { return {record.last->id, record.last->digest}; }

// What the further store has answered for has to be on this one's line: else it would be lost.
Result<> check_line(const StoreRecord& record, const std::optional<BaseCheckpoint>& found) {
  const CheckpointInfo& last = *record.last;
  const bool fits =
      !found || (is_on_line(found->id, record.forks, last.id) &&
                 (found->id.number != last.id.number || found->digest == last.digest));
  return fits ? Result<>()
              : fail(ErrorKind::kFenced, "the further back-up has " + described(found->id) +
                                             ", which is not on the line that leads to " +
                                             described(last.id) +
                                             " here: nothing is passed on, and both stay as they "
                                             "are");
}

// Passes an attachment on, piece by piece.
class AttachmentRelay final : public PieceSink {
 public:
  AttachmentRelay(StoreLink& further, Epoch epoch, uint32_t index)
      : further_(further), epoch_(epoch), index_(index) {}
  Result<> take(const PieceHeader& /*header*/, ConstByteSpan piece) override {
    return further_.attach(epoch_, index_, piece);
  }

 private:
  StoreLink& further_;
  const Epoch epoch_;
  const uint32_t index_;
};

}  // namespace

Relay::Relay(Store& store, StoreLink& further, uint64_t queue_bytes,
             std::function<void()> keep_alive)
    : store_(store),
      further_(further),
      size_bytes_(store.record().size_bytes),
      queue_bytes_(queue_bytes),
      keep_alive_(std::move(keep_alive)),
      queue_(queue_bytes) {
  store_.follow(changes_);
}

Relay::~Relay() { store_.unfollow(changes_); }

std::optional<CheckpointId> Relay::passed() const {
  const MutexLock lock(mutex_);
  return passed_;
}

Result<bool> Relay::step() {
  const StoreRecord record = store_.record();
  if (!record.last) {
    return false;
  }
  auto brought = bring(record);
  if (!brought) {
    is_in_session_ = false;
  }
  parcel_.reset();
  return brought;
}

Result<bool> Relay::bring(const StoreRecord& record) {
  if (!is_of_session(record) || !further_.check_link()) {
    is_in_session_ = false;
    CKPT_ASSIGN(const bool lacks_some, lacks(record));
    if (!lacks_some) {
      return false;
    }
    CKPT_TRY(begin_session(record));
  }
  if (passed() == record.last->id) {
    return false;
  }
  CKPT_TRY(pass());
  return true;
}

// A session is begun only for what the further store lacks: it may be another's, such as where two
// pass on to each other.
Result<bool> Relay::lacks(const StoreRecord& record) {
  const auto kept = further_.checkpoints();
  if (!kept && kept.error().kind != ErrorKind::kNotFound) {
    return Unexpected(kept.error());
  }
  const auto found = kept && !kept->empty()
                         ? std::optional(BaseCheckpoint{kept->back().id, kept->back().digest})
                         : std::nullopt;
  CKPT_TRY(check_line(record, found));
  if (found != last_of(record)) {
    return true;
  }
  const MutexLock lock(mutex_);
  passed_ = found->id;
  if (!is_known_) {
    // Whatever has changed in the image since this began is noted.
    is_known_ = true;
    base_ = found;
  }
  return record.incarnation != incarnation_ && incarnation_ != 0;
}

bool Relay::is_of_session(const StoreRecord& record) const {
  return is_in_session_ && record.incarnation == incarnation_ &&
         record.last->id.timeline == timeline_;
}

// The incarnation is the primary's: should the further store take the place of this one, it is
// known there.
Result<> Relay::begin_session(const StoreRecord& record) {
  is_in_session_ = false;
  CKPT_ASSIGN(const StoreGreeting greeting, further_.begin_session());
  CKPT_TRY(further_.check_takes_copies());
  const auto rejoined =
      greeting.bases.empty() ? std::nullopt : std::optional(greeting.bases.front());
  CKPT_TRY(check_line(record, greeting.last ? base_of(greeting) : rejoined));
  find_what_it_lacks(greeting);
  CKPT_TRY(further_.accept(record.incarnation));
  CKPT_TRY(follow_forks(record));
  incarnation_ = record.incarnation;
  timeline_ = record.last->id.timeline;
  is_in_session_ = true;
  return {};
}

// Nothing is pending there now, so that any block may be compared.
void Relay::find_what_it_lacks(const StoreGreeting& greeting) {
  const BlockRange all{0, block_count(size_bytes_)};
  const auto last = base_of(greeting);
  const MutexLock lock(mutex_);
  if (is_known_ && last == base_) {
    CKPT_PROBE(relay_went_on_after_a_break);
    if (!CKPT_PLANTED(relay_forgets_what_was_pending)) {
      merge(to_compare_, handed_, all);
    }
  } else if (!is_known_ || !last || last != confirming_) {
    to_send_.clear();
    to_compare_.add(all);
  }
  handed_.clear();
  (void)queue_.take();
  covered_.clear();
  tried_ = attached_ = {};
  confirming_.reset();
  base_ = last;
  is_begun_ = greeting.is_begun;
  is_known_ = true;
  passed_ = last ? std::optional(last->id) : std::nullopt;
}

// A rollback gave the last checkpoint another timeline.
Result<> Relay::follow_forks(const StoreRecord& record) {
  while (base_ && base_->id != record.last->id && base_->id.number == record.last->id.number) {
    const auto fork = std::ranges::find(record.forks, base_->id);
    if (fork == record.forks.end()) {
      return {};
    }
    const auto next = std::next(fork);
    const Uuid to = next == record.forks.end() ? record.last->id.timeline : next->timeline;
    CKPT_PROBE(relay_followed_a_rollback);
    CKPT_TRY(further_.roll_back(base_->id, to));
    base_->id.timeline = to;
    const MutexLock lock(mutex_);
    passed_ = base_->id;
  }
  return {};
}

Result<> Relay::pass() {
  parcel_.emplace(further_, size_bytes_, !base_ && !is_begun_,
                  [this](const std::vector<Extent>& extents, ConstByteSpan data) {
                    return send(extents, data);
                  });
  const auto handed_over = store_.relay(*this);
  // What is on its way then is as good for the checkpoint that comes next.
  const bool is_overtaken = !handed_over && handed_over.error().kind == ErrorKind::kBusy;
  if (!handed_over && !is_overtaken) {
    return handed_over;
  }
  CKPT_TRY(drain());
  CKPT_TRY(parcel_->flush());
  if (!is_overtaken && is_of_session(target_)) {
    CKPT_TRY(pass_attachments());
    if (attached_ == target_.last->id.number) {
      return confirm();
    }
  }
  CKPT_PROBE(relay_was_overtaken);
  return {};
}

BlockSet Relay::choose(const StoreRecord& record) {
  target_ = record;
  BlockSet wanted;
  if (is_of_session(record)) {
    const BlockRange all{0, block_count(size_bytes_)};
    const MutexLock lock(mutex_);
    merge(CKPT_PLANTED(relay_compares_what_changed) ? to_compare_ : to_send_, changes_.take(), all);
    merge(wanted, to_send_, all);
    merge(wanted, to_compare_, all);
  }
  return wanted;
}

Result<> Relay::begin(const CheckpointInfo& /*checkpoint*/, uint64_t /*size_bytes*/) { return {}; }

Result<> Relay::write(uint64_t offset, ConstByteSpan data) {
  return take({offset, data.size()}, data);
}

Result<> Relay::zero(ByteRange range) { return take(range, {}); }

// A run that is to be sent, or one that is to be compared, at a time.
Result<> Relay::take(ByteRange range, ConstByteSpan data) {
  const MutexLock lock(mutex_);
  for (BlockRange rest = blocks_of(range); !rest.empty();) {
    const auto to_send = to_send_.find(rest, true);
    const bool is_compared = !to_send || to_send->first > rest.first;
    const BlockRange run{rest.first, !is_compared ? to_send->end
                                     : to_send    ? to_send->first
                                                  : rest.end};
    const ByteRange bytes = bytes_of(run, size_bytes_);
    RelayPart part{bytes, {}, is_compared};
    if (!data.empty()) {
      const ConstByteSpan its = data.subspan(bytes.offset - range.offset, bytes.length);
      part.data.assign(its.begin(), its.end());
    }
    CKPT_TRY(queue_.put(std::move(part)));
    to_send_.remove(run);
    to_compare_.remove(run);
    handed_.add(run);
    rest.first = run.end;
  }
  return {};
}

Result<> Relay::rest() {
  keep_alive_();
  CKPT_TRY(pass_attachments());
  return queue_.bytes() < queue_bytes_ / kDrainedPart ? Result<>() : drain();
}

// What was taken and is not sent is lost to this session.
Result<> Relay::drain() {
  auto added = parcel_->add(queue_.take());
  is_in_session_ = is_in_session_ && added.has_value();
  return added;
}

Result<> Relay::send(const std::vector<Extent>& extents, ConstByteSpan data) {
  // Of what is not confirmed all is of one epoch, however many checkpoints overtake it: a store
  // takes only so many.
  const Epoch number = covered_.empty() ? target_.last->id.number : covered_.begin()->first;
  const EncodedBatch batch = encode_batch({.volume = target_.volume,
                                           .timeline = timeline_,
                                           .epoch = number,
                                           .sequence = ++sequence_,
                                           .incarnation = incarnation_},
                                          extents, data, Compression{});
  CKPT_TRY(further_.receive(batch));
  Digest& sent = covered_[number];
  sent = chain(sent, batch.header);
  return {};
}

// Early: when the next checkpoint comes, these are gone here, and what is there of them is void.
// The disk is passed on all the same.
Result<> Relay::pass_attachments() {
  const CheckpointInfo& checkpoint = *target_.last;
  const Epoch number = checkpoint.id.number;
  if (std::exchange(tried_, number) == number) {
    return {};
  }
  for (uint32_t i = 0; i < checkpoint.attachments.size(); ++i) {
    AttachmentRelay sink(further_, number, i);
    const auto passed = store_.read_attachment(number, checkpoint.attachments[i].name, sink);
    if (!passed && store_.record().last->id != checkpoint.id) {
      // If the link is broken, too, the next use of it tells.
      return {};
    }
    is_in_session_ = is_in_session_ && passed.has_value();
    CKPT_TRY(passed);
  }
  attached_ = number;
  return {};
}

Result<> Relay::confirm() {
  CheckpointCopy copy{{*target_.last, {}}, target_.forks};
  for (const auto& [epoch, sent] : covered_) {
    copy.confirmation.covered.push_back({epoch, sent});
  }
  confirming_ = BaseCheckpoint{target_.last->id, target_.last->digest};
  CKPT_TRY(further_.confirm_copy(copy));
  base_ = std::exchange(confirming_, std::nullopt);
  covered_.clear();
  const MutexLock lock(mutex_);
  handed_.clear();
  passed_ = base_->id;
  return {};
}

}  // namespace ckpt
