// SPDX-License-Identifier: Apache-2.0
#include "plugin/checkpoint.h"

#include <algorithm>

#include "common/phase.h"

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kFrozenWait{20};
// Pieces of attachments that are sent before the next look at everything else.
constexpr int kPiecesAtOnce = 8;

Error voided(uint64_t number, const Error& reason) {
  Error error = reason;
  // These are told apart from the rest by their kind; all mean that nothing changed.
  const bool is_told = reason.kind == ErrorKind::kNoSpace || reason.kind == ErrorKind::kUnreadable;
  error.kind = is_told ? reason.kind : ErrorKind::kVoid;
  error.context = "checkpoint " + std::to_string(number) + " is void: " + reason.context;
  return error;
}

}  // namespace

CheckpointMaker::TicketPtr CheckpointMaker::enqueue(const CheckpointRequest& request,
                                                    bool has_waiter) {
  auto ticket = std::make_shared<Ticket>();
  ticket->request = request;
  ticket->has_waiter = has_waiter;
  const MutexLock lock(mutex_);
  queue_.push_back(ticket);
  return ticket;
}

void CheckpointMaker::ask(const CheckpointRequest& request) {
  enqueue(request, false);
  disk_.shipper.wake();
}

Result<CheckpointOutcome> CheckpointMaker::take(const CheckpointRequest& request) {
  const TicketPtr ticket = enqueue(request, true);
  disk_.shipper.wake();
  if (auto result = wait_answered(*ticket, disk_.clock.steady() + request.timeout)) {
    return *result;
  }
  const std::string store = store_.status().address;  // may take a moment
  const MutexLock lock(mutex_);
  return ticket->result ? *ticket->result : give_up(*ticket, store);
}

Epoch CheckpointMaker::wait_cut(const Ticket& ticket, SteadyTime deadline) {
  const MutexLock lock(mutex_);
  while (ticket.cut_epoch.value == 0 && !ticket.result && !stopping_) {
    const SteadyTime now = disk_.clock.steady();
    if (now >= deadline) {
      break;
    }
    answered_.wait_for(mutex_, deadline - now);
  }
  return ticket.cut_epoch;
}

std::optional<Result<CheckpointOutcome>> CheckpointMaker::wait_answered(const Ticket& ticket,
                                                                        SteadyTime deadline) {
  if (ticket.request.on_cut) {
    if (const Epoch cut = wait_cut(ticket, deadline); cut.value != 0) {
      ticket.request.on_cut(cut);
    }
  }
  const MutexLock lock(mutex_);
  while (!ticket.result) {
    const SteadyTime now = disk_.clock.steady();
    if (now >= deadline || stopping_) {
      return std::nullopt;
    }
    answered_.wait_for(mutex_, deadline - now);
  }
  return ticket.result;
}

Result<CheckpointOutcome> CheckpointMaker::give_up(Ticket& ticket, const std::string& store) {
  const std::string time = stopping_
                               ? "the server stops"
                               : std::to_string(ticket.request.timeout.count()) + " ms are over";
  ticket.has_waiter = false;
  if (ticket.is_sent) {
    CKPT_PROBE(caller_gave_up_after_confirm_was_sent);
    return fail(ErrorKind::kTimeout, time + ": the checkpoint was sent to " + store +
                                         " and not yet answered; it may exist: see `ckpt-tool "
                                         "list`");
  }
  // CONFIRM is not sent for an abandoned one: it never will exist.
  ticket.is_abandoned = true;
  if (!ticket.is_cut) {
    note_void(0, time + ", and it was not begun");
  }
  return fail(ErrorKind::kVoid,
              time +
                  (ticket.is_cut ? ", and not everything has reached the store yet"
                                 : ", and it was not begun") +
                  ": there is no checkpoint. " + session_.problem());
}

void CheckpointMaker::answer(const TicketPtr& ticket, Result<CheckpointOutcome> result) {
  const MutexLock lock(mutex_);
  if (ticket != nullptr && !ticket->result) {
    ticket->result = std::move(result);
  }
  answered_.notify_all();
}

CheckpointMaker::TicketPtr CheckpointMaker::next_ticket() {
  const MutexLock lock(mutex_);
  while (!queue_.empty()) {
    TicketPtr ticket = queue_.front();
    queue_.pop_front();
    if (!ticket->is_abandoned) {
      ticket->is_cut = true;
      return ticket;
    }
  }
  return nullptr;
}

size_t CheckpointMaker::asked() {
  const MutexLock lock(mutex_);
  return queue_.size();
}

bool CheckpointMaker::is_waited_for() {
  const MutexLock lock(mutex_);
  const auto has_waiter = [](const TicketPtr& ticket) { return ticket->has_waiter; };
  return std::ranges::any_of(queue_, has_waiter) ||
         ((stage_ == Stage::kUnknown || stage_ == Stage::kShipping) && active_ != nullptr &&
          active_->has_waiter);
}

std::chrono::nanoseconds CheckpointMaker::shipping_for() const {
  // In this order: the time is set before the stage.
  return stage_.load() == Stage::kShipping ? disk_.clock.steady() - cut_steady_.load()
                                           : std::chrono::nanoseconds(0);
}

bool CheckpointMaker::step() {
  switch (stage_) {
    case Stage::kIdle: {
      TicketPtr ticket = session_.is_open() ? next_ticket() : nullptr;
      if (ticket == nullptr) {
        return false;
      }
      if (auto free = check_free(ticket->request.name); !free) {
        answer(ticket, Unexpected(free.error()));
      } else {
        cut(std::move(ticket));
      }
      return true;
    }
    case Stage::kShipping: return ship();
    case Stage::kUnknown: return false;
    case Stage::kExists: return finish();
  }
  return false;
}

// At its turn: whoever asked before it may have taken the name.
Result<> CheckpointMaker::check_free(const std::string& name) const {
  const auto last = session_.confirmed();
  if (!last || name.empty() || last->name != name) {
    return {};
  }
  return fail(ErrorKind::kInvalid, "the name " + name + " belongs to checkpoint " +
                                       std::to_string(last->id.number.value) + ": give another");
}

void CheckpointMaker::cut(TicketPtr ticket) {
  active_ = std::move(ticket);
  disk_.stall_epoch_ns.store(0);
  cut_time_ = disk_.clock.wall();
  cut_steady_ = disk_.clock.steady();
  disk_.epochs.cut();
  stage_ = Stage::kShipping;
  const MutexLock lock(mutex_);
  active_->cut_epoch = Epoch{disk_.epochs.closed()->number.load()};
  answered_.notify_all();
}

bool CheckpointMaker::ship() {
  if (auto reason = reason_to_void()) {
    void_closed(*reason);
    return true;
  }
  EpochObject& closed = *disk_.epochs.closed();
  const bool frozen = disk_.epochs.is_frozen();
  if (frozen) {
    // From here on a sync of the image covers all that the closed epoch wrote.
    sync_wanted_.store(closed.number.load());
  }
  auto shipped = ship_closed(closed);
  if (!shipped) {
    fail_to_ship(shipped.error());
    return true;
  }
  if (!*shipped && !frozen) {
    disk_.epochs.wait_frozen(kFrozenWait);
  } else if (!*shipped && shipper_.all_sent(closed)) {
    ship_rest(closed);
  } else if (!*shipped) {
    disk_.epochs.wait_preserved(kFrozenWait);
  }
  return true;
}

void CheckpointMaker::ship_rest(EpochObject& closed) {
  const auto more = ship_attachments(closed);
  if (!more) {
    fail_to_ship(more.error());
  } else if (!*more) {
    complete();
  }
}

Result<bool> CheckpointMaker::ship_attachments(EpochObject& closed) {
  AttachmentFeed* const feed = active_->request.attachments.get();
  if (feed == nullptr) {
    return false;
  }
  std::chrono::nanoseconds patience = kFrozenWait;
  for (int i = 0; i < kPiecesAtOnce; ++i) {
    const auto piece = feed->take(patience);
    if (!piece) {
      break;
    }
    CKPT_TRY(store_.attach(Epoch{closed.number.load()}, piece->index, piece->bytes));
    patience = std::chrono::nanoseconds(0);
  }
  return !feed->is_complete();
}

Result<bool> CheckpointMaker::ship_closed(EpochObject& closed) {
  const PhaseScope phase(Phase::kShipping);
  return shipper_.ship_some(closed);
}

// What could not be read is unshipped again; all else has reached the store.
void CheckpointMaker::fail_to_ship(const Error& error) {
  if (error.kind != ErrorKind::kUnreadable) {
    session_.lose(error);
  }
  void_closed(error);
}

std::optional<Error> CheckpointMaker::reason_to_void() {
  if (disk_.trouble.is_suspect()) {
    return Error{ErrorKind::kVoid, 0, disk_.trouble.text()};
  }
  if (disk_.preserved.lost().value >= disk_.epochs.closed()->number.load()) {
    return Error{ErrorKind::kVoid, 0,
                 "the blocks overwritten since the cut did not fit into memory and spill file "
                 "(preserve limit), or could not be read"};
  }
  if (const auto& feed = active_->request.attachments) {
    if (auto problem = feed->problem()) {
      return problem;
    }
  }
  const MutexLock lock(mutex_);
  if (active_->is_abandoned) {
    CKPT_PROBE(caller_gave_up_while_it_was_shipped);
    return Error{ErrorKind::kVoid, 0, "its caller gave up waiting"};
  }
  return std::nullopt;
}

void CheckpointMaker::void_closed(const Error& error) {
  while (!disk_.epochs.is_frozen()) {
    CKPT_PROBE(void_before_its_writers_left);
    disk_.epochs.wait_frozen(kFrozenWait);
  }
  const uint64_t number = disk_.epochs.closed()->number.load();
  if (CKPT_PLANTED(void_drops_maps)) {
    disk_.epochs.drop_closed();
  } else {
    disk_.epochs.merge_closed();
  }
  disk_.preserved.clear();
  stage_ = Stage::kIdle;
  note_void(number, error.message());
  // Its caller is told the number: it is never used again. If this fails every later record fails
  // too.
  if (auto recorded = record_.change([number](VolumeRecord& record) {
        record.highest = std::max(record.highest, Epoch{number});
      });
      !recorded) {
    session_.lose(recorded.error());
  }
  answer(std::exchange(active_, nullptr), Unexpected(voided(number, error)));
}

void CheckpointMaker::complete() {
  // Once more: a copy may have been lost after the last look, and before the last bit was taken.
  if (auto reason = reason_to_void()) {
    void_closed(*reason);
    return;
  }
  if (!commit_to_confirm()) {
    return;
  }
  const PhaseScope phase(Phase::kConfirming);
  making_ = describe();
  if (auto recorded = record_intent(); !recorded) {
    session_.lose(recorded.error());
    void_closed(recorded.error());
    return;
  }
  if (auto confirmed = store_.confirm({making_, shipper_.covered(making_.id.number)}); !confirmed) {
    session_.lose(confirmed.error());
    if (confirmed.error().kind == ErrorKind::kVoid) {
      void_closed(confirmed.error());
      return;
    }
    failure_ = confirmed.error();
    stage_ = Stage::kUnknown;
    return;
  }
  shipper_.confirmed(making_.id.number);
  exists();
}

Result<> CheckpointMaker::record_intent() {
  if (CKPT_PLANTED(confirm_without_intent)) {
    return {};
  }
  return record_.change([this](VolumeRecord& record) {
    record.intent = making_;
    record.highest = std::max(record.highest, making_.id.number);
  });
}

// From here on the caller's giving up no longer makes it void.
bool CheckpointMaker::commit_to_confirm() {
  const MutexLock lock(mutex_);
  active_->is_sent = !active_->is_abandoned;
  return active_->is_sent;
}

CheckpointInfo CheckpointMaker::describe() {
  const EpochObject& closed = *disk_.epochs.closed();
  const VolumeRecord record = record_.get();
  CheckpointInfo info;
  info.id = {record.timeline, Epoch{closed.number.load()}};
  info.parent = {info.id.timeline, Epoch{0}};  // the empty disk; a rollback renames id, not this
  Digest parent_digest{};
  // The store's, which after a resync is not the record's.
  if (const auto parent = session_.confirmed()) {
    info.parent = parent->id;
    parent_digest = parent->digest;
  }
  info.digest = checkpoint_digest(parent_digest, info.id.timeline, info.id.number,
                                  shipper_.covered(info.id.number));
  info.time = cut_time_;
  info.name = active_->request.name;
  info.message = active_->request.message;
  const Shipper::Amount shipped = shipper_.shipped(info.id.number);
  // The map may still have what an earlier checkpoint covers (fold()); what was sent may have been
  // sent twice.
  const uint64_t blocks = std::min(closed.written.count(), shipped.blocks);
  info.changed_bytes = std::min(blocks * kBlockBytes, disk_.geometry.size_bytes);
  info.shipped_bytes = shipped.bytes;
  if (const auto& feed = active_->request.attachments) {
    info.attachments = feed->infos();
  }
  return info;
}

// The checkpoint exists: tells the caller, then records it.
void CheckpointMaker::exists() {
  stage_ = Stage::kExists;
  session_.set_confirmed(making_);
  disk_.epochs.shed_closed();
  CheckpointOutcome outcome;
  outcome.checkpoint = making_;
  outcome.stall = std::chrono::nanoseconds(disk_.stall_epoch_ns.load());
  outcome.confirm = disk_.clock.steady() - cut_steady_.load();
  answer(std::exchange(active_, nullptr), outcome);
  disk_.trouble.all_read();
  shipper_.start_epoch();
  if (auto recorded = record_.change([this](VolumeRecord& record) {
        record.last = making_;
        record.intent.reset();
      });
      !recorded) {
    // The intent is on record: the next handshake adopts the checkpoint.
    session_.lose(recorded.error());
  } else {
    note_existence(outcome);
  }
}

void CheckpointMaker::note_existence(const CheckpointOutcome& outcome) {
  Event event;
  event.kind = EventKind::kCheckpoint;
  event.checkpoint = outcome.checkpoint.id.number.value;
  event.name = outcome.checkpoint.name;
  event.changed_bytes = outcome.checkpoint.changed_bytes;
  event.shipped_bytes = outcome.checkpoint.shipped_bytes;
  event.stall = outcome.stall;
  event.confirm = outcome.confirm;
  disk_.events.add(std::move(event));
}

void CheckpointMaker::note_void(uint64_t number, const std::string& why) {
  Event event;
  event.kind = EventKind::kVoid;
  event.checkpoint = number;
  event.text = why;
  disk_.events.add(std::move(event));
}

bool CheckpointMaker::finish() {
  if (disk_.trouble.is_suspect()) {
    fold();
    return true;
  }
  const uint64_t number = disk_.epochs.closed()->number.load();
  if (sync_done_.load() < number && !CKPT_PLANTED(unmark_before_primary_sync)) {
    // The next checkpoint does not wait for a sync that will not begin soon.
    if (is_asked() && sync_rests_.load()) {
      CKPT_PROBE(next_checkpoint_before_the_sync);
      fold();
    }
    return stage_ == Stage::kIdle;
  }
  disk_.epochs.drop_closed();
  stage_ = Stage::kIdle;
  return true;
}

void CheckpointMaker::fold() {
  if (stage_ == Stage::kExists) {
    disk_.epochs.merge_closed();
    stage_ = Stage::kIdle;
  }
}

void CheckpointMaker::settle(HandshakeRow row) {
  if (stage_ == Stage::kUnknown) {
    // By what the store has, not by the row: a session that was lost while it opened may have put
    // the checkpoint on record already.
    const auto confirmed = session_.confirmed();
    if (confirmed && confirmed->id == making_.id && confirmed->digest == making_.digest) {
      CKPT_PROBE(answer_was_lost);
      exists();
    } else {
      CKPT_PROBE(confirm_was_lost);
      void_closed(failure_);
    }
  } else if (row == HandshakeRow::kAdopt) {
    // Made by a server that did not live to see it, or could not record it.
    note_existence({*record_.get().last, {}, {}});
  }
}

void CheckpointMaker::void_lost(const Error& reason) {
  if (stage_ == Stage::kShipping) {
    void_closed(reason);
  }
}

void CheckpointMaker::leave() {
  if (stage_ == Stage::kExists) {
    finish();
  }
  if (disk_.epochs.closed() != nullptr) {
    disk_.epochs.merge_closed();
    stage_ = Stage::kIdle;
  }
}

void CheckpointMaker::stop() {
  const MutexLock lock(mutex_);
  stopping_ = true;
  answered_.notify_all();
}

void CheckpointMaker::doubt(const Error& reason) {
  if (stage_ == Stage::kUnknown) {
    answer(std::exchange(active_, nullptr),
           fail(ErrorKind::kTimeout, "the store failed while it confirmed checkpoint " +
                                         std::to_string(making_.id.number.value) +
                                         ", which may exist: " + reason.message()));
  }
}

Epoch CheckpointMaker::wants_sync() const {
  const uint64_t wanted = sync_wanted_.load();
  return Epoch{wanted > sync_done_.load() ? wanted : 0};
}

void CheckpointMaker::synced(Epoch n) { sync_done_.store(n.value); }

void CheckpointMaker::cancel(const std::string& reason, ErrorKind kind) {
  const Error error{kind, 0, reason};
  if (stage_ == Stage::kShipping) {
    void_closed(error);
  }
  while (const TicketPtr ticket = next_ticket()) {
    note_void(0, error.message());
    answer(ticket, Unexpected(error));
  }
}

}  // namespace ckpt
