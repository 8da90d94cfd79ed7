// SPDX-License-Identifier: Apache-2.0
#include "backupd/connection.h"

#include <algorithm>

#include "common/copy_message.h"
#include "common/stale_message.h"
#include "common/text.h"

namespace ckpt {
namespace {

// Passes content on, frame by frame.
class WireSink final : public ExportSink, public PieceSink {
 public:
  WireSink(FrameChannel& channel, uint64_t request) : channel_(channel), request_(request) {}

  Result<> begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) override {
    return send(FrameType::kExportBegins, encode_export_begins({checkpoint, size_bytes}));
  }
  Result<> write(uint64_t offset, ConstByteSpan data) override {
    return send(FrameType::kContent, encode_content({offset, data}));
  }
  Result<> zero(ByteRange range) override { return send(FrameType::kHole, encode_hole(range)); }
  Result<> take(const PieceHeader& /*header*/, ConstByteSpan piece) override {
    return send(FrameType::kPiece, piece);
  }
  // The client takes nothing any more.
  [[nodiscard]] bool is_broken() const { return is_broken_; }

 private:
  Result<> send(FrameType type, ConstByteSpan body) {
    auto sent = channel_.send(type, request_, body);
    is_broken_ = is_broken_ || !sent;
    return sent;
  }

  FrameChannel& channel_;
  const uint64_t request_;
  bool is_broken_ = false;
};

bool is_for(Role role, FrameType type) {
  if (type == FrameType::kHello || type == FrameType::kPing) {
    return true;
  }
  const bool is_visit = type == FrameType::kVolumes || type == FrameType::kRelease;
  const bool is_of_session = operation_of(type) == Operation::kWrite;
  return (role == Role::kVisitor) == is_visit && (role == Role::kSession || !is_of_session);
}

}  // namespace

void Connection::leave() {
  if (volume_ != nullptr) {
    volume_->leave(options_.number);
    volume_.reset();
  }
  if (std::exchange(is_promoted_, false) && shelf_.release(hello_.volume, true)) {
    released_ = hello_.volume;
  }
  if (released_) {
    shelf_.take_back(*std::exchange(released_, std::nullopt));
  }
}

Result<> Connection::receive() {
  bool is_damaged = false;
  auto received = receive_next(is_damaged);
  if (!received && received.error().kind != ErrorKind::kUnreachable) {
    take_in_hand(0);
    Error told = received.error();
    told.kind = is_damaged ? ErrorKind::kUnreachable : told.kind;
    // The connection ends, whether this arrives or not.
    (void)channel_.send(FrameType::kFailed, last_request_ + 1, encode_failed(told));
  }
  return received;
}

Result<> Connection::receive_next(bool& is_damaged) {
  // What is not known, after a hello that was, can only be damaged.
  const auto whole = [&](Result<> part) {
    is_damaged = !part && (part.error().kind == ErrorKind::kCorrupt ||
                           (part.error().kind == ErrorKind::kInvalid && is_greeted_));
    return part;
  };
  CKPT_TRY(whole(channel_.receive_header(request_)));
  CKPT_TRY(check_place(request_.header));
  take_in_hand(request_.header.request);
  CKPT_TRY(whole(channel_.receive_body(request_)));
  last_request_ = request_.header.request;
  return {};
}

void Connection::take_in_hand(uint64_t request) {
  const MutexLock lock(hand_mutex_);
  in_hand_ = request;
}

void Connection::herald(SteadyTime now) {
  const MutexLock lock(hand_mutex_);
  if (in_hand_ != seen_in_hand_) {
    seen_in_hand_ = in_hand_;
    seen_at_ = now;
  } else if (in_hand_ != 0 && now - seen_at_ >= options_.silence / 3) {
    // Whatever else is on its way is as good.
    (void)channel_.send_if_free(FrameType::kWorking, in_hand_);
    seen_at_ = now;
  }
}

// Before memory is taken for its body.
Result<> Connection::check_place(const FrameHeader& header) const {
  if (!is_request(header.type)) {
    return fail(ErrorKind::kCorrupt, std::string(frame_name(header.type)) + ": not a request");
  }
  if (header.request != last_request_ + 1) {
    return fail(ErrorKind::kCorrupt, std::string(frame_name(header.type)) + ": request " +
                                         std::to_string(header.request) + ", where request " +
                                         std::to_string(last_request_ + 1) +
                                         " is due; connect anew");
  }
  if ((header.type == FrameType::kHello) == is_greeted_) {
    return fail(ErrorKind::kCorrupt, "a connection begins with hello, and says it once");
  }
  if (!is_for(hello_.role, header.type)) {
    return fail(ErrorKind::kInvalid,
                std::string(frame_name(header.type)) + ": not on a connection of this role");
  }
  return {};
}

Result<> Connection::fail_request(const Error& error) {
  take_in_hand(0);
  return channel_.send(FrameType::kFailed, last_request_, encode_failed(error));
}

template <typename T>
Result<T> Connection::body_as(Result<T> (*decode)(ConstByteSpan)) {
  auto body = decode(request_.body);
  is_broken_ = is_broken_ || !body;
  return body;
}

Result<> Connection::greet() {
  CKPT_TRY(receive());
  if (auto welcomed = welcome(); !welcomed) {
    (void)fail_request(welcomed.error());  // a client that is gone need not be told
    return welcomed;
  }
  return {};
}

Result<> Connection::welcome() {
  CKPT_ASSIGN(hello_, body_as(decode_hello));
  Welcome welcome;
  CKPT_TRY(check_role());
  if (hello_.role != Role::kVisitor) {
    CKPT_ASSIGN(volume_, shelf_.find(hello_, may(Operation::kCreate)));
    CKPT_TRY(volume_->join(options_.number, [this] { stream_.shut_down(); }));
    welcome.size_bytes = volume_->size_bytes();
  }
  welcome.features = hello_.features & kFeatures;
  welcome.silence = options_.silence;
  welcome.connection = options_.number;
  welcome.window_bytes = options_.window_bytes;
  welcome.software = options_.software;
  take_in_hand(0);
  CKPT_TRY(channel_.send(FrameType::kWelcome, last_request_, encode_welcome(welcome)));
  channel_.set_connection(options_.number);
  is_greeted_ = true;
  return {};
}

std::string Connection::who() const {
  return identity_.empty() ? "an unnamed client" : printable(identity_);
}

bool Connection::may(const Uuid& volume, Operation operation) const {
  return options_.access == nullptr || options_.access->allows(identity_, volume, operation);
}

bool Connection::may(Operation operation) const { return may(hello_.volume, operation); }

Result<> Connection::check_right(Operation operation) const {
  return may(operation)
             ? Result<>()
             : fail(ErrorKind::kDenied, "the back-up's access list does not allow " + who() +
                                            " the operation \"" + word_of(operation) +
                                            "\" on volume " + hello_.volume.to_string());
}

// Whoever may do nothing is not told whether the volume is there.
Result<> Connection::check_role() const {
  if (hello_.role == Role::kVisitor) {
    return check_visitor();
  }
  if (hello_.role == Role::kSession) {
    return check_right(Operation::kWrite);
  }
  return may(Operation::kRead) ? Result<>() : check_right(Operation::kStatus);
}

// It is told of what it may look at, which must be something.
Result<> Connection::check_visitor() const {
  return options_.access == nullptr || options_.access->lets_look(identity_)
             ? Result<>()
             : fail(ErrorKind::kDenied,
                    "the back-up's access list lets " + who() + " look at no volume");
}

Result<> Connection::step() {
  CKPT_TRY(receive());
  auto answer = handle();
  if (!answer) {
    if (is_deaf_) {
      return Unexpected(answer.error());
    }
    auto said = fail_request(answer.error());
    return is_broken_ ? Result<>(Unexpected(answer.error())) : said;
  }
  take_in_hand(0);
  return channel_.send(answer->type, last_request_, answer->body);
}

Result<Connection::Answer> Connection::handle() {
  if (const auto operation = operation_of(request_.header.type)) {
    if (auto right = check_right(*operation); !right) {
      remark_ = right.error();
      return Unexpected(right.error());
    }
  }
  switch (request_.header.type) {
    case FrameType::kExport: return hand_over();
    case FrameType::kCheckpoints: return list();
    case FrameType::kStatus: return tell_status();
    case FrameType::kPing: return rest();
    case FrameType::kRead:
    case FrameType::kNextData: return handle_read();
    case FrameType::kReadRanges: return read_ranges();
    case FrameType::kDigests: return digest_blocks();
    case FrameType::kStale: return list_stale();
    case FrameType::kReadAttachment: return read_attachment();
    case FrameType::kVolumes: return list_volumes();
    case FrameType::kName: return name_volume();
    case FrameType::kRelease: return release();
    case FrameType::kBeginSession: return begin_session();
    default: return handle_session();
  }
}

Result<Connection::Answer> Connection::tell_status() {
  StoreStatus status = volume_->status();
  if ((hello_.features & kHearsOfRelays) == 0) {
    status.relays.clear();
  }
  if ((hello_.features & kKnowsPrimary) == 0) {
    status.primary = PrimaryPresence::kNotSaid;
  }
  return Answer{FrameType::kStoreStatus, encode_store_status(status)};
}

// A client that pings has nothing to ask for; what its largest request took is for others.
Connection::Answer Connection::rest() {
  request_.body = {};
  return {};
}

Result<Connection::Answer> Connection::handle_session() {
  const auto in_session = [this](const auto& act) -> Result<Answer> {
    CKPT_TRY(volume_->in_session(options_.number, act));
    return Answer{};
  };
  switch (request_.header.type) {
    case FrameType::kAccept: {
      CKPT_ASSIGN(const uint64_t incarnation, body_as(decode_accept));
      CKPT_TRY(
          volume_->accept(options_.number, incarnation, (hello_.features & kKnowsPrimary) != 0));
      return Answer{};
    }
    case FrameType::kBatch: {
      CKPT_ASSIGN(const EncodedBatch batch, body_as(decode_batch_body));
      return in_session([&](Store& store) { return store.receive(batch); });
    }
    case FrameType::kAttach: {
      CKPT_ASSIGN(const AttachRequest attached, body_as(decode_attach));
      return in_session([&](Store& store) {
        return store.attach(attached.epoch, attached.index, attached.piece);
      });
    }
    case FrameType::kConfirm: {
      CKPT_ASSIGN(const Confirmation confirmation, body_as(decode_confirmation));
      return in_session([&](Store& store) { return store.confirm(confirmation); });
    }
    case FrameType::kForks: {
      CKPT_ASSIGN(const auto forks, body_as(decode_forks));
      return in_session([&](Store& store) { return store.tell_forks(forks); });
    }
    case FrameType::kPromote: return promote();
    case FrameType::kStop: {
      CKPT_TRY(volume_->stop(options_.number));
      return Answer{};
    }
    case FrameType::kConfirmCopy: {
      CKPT_ASSIGN(const CheckpointCopy copy, body_as(decode_copy));
      return in_session([&](Store& store) { return store.confirm_copy(copy); });
    }
    default: {
      CKPT_ASSIGN(const Fork fork, body_as(decode_roll_back));
      return in_session([&](Store& store) { return store.roll_back(fork.from, fork.to); });
    }
  }
}

Result<> Connection::check_understood(const StoreGreeting& greeting) const {
  if (!greeting.bases.empty() && (hello_.features & kRejoins) == 0) {
    return fail(ErrorKind::kInvalid,
                "this back-up was the primary once, and this version of ckpt (" + hello_.software +
                    ") cannot go on from that: take a newer one");
  }
  return !greeting.is_begun || (hello_.features & kGoesOnCopying) != 0
             ? Result<>()
             : fail(ErrorKind::kInvalid,
                    "a first copy of this volume has begun, and this version of ckpt (" +
                        hello_.software +
                        ") cannot go on with it: take a newer one, or restart backupd");
}

Result<Connection::Answer> Connection::handle_read() {
  if (request_.header.type == FrameType::kNextData) {
    CKPT_ASSIGN(const uint64_t offset, body_as(decode_next_data));
    CKPT_ASSIGN(const auto range, volume_->store().next_confirmed_data(offset));
    return Answer{FrameType::kDataRange, encode_data_range(range)};
  }
  CKPT_ASSIGN(const ReadRequest read, body_as(decode_read));
  CKPT_TRY(check_range({read.offset, read.length}));
  Answer answer{FrameType::kData, std::vector<std::byte>(read.length)};
  CKPT_TRY(volume_->store().read_confirmed(read.offset, answer.body));
  return answer;
}

Result<Connection::Answer> Connection::read_ranges() {
  CKPT_ASSIGN(const auto ranges, body_as(decode_read_ranges));
  for (const ByteRange& range : ranges) {
    CKPT_TRY(check_range(range));
  }
  return pass_on([&](ExportSink& sink) { return volume_->store().read_ranges(ranges, sink); });
}

Result<Connection::Answer> Connection::digest_blocks() {
  CKPT_ASSIGN(DigestQuery query, body_as(decode_digests));
  query.size_bytes = volume_->size_bytes();
  CKPT_TRY(check_range({query.blocks.first * kBlockBytes, 1}));
  CKPT_TRY(check_range({(query.blocks.end - 1) * kBlockBytes, 1}));
  CKPT_ASSIGN(const auto digests, volume_->store().digests(query));
  return Answer{FrameType::kDigestList, encode_digest_list(digests)};
}

Result<Connection::Answer> Connection::list_stale() {
  CKPT_ASSIGN(const uint64_t from, body_as(decode_stale));
  CKPT_ASSIGN(const auto runs, volume_->store().stale(from));
  return Answer{FrameType::kStaleList, encode_stale_list(runs)};
}

Result<Connection::Answer> Connection::read_attachment() {
  CKPT_ASSIGN(const AttachmentRequest asked, body_as(decode_read_attachment));
  return pass_on([&](PieceSink& sink) {
    return volume_->store().read_attachment(asked.number, asked.name, sink);
  });
}

Result<> Connection::check_range(const ByteRange& range) const {
  const uint64_t size_bytes = volume_->size_bytes();
  return range.offset < size_bytes && range.length <= size_bytes - range.offset
             ? Result<>()
             : fail(ErrorKind::kInvalid,
                    std::string(frame_name(request_.header.type)) + ": beyond the end of the disk");
}

Result<Connection::Answer> Connection::list() {
  CKPT_ASSIGN(const Epoch after, body_as(decode_checkpoints));
  CKPT_ASSIGN(std::vector<CheckpointInfo> kept, volume_->store().checkpoints());
  std::erase_if(kept, [&](const CheckpointInfo& one) { return one.id.number <= after; });
  const bool more = kept.size() > kCheckpointsPerAnswer;
  kept.resize(std::min<size_t>(kept.size(), kCheckpointsPerAnswer));
  return Answer{FrameType::kCheckpointList, encode_checkpoint_list({std::move(kept), more})};
}

// Those that this client may look at; the others are not there for it.
Result<Connection::Answer> Connection::list_volumes() {
  CKPT_ASSIGN(const VolumesRequest asked, body_as(decode_volumes));
  VolumeList list{shelf_.volumes()};
  std::erase_if(list.volumes, [&](const NamedVolume& one) {
    return one.volume <= asked.after || (!asked.name.empty() && one.name != asked.name) ||
           (!may(one.volume, Operation::kStatus) && !may(one.volume, Operation::kRead));
  });
  list.more = list.volumes.size() > kVolumesPerAnswer;
  list.volumes.resize(std::min(list.volumes.size(), kVolumesPerAnswer));
  return Answer{FrameType::kVolumeList, encode_volume_list(list)};
}

Result<Connection::Answer> Connection::name_volume() {
  CKPT_ASSIGN(const std::string name, body_as(decode_name));
  // Only the session's primary says it.
  CKPT_TRY(volume_->in_session(options_.number, [](Store&) { return Result<>(); }));
  if (auto kept = shelf_.set_name(hello_.volume, name); !kept) {
    remark_ = Error{kept.error().kind, kept.error().number,
                    "its name is not kept: " + kept.error().context};
    return Unexpected(kept.error());
  }
  return Answer{};
}

Result<Connection::Answer> Connection::promote() {
  CKPT_ASSIGN(const Fork fork, body_as(decode_promote));
  CKPT_TRY(volume_->promote(options_.number, fork));
  is_promoted_ = true;
  remark_ =
      Error{ErrorKind::kVoid, 0,
            "the primary has given its role up: promoted, as timeline " + fork.to.to_string()};
  return Answer{};
}

// Until this connection ends. A connection has one at most.
Result<Connection::Answer> Connection::release() {
  CKPT_ASSIGN(const ReleaseRequest asked, body_as(decode_release));
  if (!options_.is_local) {
    return fail(ErrorKind::kDenied,
                "a volume is let go of for root or backupd's own user on its machine, by a Unix "
                "socket");
  }
  if (released_) {
    return fail(ErrorKind::kInvalid, "a connection has one volume let go of, and no second");
  }
  CKPT_TRY(shelf_.release(asked.volume, asked.force));
  released_ = asked.volume;
  remark_ = Error{ErrorKind::kVoid, 0,
                  "volume " + asked.volume.to_string() + " is let go of, for another program"};
  return Answer{};
}

Result<Connection::Answer> Connection::begin_session() {
  SessionOwner owner{options_.number, std::nullopt, options_.peer};
  if (!request_.body.empty()) {
    CKPT_ASSIGN(owner.place, body_as(decode_place));
  }
  const auto greeting = volume_->begin_session(owner);
  if (greeting) {
    CKPT_TRY(check_understood(*greeting));
    return Answer{FrameType::kGreeting, encode_greeting(*greeting)};
  }
  if (greeting.error().kind != ErrorKind::kBusy) {
    return Unexpected(greeting.error());
  }
  const Unexpected refused = within("volume " + hello_.volume.to_string(), greeting.error());
  if (!std::exchange(was_refused_, true)) {  // it asks again and again
    remark_ = refused.error();
  }
  return refused;
}

Result<Connection::Answer> Connection::hand_over() {
  CKPT_ASSIGN(const auto number, body_as(decode_export));
  return pass_on(
      [&](ExportSink& sink) { return volume_->store().export_checkpoint(number, sink); });
}

template <typename Act>
Result<Connection::Answer> Connection::pass_on(const Act& act) {
  WireSink sink(channel_, last_request_);
  const auto done = act(sink);
  is_deaf_ = is_deaf_ || sink.is_broken();
  return done ? Result<Answer>(Answer{}) : Unexpected(done.error());
}

}  // namespace ckpt
