// SPDX-License-Identifier: Apache-2.0
// What a primary asks of its store: called directly when the store is embedded, over a link
// otherwise.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/attachment.h"
#include "common/batch.h"
#include "common/clock.h"
#include "common/result.h"

namespace ckpt {

// (timeline, n): which checkpoint. number 0: the empty disk before the first.
struct CheckpointId {
  Uuid timeline;
  Epoch number;
  auto operator<=>(const CheckpointId&) const = default;
};

// A checkpoint, as the store keeps it.
struct CheckpointInfo {
  CheckpointId id;
  CheckpointId parent;
  Digest digest;
  WallTime time{};             // of the cut, by the primary's clock
  std::string name;            // at most 255 bytes; may be empty
  std::string message;         // at most 4096 bytes; may be empty
  uint64_t changed_bytes = 0;  // since the parent, as the primary counts
  uint64_t shipped_bytes = 0;  // payload bytes as stored
  std::vector<AttachmentInfo> attachments{};
};

// A checkpoint that an image was before it was changed.
struct BaseCheckpoint {
  CheckpointId id;
  Digest digest;
  bool operator==(const BaseCheckpoint&) const = default;
};

// What a store says at the start of a session. By then it has fenced and drained the session before
// and dropped what was pending, or kept it as is_begun says.
struct StoreGreeting {
  std::optional<CheckpointInfo> last;  // nothing: none, and never was
  uint64_t incarnation = 0;            // the last one that it accepted; 0: none
  // There is no checkpoint, but something of a first copy that was broken off: content of no
  // instant, with which the disk is to be compared. Its holes are no holes of the disk.
  bool is_begun = false;
  // With is_begun, of an image that was a primary's: each of these, but for the blocks that stale()
  // names. The first was answered for; another may never have come to exist. At most kBasesMax.
  std::vector<BaseCheckpoint> bases{};
};

// CONFIRM(n).
struct Confirmation {
  CheckpointInfo checkpoint;
  std::vector<CoveredEpoch> covered;  // the store must have exactly these, or refuses
};

// A checkpoint that one store has, as it passes it on to a further one.
struct CheckpointCopy {
  Confirmation confirmation;
  std::vector<CheckpointId> forks{};  // where older timelines of the volume ended, oldest first
};

// A further store, to which a store passes its checkpoints on.
struct RelayState {
  std::string address;
  std::optional<Epoch> passed;  // what it has; nothing: none, or it is not known
  std::string error;            // empty: nothing is wrong
  bool operator==(const RelayState&) const = default;
};
// Of one store's status.
inline constexpr size_t kRelaysMax = 16;

// Whether the primary of a store is there, as its backupd has seen it since its own start.
enum class PrimaryPresence : uint8_t {
  kNotSaid,    // by an embedded store or an older backupd; or of one that does not tell its stop
  kNever,      // none was accepted
  kConnected,  // accepted, or back since, and its connection stands
  kAway,       // its connection has ended, and it had not said that it stops
  kStopped,    // it had
};

struct StoreStatus {
  std::string address;
  std::string state;  // connected | syncing | detached | failed
  std::string error;
  std::optional<CheckpointInfo> confirmed;
  Epoch applied;
  uint64_t pending_bytes = 0;    // as stored
  uint64_t confirmed_bytes = 0;  // confirmed and not yet applied, as stored
  uint64_t free_bytes = 0;
  std::vector<RelayState> relays{};  // at most kRelaysMax
  PrimaryPresence primary = PrimaryPresence::kNotSaid;
};

// Where content goes that a store hands over. Each byte is handed over once.
//
// Threads: one at a time, but not always the same.
// Failure: an error ends it.
class ContentSink {
 public:
  virtual ~ContentSink() = default;
  // At most kPieceBytes.
  virtual Result<> write(uint64_t offset, ConstByteSpan data) = 0;
  // A hole: it reads as zeroes. Of any length.
  virtual Result<> zero(ByteRange range) = 0;
};

// Where the content of a whole checkpoint goes, in any order, in whole blocks (the last may be
// short).
class ExportSink : public ContentSink {
 public:
  // Before anything else: which checkpoint it will be, and the size of the disk.
  virtual Result<> begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) = 0;
};

// Where the pieces of an attachment go, in their order. Each was checked.
class PieceSink {
 public:
  virtual ~PieceSink() = default;
  virtual Result<> take(const PieceHeader& header, ConstByteSpan piece) = 0;
};

// Older forks are forgotten; a primary that comes back from there is refused as foreign.
inline constexpr size_t kForksMax = 1024;
// Of one greeting: the last checkpoint, and the one that was intended.
inline constexpr size_t kBasesMax = 2;
// Of one call of stale().
inline constexpr size_t kStaleMax = 4096;
// Of one call of read_ranges().
inline constexpr size_t kRangesMax = 65536;
// Of one call of digests().
inline constexpr uint64_t kDigestsMax = 16384;

// Whose digests are asked for.
struct DigestQuery {
  BlockRange blocks;
  uint64_t size_bytes = 0;  // of the disk
  uint64_t seed = 0;
};

// Threads:    receive, attach, confirm, begin_session, accept, roll_back and promote from one
// thread at a
//             time; all else from any, meanwhile.
// Failure:    kNoSpace is recoverable: what is pending is dropped, and a new session ships it
//             again. Any other error of receive, attach or confirm ends the session; begin_session
//             starts a new one.
class StoreLink {
 public:
  virtual ~StoreLink() = default;
  // Fences and drains the session before, drops what is pending, says what there is.
  virtual Result<StoreGreeting> begin_session() = 0;
  // Where the store greeted with bases: the runs of blocks in which its image may differ from them,
  // ascending, from that block on; at most kStaleMax. Nothing: no more.
  virtual Result<std::vector<BlockRange>> stale(uint64_t /*from*/) {
    return std::vector<BlockRange>();
  }
  // Records the primary's incarnation durably. Nothing is received before.
  virtual Result<> accept(uint64_t incarnation) = 0;
  // Where older timelines of the volume ended, oldest first, at most kForksMax: for a store that
  // has no checkpoint yet, and cannot know. Recorded durably.
  virtual Result<> tell_forks(const std::vector<CheckpointId>& /*forks*/) { return {}; }
  // Takes a batch as pending. Its space in the image is reserved. Not durable when it returns.
  virtual Result<> receive(const EncodedBatch& batch) = 0;
  // Takes the next piece of attachment number `index` of the checkpoint that this epoch will be, as
  // pending: it is part of that checkpoint, and gone if that is void.
  virtual Result<> attach(Epoch epoch, uint32_t index, ConstByteSpan piece) = 0;
  // Durable when it returns: the checkpoint exists. Covers all pending batches of epochs up to its
  // number, and none of later ones. kVoid: the store was not asked, and never will be; after any
  // other error it may exist.
  virtual Result<> confirm(const Confirmation& confirmation) = 0;
  // Whether confirm_copy() is worth beginning. In a session.
  virtual Result<> check_takes_copies() { return {}; }
  // The same of a copy: the checkpoint is what it is at the store that it comes from, with its
  // digest and its forks, and follows any that is on its line.
  virtual Result<> confirm_copy(const CheckpointCopy& /*copy*/) {
    return fail(ErrorKind::kInvalid, "this is no store that takes copies of checkpoints");
  }
  // Drops what is pending, records the fork (from, n) -> to durably (a repeated call changes
  // nothing), finishes applying. n must be the last checkpoint.
  virtual Result<> roll_back(const CheckpointId& from, const Uuid& to) = 0;
  // Whether promote() is worth asking for. In a session.
  virtual Result<> check_promotes() {
    return fail(ErrorKind::kVoid, "this back-up is no other machine's");
  }
  // The primary gives its role up: the store is promoted, as that timeline, at its last checkpoint,
  // which must be `from`. Durable when it returns; every session is refused from then on (kFenced).
  // kVoid, kInvalid, kDenied, kFenced: it is not done. After any other error it may be.
  virtual Result<> promote(const CheckpointId& /*from*/, const Uuid& /*to*/) {
    return fail(ErrorKind::kVoid, "this back-up is no other machine's");
  }
  // The disk at the last confirmed checkpoint, whether applied or not; before the first, whatever
  // of it is there.
  virtual Result<> read_confirmed(uint64_t offset, ByteSpan buffer) = 0;
  virtual Result<std::optional<ByteRange>> next_confirmed_data(uint64_t offset) = 0;
  // The same for many ranges, at most kRangesMax, of any length: hands over what they hold, in
  // their order.
  virtual Result<> read_ranges(std::span<const ByteRange> ranges, ContentSink& sink);
  // The digest, with that seed, of each of these blocks, at most kDigestsMax: what it holds at the
  // last confirmed checkpoint (the last block of the disk may be short). Many are compared by
  // little.
  virtual Result<std::vector<Digest>> digests(const DigestQuery& query);
  // Hands over the disk at a checkpoint; nothing: the last. Later ones come to exist, and are
  // applied, meanwhile. kNotFound: it is not kept (any more); kBusy: another export is under way,
  // or the sink was so slow that a checkpoint had to wait for it.
  virtual Result<> export_checkpoint(std::optional<Epoch> number, ExportSink& sink) = 0;
  // Hands over an attachment of a checkpoint. kNotFound: there is none, or it is not kept (any
  // more); kCorrupt: it is damaged.
  virtual Result<> read_attachment(Epoch number, const std::string& name, PieceSink& sink) = 0;
  // Checkpoints that are kept, oldest first.
  virtual Result<std::vector<CheckpointInfo>> checkpoints() = 0;
  virtual StoreStatus status() = 0;
  // The same, as it is now, and not as it was heard last.
  virtual Result<StoreStatus> ask() { return status(); }
  // Whether the session still stands, as far as is known without asking; the error says why not.
  [[nodiscard]] virtual Result<> check_link() { return {}; }
};

}  // namespace ckpt
