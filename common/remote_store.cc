// SPDX-License-Identifier: Apache-2.0
#include "common/remote_store.h"

#include <algorithm>

#include "common/copy_message.h"
#include "common/stale_message.h"

namespace ckpt {
namespace {

// A connection that has nothing to do is looked after so often.
constexpr std::chrono::seconds kLookEvery{1};
// A status that was heard so long ago is asked for again.
constexpr std::chrono::milliseconds kStatusAge{500};
constexpr std::chrono::milliseconds kStatusPatience{200};
// Who may not ask for it does not ask again before.
constexpr std::chrono::seconds kStatusDenied{60};
// Times that a read which broke off is begun again without having got any further.
constexpr int kReadTries = 2;

// Passes on what a back-up says that ranges hold: all of it, in their order, and nothing else.
class RangeCheck final : public ContentSink {
 public:
  RangeCheck(std::span<const ByteRange> ranges, ContentSink& sink)
      : left_(ranges.begin(), ranges.end()), sink_(sink) {
    std::ranges::reverse(left_);
  }

  Result<> write(uint64_t offset, ConstByteSpan data) override {
    CKPT_TRY(take({offset, data.size()}));
    return judge(sink_.write(offset, data));
  }
  Result<> zero(ByteRange range) override {
    CKPT_TRY(take(range));
    return judge(sink_.zero(range));
  }
  // What has not come yet, in order.
  [[nodiscard]] std::vector<ByteRange> left() const { return {left_.rbegin(), left_.rend()}; }
  // The error is not the back-up's.
  [[nodiscard]] bool has_sink_failed() const { return has_sink_failed_; }

 private:
  Result<> take(ByteRange part) {
    if (left_.empty() || left_.back().offset != part.offset || part.length == 0 ||
        part.length > left_.back().length) {
      return fail(ErrorKind::kCorrupt, "the back-up hands over what was not asked for");
    }
    left_.back() = {part.end(), left_.back().length - part.length};
    if (left_.back().length == 0) {
      left_.pop_back();
    }
    return {};
  }
  Result<> judge(Result<> outcome) {
    has_sink_failed_ = has_sink_failed_ || !outcome;
    return outcome;
  }

  std::vector<ByteRange> left_;  // the first one last
  ContentSink& sink_;
  bool has_sink_failed_ = false;
};

Result<StoreStatus> ask_status(StoreClient& client) {
  CKPT_ASSIGN(const ConstByteSpan body,
              client.ask(FrameType::kStatus, {}, FrameType::kStoreStatus));
  return decode_store_status(body);
}

}  // namespace

RemoteStore::RemoteStore(RemoteOptions options, Clock& clock, ConnectStream connect)
    : dialer_(std::move(options), std::move(connect)),
      clock_(clock),
      address_(dialer_.options().address.to_string()),
      size_bytes_(dialer_.options().size_bytes) {
  const MutexLock lock(status_mutex_);
  status_.address = address_;
  session_error_ = Error{ErrorKind::kUnreachable, 0, address_ + ": not connected yet"};
}

// What the back-up itself says: which one it is.
Unexpected RemoteStore::said(const Error& error) const {
  return error.context.starts_with(address_) ? Unexpected(error) : within(address_, error);
}

Result<StoreGreeting> RemoteStore::begin_session() {
  const MutexLock lock(session_mutex_);
  if (session_ != nullptr) {
    (void)(*session_)->settle();  // what is said to the session before
  }
  Result<StoreGreeting> greeting = fail(ErrorKind::kUnreachable, address_);
  if (session_ != nullptr && !(*session_)->is_broken()) {
    CKPT_PROBE(session_anew_on_the_same_connection);
    greeting = greet();
  }
  // A connection from before may be gone, and nobody knew.
  if (session_ == nullptr || (*session_)->is_broken()) {
    session_.reset();
    auto call = dialer_.dial(Role::kSession);
    if (call) {
      session_ = std::move(*call);
      silence_.store((*session_)->welcome().silence);
      greeting = greet();
    } else {
      greeting = Unexpected(call.error());
    }
  }
  if (!greeting) {
    session_ended(greeting.error());
    return greeting;
  }
  session_began(*greeting);
  return greeting;
}

Result<StoreGreeting> RemoteStore::greet() {
  said_at_ = clock_.steady();
  const auto& place = dialer_.options().place;
  const bool may_say = ((*session_)->welcome().features & kHasPlaces) != 0;
  auto body = (*session_)->ask(FrameType::kBeginSession,
                               place && may_say ? encode_place(*place) : std::vector<std::byte>(),
                               FrameType::kGreeting);
  return body ? decode_greeting(*body) : Result<StoreGreeting>(said(body.error()));
}

void RemoteStore::session_began(const StoreGreeting& greeting) {
  const MutexLock lock(status_mutex_);
  status_.confirmed = greeting.last;
  status_at_ = {};
  session_error_.reset();
}

void RemoteStore::session_ended(const Error& error) {
  const MutexLock lock(status_mutex_);
  session_error_ = error;
}

Result<> RemoteStore::check_link() {
  if (session_mutex_.try_lock()) {
    if (session_ != nullptr && session_->is_over()) {
      session_.reset();
      session_ended({ErrorKind::kUnreachable, 0, address_ + ": it has closed the connection"});
    }
    session_mutex_.unlock();
  }
  const MutexLock lock(status_mutex_);
  return session_error_ ? Result<>(Unexpected(*session_error_)) : Result<>();
}

template <typename Act>
auto RemoteStore::in_session(const Act& act) -> decltype(act(std::declval<StoreClient&>())) {
  const MutexLock lock(session_mutex_);
  if (session_ == nullptr) {
    return fail(ErrorKind::kUnreachable, address_ + ": the connection was lost");
  }
  auto outcome = act(**session_);
  said_at_ = clock_.steady();
  if (outcome) {
    return outcome;
  }
  const Unexpected error = said(outcome.error());
  session_ended(error.error());
  if ((*session_)->is_broken()) {
    session_.reset();
  }
  return error;
}

Result<std::vector<BlockRange>> RemoteStore::stale(uint64_t from) {
  return in_session([&](StoreClient& client) -> Result<std::vector<BlockRange>> {
    CKPT_ASSIGN(const ConstByteSpan found,
                client.ask(FrameType::kStale, encode_stale(from), FrameType::kStaleList));
    CKPT_ASSIGN(auto runs, decode_stale_list(found));
    const bool fits = runs.empty() || (runs.front().first >= from &&
                                       runs.back().end <= block_count(size_bytes_.load()));
    return fits ? Result<std::vector<BlockRange>>(std::move(runs))
                : fail(ErrorKind::kCorrupt, "the back-up names blocks that were not asked for");
  });
}

Result<> RemoteStore::accept(uint64_t incarnation) {
  return in_session([&](StoreClient& client) -> Result<> {
    CKPT_TRY(client.ask(FrameType::kAccept, encode_accept(incarnation), FrameType::kDone));
    return tell_name(client);
  });
}

Result<> RemoteStore::tell_forks(const std::vector<CheckpointId>& forks) {
  return in_session([&](StoreClient& client) -> Result<> {
    if ((client.welcome().features & kHearsForks) != 0) {
      CKPT_TRY(client.ask(FrameType::kForks, encode_forks(forks), FrameType::kDone));
    }
    return {};
  });
}

// That a back-up cannot keep it is no reason not to use it, and is in its log.
Result<> RemoteStore::tell_name(StoreClient& client) const {
  const std::string& name = dialer_.options().name;
  if (name.empty() || (client.welcome().features & kHasNames) == 0) {
    return {};
  }
  const auto told = client.ask(FrameType::kName, encode_name(name), FrameType::kDone);
  return client.is_broken() ? Result<>(Unexpected(told.error())) : Result<>();
}

Result<> RemoteStore::receive(const EncodedBatch& batch) {
  return in_session([&](StoreClient& client) {
    return client.send(FrameType::kBatch, encode_batch_body(batch));
  });
}

Result<> RemoteStore::attach(Epoch epoch, uint32_t index, ConstByteSpan piece) {
  return in_session([&](StoreClient& client) {
    return client.send(FrameType::kAttach, encode_attach({epoch, index, piece}));
  });
}

Result<> RemoteStore::confirm(const Confirmation& confirmation) {
  return ask_to_confirm(FrameType::kConfirm, encode_confirmation(confirmation),
                        confirmation.checkpoint);
}

Result<> RemoteStore::check_takes_copies() {
  return in_session([](StoreClient& client) -> Result<> {
    return (client.welcome().features & kTakesCopies) != 0
               ? Result<>()
               : fail(ErrorKind::kInvalid,
                      "it is of an older version of ckpt, which takes no copies of checkpoints");
  });
}

Result<> RemoteStore::confirm_copy(const CheckpointCopy& copy) {
  return ask_to_confirm(FrameType::kConfirmCopy, encode_copy(copy), copy.confirmation.checkpoint);
}

Result<> RemoteStore::ask_to_confirm(FrameType type, ConstByteSpan body,
                                     const CheckpointInfo& checkpoint) {
  bool was_sent = false;
  auto confirmed = in_session([&](StoreClient& client) -> Result<> {
    const uint64_t before = client.last_request();
    const auto answered = client.ask(type, body, FrameType::kDone);
    was_sent = client.last_request() != before;
    return answered ? Result<>() : Result<>(Unexpected(answered.error()));
  });
  if (!confirmed) {
    return was_sent ? confirmed : Result<>(fail(ErrorKind::kVoid, confirmed.error().message()));
  }
  const MutexLock lock(status_mutex_);
  status_.confirmed = checkpoint;
  status_at_ = {};
  return {};
}

Result<> RemoteStore::roll_back(const CheckpointId& from, const Uuid& to) {
  return in_session([&](StoreClient& client) -> Result<> {
    CKPT_TRY(client.ask(FrameType::kRollBack, encode_roll_back({from, to}), FrameType::kDone));
    return {};
  });
}

Result<> RemoteStore::check_promotes() {
  return in_session([](StoreClient& client) -> Result<> {
    return (client.welcome().features & kPromotes) != 0
               ? Result<>()
               : fail(ErrorKind::kVoid,
                      "the back-up is of a version of ckpt that cannot be told to become the "
                      "primary: use promote there, and rejoin here");
  });
}

Result<> RemoteStore::promote(const CheckpointId& from, const Uuid& to) {
  return in_session([&](StoreClient& client) -> Result<> {
    CKPT_TRY(client.ask(FrameType::kPromote, encode_promote({from, to}), FrameType::kDone));
    return {};
  });
}

template <typename Act>
auto RemoteStore::read_once(CallPtr& reader, const Act& act)
    -> decltype(act(std::declval<StoreClient&>())) {
  if (reader == nullptr) {
    CKPT_ASSIGN(reader, dialer_.dial(Role::kReader));
    size_bytes_.store((*reader)->welcome().size_bytes);
  }
  auto outcome = act(**reader);
  if ((*reader)->is_broken()) {
    reader.reset();
  }
  return outcome ? std::move(outcome) : said(outcome.error());
}

// Again, if the connection broke: it may have been gone before, and nobody knew. Not if none can be
// made.
template <typename Act>
auto RemoteStore::read_over(CallPtr& reader, const Act& act)
    -> decltype(act(std::declval<StoreClient&>())) {
  for (int left = kReadTries;; --left) {
    bool was_connected = false;
    auto outcome = read_once(reader, [&](StoreClient& client) {
      was_connected = true;
      return act(client);
    });
    const bool was_lost =
        !outcome && was_connected && outcome.error().kind == ErrorKind::kUnreachable;
    if (!was_lost || left == 0) {
      return outcome;
    }
    CKPT_PROBE(read_was_asked_again);
  }
}

template <typename Act>
auto RemoteStore::reading(const Act& act) -> decltype(act(std::declval<StoreClient&>())) {
  const MutexLock lock(reader_mutex_);
  return read_over(reader_, act);
}

Result<> RemoteStore::read_confirmed(uint64_t offset, ByteSpan buffer) {
  while (!buffer.empty()) {
    const ByteSpan piece = buffer.first(std::min<uint64_t>(buffer.size(), kPieceBytes));
    auto got = reading([&](StoreClient& client) -> Result<> {
      const auto length = static_cast<uint32_t>(piece.size());
      CKPT_ASSIGN(const ConstByteSpan found,
                  client.ask(FrameType::kRead, encode_read({offset, length}), FrameType::kData));
      if (found.size() != piece.size()) {
        return fail(ErrorKind::kCorrupt, "the back-up hands over what was not asked for");
      }
      copy_bytes(found, piece);
      return {};
    });
    if (!got) {
      return got;
    }
    buffer = buffer.subspan(piece.size());
    offset += piece.size();
  }
  return {};
}

Result<std::optional<ByteRange>> RemoteStore::next_confirmed_data(uint64_t offset) {
  return reading([&](StoreClient& client) -> Result<std::optional<ByteRange>> {
    CKPT_ASSIGN(const ConstByteSpan found,
                client.ask(FrameType::kNextData, encode_next_data(offset), FrameType::kDataRange));
    return decode_data_range(found);
  });
}

Result<std::vector<Digest>> RemoteStore::digests(const DigestQuery& query) {
  return reading([&](StoreClient& client) -> Result<std::vector<Digest>> {
    CKPT_ASSIGN(const ConstByteSpan found,
                client.ask(FrameType::kDigests, encode_digests(query), FrameType::kDigestList));
    CKPT_ASSIGN(auto digests, decode_digest_list(found));
    return digests.size() == query.blocks.count()
               ? Result<std::vector<Digest>>(std::move(digests))
               : fail(ErrorKind::kCorrupt, "the back-up hands over what was not asked for");
  });
}

Result<> RemoteStore::read_ranges(std::span<const ByteRange> ranges, ContentSink& sink) {
  RangeCheck check(ranges, sink);
  CallPtr own;  // it may take long, and others have short questions
  int tries = 0;
  for (auto left = check.left(); !left.empty();) {
    const auto done = read_over(own, [&](StoreClient& client) -> Result<> {
      const auto asked = check.left();
      return asked.empty()
                 ? Result<>()
                 : client.ask_content(FrameType::kReadRanges, encode_read_ranges(asked), check);
    });
    const auto now_left = check.left();
    tries = now_left == left ? tries + 1 : 0;
    const bool may_go_on =
        done || (done.error().kind == ErrorKind::kUnreachable && !check.has_sink_failed());
    if (!may_go_on || (tries >= kReadTries && !done)) {
      return done;
    }
    if (done && !now_left.empty()) {
      return fail(ErrorKind::kCorrupt, address_ + ": hands over less than was asked for");
    }
    left = now_left;
  }
  return {};
}

Result<> RemoteStore::export_checkpoint(std::optional<Epoch> number, ExportSink& sink) {
  CKPT_ASSIGN(const CallPtr call, dialer_.dial(Role::kReader));
  auto done = (*call)->ask_export(number, sink);
  return done ? done : Result<>(said(done.error()));
}

Result<> RemoteStore::read_attachment(Epoch number, const std::string& name, PieceSink& sink) {
  CKPT_ASSIGN(const CallPtr call, dialer_.dial(Role::kReader));
  auto done = (*call)->ask_pieces({number, name}, sink);
  return done ? done : Result<>(said(done.error()));
}

Result<std::vector<CheckpointInfo>> RemoteStore::checkpoints() {
  std::vector<CheckpointInfo> kept;
  CheckpointList part{{}, true};
  while (part.more) {
    const Epoch after = kept.empty() ? Epoch{} : kept.back().id.number;
    CKPT_ASSIGN(part, reading([&](StoreClient& client) -> Result<CheckpointList> {
                  CKPT_ASSIGN(const ConstByteSpan body,
                              client.ask(FrameType::kCheckpoints, encode_checkpoints(after),
                                         FrameType::kCheckpointList));
                  return decode_checkpoint_list(body);
                }));
    const bool follows =
        part.checkpoints.empty() ? !part.more : after < part.checkpoints.front().id.number;
    if (!follows) {
      return fail(ErrorKind::kCorrupt, address_ + ": its list of checkpoints does not go on");
    }
    kept.insert(kept.end(), part.checkpoints.begin(), part.checkpoints.end());
  }
  return kept;
}

StoreStatus RemoteStore::status() {
  const MutexLock lock(status_mutex_);
  const SteadyTime now = clock_.steady();
  if (is_looked_after_ && !is_late_ && !session_error_ && now - status_at_ > kStatusAge) {
    keeper_.wake();
    const SteadyTime before = status_at_;
    while (status_at_ == before && !is_late_) {
      is_late_ = clock_.steady() - now >= kStatusPatience;
      refreshed_.wait_for(status_mutex_, kStatusPatience / 4);
    }
  }
  StoreStatus found = status_;
  if (session_error_) {
    found.error = session_error_->message();
  }
  const bool is_detached = session_error_ && session_error_->kind == ErrorKind::kUnreachable;
  found.state = is_detached ? "detached" : found.error.empty() ? "connected" : "failed";
  return found;
}

void RemoteStore::look() {
  {
    const MutexLock lock(status_mutex_);
    is_looked_after_ = true;
  }
  keep_session(false);
  if (!refresh_status()) {
    keep_session(true);  // the back-up may be gone
  }
  tell_status();
}

void RemoteStore::look_after() {
  look();
  keeper_.wait(std::min<std::chrono::nanoseconds>(kLookEvery, silence_.load() / 4));
}

// What is under way needs no looking after.
void RemoteStore::keep_session(bool is_in_doubt) {
  if (!session_mutex_.try_lock()) {
    return;
  }
  if (session_ != nullptr) {
    if (auto pinged = ping(is_in_doubt); !pinged) {
      session_ended(pinged.error());
    }
    if ((*session_)->is_broken()) {
      session_.reset();
    }
  }
  session_mutex_.unlock();
}

Result<> RemoteStore::ping(bool is_in_doubt) {
  StoreClient& client = **session_;
  const SteadyTime now = clock_.steady();
  if (client.has_unanswered()) {
    if (auto settled = client.settle(); !settled) {
      return said(settled.error());
    }
  } else if (!is_in_doubt && now - said_at_ < client.welcome().silence / 3) {
    return {};
  }
  said_at_ = now;
  auto answered = client.ask(FrameType::kPing, {}, FrameType::kDone);
  return answered ? Result<>() : Result<>(said(answered.error()));
}

// False: it could not be asked.
bool RemoteStore::refresh_status() {
  if (!check_link() || clock_.steady() < ask_status_after_ || !reader_mutex_.try_lock()) {
    return true;
  }
  auto found = read_once(reader_, ask_status);
  reader_mutex_.unlock();
  const bool is_denied = !found && found.error().kind == ErrorKind::kDenied;
  if (is_denied) {
    ask_status_after_ = clock_.steady() + kStatusDenied;
  }
  if (found) {
    const MutexLock lock(status_mutex_);
    // Which checkpoint is the last, the session knows first.
    found->confirmed = status_.confirmed;
    found->address = address_;
    status_ = *found;
  }
  return found || is_denied;
}

void RemoteStore::tell_status() {
  const MutexLock lock(status_mutex_);
  status_at_ = clock_.steady();
  is_late_ = false;
  refreshed_.notify_all();
}

Result<StoreStatus> RemoteStore::ask() { return reading(ask_status); }

Result<> RemoteStore::say_stop() {
  return in_session([](StoreClient& client) -> Result<> {
    if ((client.welcome().features & kKnowsPrimary) != 0) {
      CKPT_TRY(client.ask(FrameType::kStop, {}, FrameType::kDone));
    }
    return {};
  });
}

void RemoteStore::stop() {
  dialer_.stop();
  keeper_.wake();
}

}  // namespace ckpt
