// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/store.h"

#include <algorithm>
#include <cerrno>

#include "common/checkpoint_codec.h"
#include "common/lineage.h"

namespace ckpt {
namespace {

// An error that says that the peer is wrong, or that no file could be opened just now; not that the
// store is broken.
bool is_refusal(const Error& error) {
  return error.kind == ErrorKind::kInvalid || error.kind == ErrorKind::kCorrupt ||
         error.number == EMFILE || error.number == ENFILE;
}

std::vector<CoveredEpoch> epochs_of(const std::vector<CoveredSegment>& segments) {
  std::vector<CoveredEpoch> epochs;
  epochs.reserve(segments.size());
  for (const CoveredSegment& segment : segments) {
    epochs.push_back({segment.epoch, segment.chain});
  }
  return epochs;
}

}  // namespace

// One at a time: whoever makes one has session_mutex_.
class Store::Hurry {
 public:
  explicit Hurry(Store& store) : store_(store) {
    store_.waited_since_.store(store_.now());
    store_.is_waited_for_.store(true);
  }
  ~Hurry() { store_.is_waited_for_.store(false); }
  Hurry(const Hurry&) = delete;
  Hurry& operator=(const Hurry&) = delete;

 private:
  Store& store_;
};

Result<StoreGreeting> Store::begin_session() {
  const MutexLock lock(session_mutex_);
  // First: an old primary must hear of it from a store that failed meanwhile, too.
  CKPT_TRY(CKPT_PLANTED(no_fence_after_promotion) ? Result<>() : check_not_promoted());
  CKPT_TRY(latch_.check());
  session_ = Session::kNone;
  over_.reset();
  if (!CKPT_PLANTED(keep_pending_across_sessions)) {
    CKPT_TRY(keep_first_copy());
    CKPT_TRY(drop_pending());
  }
  CKPT_TRY(make_reserve());
  const auto free_bytes = directory_->free_bytes();
  image_->set_ample(free_bytes && *free_bytes >= options_.size_bytes);
  session_ = Session::kGreeted;
  const StoreRecord record = volume_->record();
  CKPT_ASSIGN(const auto data, image_->next_data(0));
  is_begun_ = !record.last && (data || record.rejoined);
  return StoreGreeting{record.last, record.incarnation, is_begun_,
                       record.rejoined ? record.rejoined->bases : std::vector<BaseCheckpoint>()};
}

Result<> Store::accept(uint64_t incarnation) {
  CKPT_TRY(accept_locked(incarnation));
  announce_work();  // to relays, which pass it on
  return {};
}

Result<> Store::accept_locked(uint64_t incarnation) {
  const MutexLock lock(session_mutex_);
  CKPT_TRY(latch_.check());
  if (session_ == Session::kOver) {
    return Unexpected(*over_);
  }
  if (session_ == Session::kNone || incarnation == 0) {
    return fail(ErrorKind::kInvalid, "store: no session has begun, or incarnation 0");
  }
  if (volume_->record().incarnation != incarnation) {
    auto recorded =
        volume_->update([incarnation](StoreRecord& record) { record.incarnation = incarnation; });
    if (!recorded) {
      return end_session(recorded.error());
    }
  }
  session_ = Session::kAccepted;
  return {};
}

// Of a store that has a checkpoint they are its own.
Result<> Store::tell_forks(const std::vector<CheckpointId>& forks) {
  const MutexLock lock(session_mutex_);
  CKPT_TRY(check_session());
  const StoreRecord record = volume_->record();
  if (record.last || record.forks == forks || forks.size() > kForksMax) {
    return {};
  }
  auto recorded = volume_->update([&forks](StoreRecord& told) { told.forks = forks; });
  return recorded ? Result<>() : Result<>(end_session(recorded.error()));
}

Result<> Store::check_session() const {
  CKPT_TRY(latch_.check());
  if (session_ == Session::kOver) {
    return Unexpected(*over_);
  }
  if (session_ != Session::kAccepted) {
    return fail(ErrorKind::kInvalid,
                "store: nothing is received before an incarnation is accepted");
  }
  return {};
}

Unexpected Store::end_session(const Error& error) {
  session_ = Session::kOver;
  over_ = error;
  if (error.kind == ErrorKind::kNoSpace) {
    CKPT_PROBE(store_was_full);
    set_problem(error.message());
    if (auto freed = free_space(); !freed) {
      over_ = freed.error();
      return Unexpected(freed.error());
    }
    return Unexpected(error);
  }
  CKPT_PROBE(session_ended_by_an_error);
  return is_refusal(error) ? Unexpected(error) : latch_.set(error);
}

// Pending and all that was only reserved: the next session may find enough, the more so as a pass
// that has only to sync no longer waits (may_sync_later()) before it frees its journal.
Result<> Store::free_space() {
  CKPT_TRY(drop_pending());
  CKPT_TRY(clear_first_copy());
  image_->set_ample(false);
  auto freed = image_->give_back();
  if (freed) {
    freed = image_->give_back_holes();
  }
  return freed ? Result<>() : latch_.set(freed.error());
}

// The image has no checkpoint to keep: what is pending is better there than lost. It is durable
// when a checkpoint is. Not what an earlier life left: it may have had a failed sync, after which
// what is cached is not what is kept. Nor into one that rejoined: what is known of that would be so
// no more.
Result<> Store::keep_first_copy() {
  if (volume_->record().last || is_rejoined()) {
    return {};
  }
  auto kept = is_image_known_ ? pending_->apply() : image_->clear();
  is_image_known_ = true;
  return kept || kept.error().kind == ErrorKind::kNoSpace ? Result<>() : latch_.set(kept.error());
}

Result<> Store::clear_first_copy() {
  auto cleared = volume_->record().last || is_rejoined() ? Result<>() : image_->clear();
  return cleared ? cleared : latch_.set(cleared.error());
}

Result<> Store::drop_pending() {
  timeline_ = {};
  auto dropped = pending_->drop();
  if (dropped) {
    dropped = attachments_->drop();
  }
  publish_pending();
  if (!dropped) {
    set_problem(dropped.error().message());
    return latch_.set(dropped.error());
  }
  return {};
}

// Going without it is no failure, unless the primary has once needed its space.
Result<> Store::make_reserve() {
  auto made = reserve_->make();
  if (made) {
    is_reserve_needed_ = false;
  }
  return made || made.error().kind == ErrorKind::kNoSpace ? Result<>() : made;
}

Result<> Store::receive(const EncodedBatch& batch) {
  const MutexLock lock(session_mutex_);
  CKPT_TRY(check_session());
  if (auto taken = take_batch(batch); !taken) {
    return end_session(taken.error());
  }
  publish_pending();
  set_problem({});
  return {};
}

Result<> Store::check_reserve() const {
  return is_reserve_needed_
             ? fail(ErrorKind::kNoSpace,
                    "store: its reserve went to the primary, and there is no space for a new one")
             : Result<>();
}

// No checkpoint has closed it.
Result<> Store::check_open(Epoch epoch, const char* what) const {
  const StoreRecord record = volume_->record();
  const bool is_open = epoch.value != 0 && (!record.last || epoch > record.last->id.number);
  return is_open ? Result<>()
                 : fail(ErrorKind::kInvalid, std::string("store: ") + what + " of epoch " +
                                                 std::to_string(epoch.value) + ", which is closed");
}

Result<> Store::attach(Epoch epoch, uint32_t index, ConstByteSpan piece) {
  const MutexLock lock(session_mutex_);
  CKPT_TRY(check_session());
  if (auto taken = take_piece(epoch, index, piece); !taken) {
    return end_session(taken.error());
  }
  publish_pending();
  set_problem({});
  return {};
}

Result<> Store::take_piece(Epoch epoch, uint32_t index, ConstByteSpan piece) {
  CKPT_TRY(check_reserve());
  CKPT_TRY(check_open(epoch, "an attachment"));
  return attachments_->receive({epoch, index}, piece);
}

Result<> Store::take_batch(const EncodedBatch& batch) {
  CKPT_TRY(check_reserve());
  CKPT_TRY(check_batch(batch.header));
  timeline_ = batch.header.timeline;
  return pending_->receive(batch);
}

Result<> Store::check_batch(const BatchHeader& header) {
  const StoreRecord record = volume_->record();
  if (header.volume != record.volume) {
    return fail(ErrorKind::kInvalid, "store: a batch of volume " + header.volume.to_string());
  }
  if (header.incarnation != record.incarnation) {
    return fail(ErrorKind::kInvalid, "store: a batch of another incarnation");
  }
  const bool fits = timeline_.is_nil() || header.timeline == timeline_;
  if (header.timeline.is_nil() || !fits) {
    return fail(ErrorKind::kInvalid, "store: a batch of timeline " + header.timeline.to_string());
  }
  return check_open(header.epoch, "a batch");
}

Result<> Store::confirm(const Confirmation& confirmation) {
  return confirm_as(confirmation, nullptr);
}

Result<> Store::confirm_copy(const CheckpointCopy& copy) {
  return confirm_as(copy.confirmation, &copy.forks);
}

// forks: of a copy.
Result<> Store::confirm_as(const Confirmation& confirmation,
                           const std::vector<CheckpointId>* forks) {
  {
    const MutexLock lock(session_mutex_);
    CKPT_TRY(check_session());
    if (auto confirmed = confirm_pending(confirmation, forks); !confirmed) {
      return end_session(confirmed.error());
    }
    publish_pending();
    set_problem({});
  }
  announce_work();
  return {};
}

Result<> Store::check_confirmation(const Confirmation& confirmation,
                                   const std::vector<CheckpointId>* forks) const {
  const CheckpointInfo& checkpoint = confirmation.checkpoint;
  const StoreRecord record = volume_->record();
  const std::string name = "store: checkpoint " + std::to_string(checkpoint.id.number.value);
  if (!valid_checkpoint(checkpoint) ||
      (!timeline_.is_nil() && checkpoint.id.timeline != timeline_)) {
    return fail(ErrorKind::kInvalid, name + ": a field is not valid");
  }
  const bool is_next = !record.last || checkpoint.id.number > record.last->id.number;
  const bool follows = forks == nullptr
                           ? record.is_last(checkpoint.parent)
                           : !record.last || is_on_line(record.last->id, *forks, checkpoint.id);
  if (!is_next || !follows) {
    return fail(ErrorKind::kInvalid, name + ": does not follow the last one");
  }
  const std::vector<CoveredEpoch> covered = epochs_of(pending_->covered(checkpoint.id.number));
  if (covered != confirmation.covered) {
    return fail(ErrorKind::kCorrupt, name + ": what arrived is not what was sent");
  }
  const Digest parent = record.last ? record.last->digest : Digest{};
  const CheckpointId& id = checkpoint.id;
  // A copy's is of what was sent to another store.
  if (forks == nullptr &&
      checkpoint.digest != checkpoint_digest(parent, id.timeline, id.number, covered)) {
    return fail(ErrorKind::kCorrupt, name + ": the digest differs");
  }
  return {};
}

// The caller's thread helps to apply until what waits is below the cap.
Result<> Store::make_room(Epoch number) {
  const uint64_t coming = pending_->stored_bytes(number);
  const Hurry hurry(*this);
  while (
      applier_->waiting_checkpoints() >= kUnappliedCheckpointsMax ||
      (applier_->has_work() && applier_->waiting_bytes() + coming > options_.unapplied_bytes_max)) {
    CKPT_PROBE(confirm_waited_for_the_applier);
    CKPT_TRY(applier_->step());
  }
  return {};
}

bool Store::may_sync_later() const {
  {
    const MutexLock lock(state_mutex_);
    if (!problem_.empty()) {
      return false;
    }
  }
  return has_only_to_sync() && applier_->waiting_checkpoints() <= kUnappliedCheckpointsMax / 2 &&
         applier_->waiting_bytes() <= options_.unapplied_bytes_max / 2;
}

Result<> Store::confirm_pending(const Confirmation& confirmation,
                                const std::vector<CheckpointId>* forks) {
  CKPT_TRY(check_confirmation(confirmation, forks));
  const CheckpointInfo& checkpoint = confirmation.checkpoint;
  const Epoch number = checkpoint.id.number;
  CKPT_TRY(attachments_->check(checkpoint));
  CKPT_TRY(make_room(number));
  CKPT_TRY(attachments_->make_durable(number));
  const StoreRecord before = volume_->record();
  if (is_begun_) {
    CKPT_TRY(image_->sync());
  }
  const JournalHeader header{before.volume, checkpoint.id.timeline, number, before.incarnation};
  CKPT_ASSIGN(const JournalPosition position,
              pending_->write_confirm({checkpoint, before.confirmed, {}}, header));
  is_begun_ = false;
  const auto change = [&checkpoint, &position, forks](StoreRecord& record) {
    if (forks != nullptr) {
      record.forks = *forks;
      record.has_copies = true;
    } else if (record.last && record.last->id.timeline != checkpoint.id.timeline) {
      record.fork_to(checkpoint.id.timeline);
    }
    record.last = checkpoint;
    record.confirmed = position;
    record.rejoined.reset();
  };
  // Who is told of it reads it, too.
  const auto show = [&applier = *applier_, &pending = *pending_, number] {
    applier.enqueue(pending.take(number));
  };
  if (CKPT_PLANTED(apply_before_confirm_durable)) {
    show();
    announce_work();
    CKPT_TRY(volume_->update(change));
  } else {
    CKPT_TRY(volume_->update(change, show));
  }
  attachments_->keep(number, before.last);
  if (before.rejoined) {
    forget_stale();
  }
  return {};
}

Result<> Store::roll_back(const CheckpointId& from, const Uuid& to) {
  const MutexLock lock(session_mutex_);
  CKPT_TRY(latch_.check());
  CKPT_TRY(check_not_promoted());
  CKPT_ASSIGN(const bool is_forked, check_fork(from, to));
  CKPT_TRY(drop_pending());
  if (!is_forked) {
    auto forked = volume_->update([&to](StoreRecord& record) { record.fork_to(to); });
    if (!forked) {
      return end_session(forked.error());
    }
  }
  set_problem({});
  const Hurry hurry(*this);
  return applier_->finish();
}

// Whether an earlier call has done it already.
Result<bool> Store::check_fork(const CheckpointId& from, const Uuid& to) const {
  const StoreRecord record = volume_->record();
  if (to.is_nil() || to == from.timeline) {
    return fail(ErrorKind::kInvalid, "store: a rollback needs a new timeline");
  }
  if (!record.last || record.last->id.number != from.number) {
    return fail(ErrorKind::kNotFound, "store: has no checkpoint " +
                                          std::to_string(from.number.value) + " to roll back to");
  }
  if (record.last->id == from) {
    return false;
  }
  if (record.last->id.timeline == to && !record.forks.empty() && record.forks.back() == from) {
    CKPT_PROBE(rollback_was_asked_again);
    return true;
  }
  return fail(ErrorKind::kNotFound, "store: checkpoint " + std::to_string(from.number.value) +
                                        " is not of timeline " + from.timeline.to_string());
}

Result<> Store::check_not_promoted() const {
  const StoreRecord record = volume_->record();
  return record.promoted ? fail(ErrorKind::kFenced,
                                "the back-up was promoted: its image is the primary since "
                                "checkpoint " +
                                    std::to_string(record.last->id.number.value) +
                                    ", as timeline " + record.last->id.timeline.to_string())
                         : Result<>();
}

Result<> Store::promote(const CheckpointId& from, const Uuid& to) {
  const MutexLock lock(session_mutex_);
  CKPT_TRY(check_session());
  const StoreRecord record = volume_->record();
  if (!record.last || record.last->id != from || record.has_timeline(to)) {
    return fail(ErrorKind::kInvalid, "store: not promoted: checkpoint " +
                                         std::to_string(from.number.value) +
                                         " is not its last, or the timeline no new one");
  }
  CKPT_TRY(become_primary(to));
  return {};
}

Result<CheckpointInfo> Store::become_primary(const Uuid& to) {
  CKPT_TRY(latch_.check());
  const StoreRecord before = volume_->record();
  if (!before.last) {
    return fail(ErrorKind::kNotFound, "store: there is no checkpoint that could be promoted");
  }
  if (applier_ == nullptr) {
    return *before.last;  // it was done
  }
  CKPT_TRY(drop_pending());
  if (!before.promoted && !CKPT_PLANTED(promotion_not_durable)) {
    auto recorded = volume_->update([&to](StoreRecord& record) {
      record.fork_to(to);
      record.promoted = true;
    });
    if (!recorded) {
      return end_session(recorded.error());
    }
  }
  session_ = Session::kOver;
  over_ = check_not_promoted().error();
  const Hurry hurry(*this);
  if (!CKPT_PLANTED(promote_without_applying)) {
    CKPT_TRY(applier_->finish());
  }
  (void)reserve_->remove();  // the space may be the primary's; nobody else would miss it
  return *volume_->record().last;
}

Result<> Store::read_confirmed(uint64_t offset, ByteSpan buffer) {
  CKPT_TRY(check_not_promoted());
  if (offset > options_.size_bytes || buffer.size() > options_.size_bytes - offset) {
    return fail(ErrorKind::kInvalid, "store: a read beyond the end of the disk");
  }
  return applier_->read(offset, buffer);
}

Result<std::optional<ByteRange>> Store::next_confirmed_data(uint64_t offset) {
  CKPT_TRY(check_not_promoted());
  return applier_->next_data(offset);
}

// The next checkpoint may come to exist while this reads: then the files are gone.
Result<> Store::read_attachment(Epoch number, const std::string& name, PieceSink& sink) {
  const auto last = volume_->record().last;
  const std::string which = "checkpoint " + std::to_string(number.value);
  if (!last || last->id.number != number) {
    return fail(ErrorKind::kNotFound, "store: " + which + " is not kept");
  }
  const auto found = std::ranges::find(last->attachments, name, &AttachmentInfo::name);
  if (found == last->attachments.end()) {
    return fail(ErrorKind::kNotFound, which + " has no attachment " + name);
  }
  const auto index = static_cast<uint32_t>(found - last->attachments.begin());
  auto read = attachments_->read(*last, index, sink);
  return read || volume_->record().last->id.number == number
             ? read
             : Result<>(fail(ErrorKind::kNotFound, "store: " + which + " is no longer kept"));
}

// No checkpoint is confirmed meanwhile: the image is at the one that is on record.
Result<> Store::begin_snapshot(std::optional<Epoch> number, Snapshot& snapshot,
                               const std::function<void(const StoreRecord&)>& at_begin) {
  const MutexLock lock(session_mutex_);
  const StoreRecord record = volume_->record();
  if (!record.last) {
    return fail(ErrorKind::kNotFound, "store: there is no checkpoint yet");
  }
  if (number && record.last->id.number != *number) {
    return fail(ErrorKind::kNotFound, "store: checkpoint " + std::to_string(number->value) +
                                          " is no longer kept; the last is " +
                                          std::to_string(record.last->id.number.value));
  }
  snapshot.set_checkpoint(*record.last);
  const Hurry hurry(*this);  // the session waits
  return applier_->begin_snapshot(snapshot, [&] { at_begin(record); });
}

SteadyTime Store::now() const {
  return options_.clock == nullptr ? SteadyTime{} : options_.clock->steady();
}

Result<std::vector<CheckpointInfo>> Store::checkpoints() {
  std::vector<CheckpointInfo> kept;
  if (const StoreRecord record = volume_->record(); record.last) {
    kept.push_back(*record.last);
  }
  return kept;
}

StoreStatus Store::status() {
  StoreStatus status;
  status.address = options_.address;
  const StoreRecord record = volume_->record();
  status.confirmed = record.last;
  status.applied = record.applied;
  if (applier_ != nullptr) {
    status.confirmed_bytes = applier_->waiting_bytes();
    status.error = applier_->problem();
  }
  if (auto free_bytes = directory_->free_bytes(); free_bytes) {
    status.free_bytes = *free_bytes;
  }
  {
    const MutexLock lock(state_mutex_);
    status.pending_bytes = pending_bytes_;
    status.error = problem_.empty() ? status.error : problem_;
  }
  if (auto promoted = check_not_promoted(); !promoted) {
    status.error = promoted.error().message();
  }
  if (auto intact = latch_.check(); !intact) {
    status.error = intact.error().message();
  }
  status.state = status.error.empty() ? "connected" : "failed";
  return status;
}

void Store::set_work_listener(std::function<void()> listener) {
  const MutexLock lock(state_mutex_);
  listener_ = std::move(listener);
}

Result<> Store::free_reserve() {
  CKPT_TRY(check_not_promoted());
  const MutexLock lock(session_mutex_);
  const Error reason{
      ErrorKind::kNoSpace, 0,
      "store: the file system is full; what was pending and the reserve were given up"};
  session_ = Session::kOver;
  over_ = reason;
  is_reserve_needed_ = true;
  set_problem(reason.message());
  CKPT_TRY(reserve_->remove());
  CKPT_TRY(latch_.check());
  CKPT_TRY(drop_pending());
  CKPT_TRY(clear_first_copy());
  return image_->give_back();
}

void Store::publish_pending() {
  const MutexLock lock(state_mutex_);
  pending_bytes_ = pending_->stored_bytes() + attachments_->pending_bytes();
}

void Store::set_problem(const std::string& text) {
  const MutexLock lock(state_mutex_);
  problem_ = text;
}

void Store::announce_work() {
  std::function<void()> listener;
  {
    const MutexLock lock(state_mutex_);
    listener = listener_;
  }
  if (listener) {
    listener();
  }
}

}  // namespace ckpt
