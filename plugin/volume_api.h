// SPDX-License-Identifier: Apache-2.0
// What people ask of a volume: the same for one that is being served, through the control socket,
// and for one that is not, in the tool's own process.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/store_link.h"
#include "plugin/attachment_feed.h"
#include "plugin/event_log.h"

namespace ckpt {

// What a rollback does about connected clients (design: "Rollback to checkpoint n", step 0).
enum class ClientPolicy {
  kRefuse,  // kBusy while any is connected, after waiting 2 s for closing ones
  kFence,   // their requests fail; no new connections until accept()
  kKeep,    // their requests are held until it is done
};

struct CheckpointRequest {
  std::string name;
  std::string message;
  std::chrono::milliseconds timeout{60000};
  // What is to be stored with it, which somebody brings meanwhile. Nothing: nothing.
  std::shared_ptr<AttachmentFeed> attachments{};
  // Told once, when it is cut, on the thread that asked: what is written from then on is not in it.
  // It may still turn out to be void.
  std::function<void(Epoch)> on_cut{};
};

struct CheckpointOutcome {
  CheckpointInfo checkpoint;
  std::chrono::nanoseconds stall{};    // the longest that a write waited because of the cut
  std::chrono::nanoseconds confirm{};  // from the cut to the confirmation
};

struct RollbackRequest {
  std::string checkpoint = "last";  // a number, a name or "last"
  ClientPolicy clients = ClientPolicy::kRefuse;
  bool dry_run = false;  // says what would be lost, changes nothing
  bool rebuild = false;  // every block is written, also of an image that is missing; no server runs
};

struct RollbackOutcome {
  CheckpointInfo checkpoint;
  uint64_t restored_bytes = 0;  // with dry_run: that would be
  std::chrono::nanoseconds elapsed{};
  bool fenced = false;  // no client may connect until accept()
};

struct VerifyOutcome {
  CheckpointInfo checkpoint;
  uint64_t checked_bytes = 0;
  uint64_t skipped_bytes = 0;  // changed since the checkpoint
  uint64_t mismatched_bytes = 0;
  std::vector<ByteRange> mismatches;  // at most kMismatchesMax, ascending; whole blocks
};
inline constexpr size_t kMismatchesMax = 1000;

struct VolumeStatus {
  std::string state;              // running | stopped | rolling-back | fenced | diverged | promoted
  std::string role;               // primary
  std::string image;              // absolute path
  std::vector<std::string> uris;  // where its server listens (NBD uri.md); empty: nowhere known
  std::string name;               // name=, or that of the image; empty: not known
  std::string attachments_folder;  // attachments=, absolute; empty: none
  Uuid volume;
  Uuid timeline;
  // Where the timelines ended that this one came from, oldest first; the last kLineageMax of them.
  std::vector<CheckpointId> lineage;
  uint64_t size_bytes = 0;
  std::string io;  // what is used and why: "sync (buffered writes would block in io_uring)"
  bool protection = false;  // "protected": a checkpoint exists and the store takes more
  Epoch epoch;              // the current one
  std::optional<CheckpointInfo> last_checkpoint;
  uint64_t changed_bytes = 0;
  uint64_t unshipped_bytes = 0;
  uint64_t preserved_blocks = 0;
  std::chrono::nanoseconds stall_max{};
  uint32_t connections = 0;
  std::optional<StoreStatus> store;             // nothing: backup=none
  std::string problem;                          // what is wrong, for people; empty: nothing
  std::chrono::seconds checkpoint_interval{0};  // 0: on request only
  EventCounts counts;
};

// Told now and then how far a long operation is; done and total in bytes. False: stop.
using Progress = std::function<bool(uint64_t done, uint64_t total)>;

// Threads: all methods from any thread, at once; checkpoint and rollback queue behind one another.
class VolumeApi {
 public:
  virtual ~VolumeApi() = default;
  virtual VolumeStatus status() = 0;
  // Oldest first.
  virtual Result<std::vector<CheckpointInfo>> checkpoints() = 0;
  // Returns when the checkpoint exists. kVoid: it never will; kTimeout: it may (the context says
  // so).
  virtual Result<CheckpointOutcome> checkpoint(const CheckpointRequest& request) = 0;
  virtual Result<RollbackOutcome> roll_back(const RollbackRequest& request,
                                            const Progress& progress) = 0;
  virtual Result<VerifyOutcome> verify(const Progress& progress) = 0;
  // Lets clients connect again after a fencing rollback.
  virtual Result<> accept() = 0;
  // Hands a checkpoint over to the sink (StoreLink::export_checkpoint): a number, a name or "last".
  virtual Result<> export_checkpoint(const std::string& id, ExportSink& sink) = 0;
  // Hands an attachment of a checkpoint over (StoreLink::read_attachment), whole: what was handed
  // over is of no use after an error.
  virtual Result<> read_attachment(const std::string& id, const std::string& name,
                                   PieceSink& sink) = 0;
};

}  // namespace ckpt
