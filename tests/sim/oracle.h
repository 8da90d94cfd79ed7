// SPDX-License-Identifier: Apache-2.0
// What the disk may hold, now, after a crash, and at each checkpoint: known from the requests and their
// answers alone, outside of the system.
//
// History is cut into eras: one ends when all processes die, and at a rollback. An era begins with what
// the disk then held, sector by sector. Within it a request is an interval of time; of two that overlap
// either may win, sector by sector. A checkpoint was cut at one instant within its own interval:
// what it holds is legal if some instant explains every sector.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/content.h"

namespace ckpt::sim {

// Each event has its own.
using Moment = uint64_t;
inline constexpr Moment kNever = ~Moment{0};

struct Request {
  SectorRange sectors;
  std::vector<Version> versions;  // what its sectors hold afterwards
  Version number = 0;             // its own, for messages
  Moment issued = 0;
  Moment ended = kNever;   // no effect after it
  bool certain = false;    // answered with success: all of it has had its effect
  bool flushed = false;    // and is durable: FUA, or a flush since
  bool doubtful = false;   // a rollback ran meanwhile: its success proves nothing
  [[nodiscard]] Version version_at(uint64_t sector) const {
    return versions[sector - sectors.first];
  }
};
using RequestPtr = std::shared_ptr<Request>;  // of each era that it lies in, and of the client

// What became of a checkpoint, as far as its caller knows.
// kGone: the store was put back from before it; a further one may have it.
enum class Existence { kUnknown, kExists, kVoid, kGone };

struct Checkpoint {
  std::string name;
  size_t era = 0;
  Moment asked = 0;
  Moment answered = kNever;
  Existence existence = Existence::kUnknown;
  uint64_t number = 0;  // if it exists
  bool missing_allowed = false;
};

// Checks return what is wrong; empty: nothing.
class Oracle {
 public:
  explicit Oracle(uint64_t sector_count);
  [[nodiscard]] uint64_t sector_count() const { return sector_count_; }

  // ---- requests

  RequestPtr begin_write(SectorRange sectors);
  RequestPtr begin_zero(SectorRange sectors);
  // Writes what the last checked checkpoint holds.
  RequestPtr begin_restore(SectorRange sectors);
  // Answered; with fua and success it is durable, too.
  void end(const RequestPtr& request, bool success, bool fua);
  // A flush covers all that was answered before it was issued.
  [[nodiscard]] Moment begin_flush() { return ++now_; }
  void end_flush(Moment issued);
  [[nodiscard]] Moment begin_read() { return ++now_; }
  [[nodiscard]] std::string end_read(Moment issued, uint64_t first_sector,
                                     const std::vector<Version>& versions) const;

  // ---- checkpoints

  // The name identifies it.
  void begin_checkpoint(const std::string& name);
  [[nodiscard]] std::string end_checkpoint(const std::string& name, uint64_t number);
  void end_checkpoint(const std::string& name, Existence existence);
  // O1: the back-up holds the checkpoint of that name and number, the last answered one or a later one
  // whose outcome is open; a name that nobody asked for is the product's own first copy.
  // From then on it is the one that a rollback leads to.
  [[nodiscard]] std::string check_backup(const std::string& name, uint64_t number,
                                         const std::vector<Version>& backup);
  // An export holds the checkpoint of that name and number: at least the one that was answered last
  // when it was asked for (last_answered()).
  [[nodiscard]] std::string check_export(uint64_t least, const std::string& name, uint64_t number,
                                         const std::vector<Version>& content) const;
  // The highest number; 0: none.
  [[nodiscard]] uint64_t last_answered() const { return last_answered_; }
  // The store was put back from a copy that holds this: what was confirmed since is gone.
  void restore_backup(uint64_t number, const std::vector<Version>& backup);
  // Fail-over: the back-up is the disk, and has none yet, but may get one again.
  void lose_backup();
  // Nothing was confirmed, says the store.
  [[nodiscard]] std::string check_no_backup() const;
  // What the last checked checkpoint holds.
  [[nodiscard]] const std::vector<Version>& last_backup() const { return last_backup_; }
  [[nodiscard]] uint64_t last_number() const { return last_number_; }

  // ---- crashes and rollbacks

  // All processes are dead. O4, or (without loss of power) that every answered write is there. From here
  // on the disk is what it is: a new era.
  [[nodiscard]] std::string check_crash(const std::vector<Version>& primary, bool power_lost,
                                        bool syncs_failed);
  // Another program changes the image of a volume that is not served.
  RequestPtr tamper(SectorRange sectors);
  // It puts an older copy in its place, which held this.
  void put_back(const std::vector<Version>& versions);
  // What the image holds has been synced.
  void synced_all() { durable_era_ = eras_.size() - 1; }
  // A rollback to the last checked checkpoint: between the two a crash may find any mixture.
  void begin_rollback();
  // The disk is that checkpoint's, durably. Requests in flight meanwhile may or may not come after it.
  void end_rollback();
  // O2 after a crash: it ended before that, and what was asked for meanwhile may have come after it, or
  // a start has finished it.
  [[nodiscard]] std::string check_rolled_back(const std::vector<Version>& primary) const;
  // It did not begin.
  void cancel_rollback() { rolling_back_ = false; }
  [[nodiscard]] bool rolling_back() const { return rolling_back_; }
  [[nodiscard]] size_t era() const { return eras_.size() - 1; }
  // O2, O5: in every sector.
  [[nodiscard]] std::string check_equal(const std::vector<Version>& primary,
                                        const std::vector<Version>& backup) const;
  // Nothing is in flight: every sector holds what the last answered request left there.
  [[nodiscard]] std::string check_primary(const std::vector<Version>& primary) const;

 private:
  struct Era {
    Moment began = 0;
    Moment ended = kNever;
    std::vector<Version> base;
    std::vector<std::vector<RequestPtr>> requests;  // a sector each, in the order of their issue
  };
  // [first, last] of moments at which a cut finds a value.
  struct Span {
    Moment first = 0;
    Moment last = kNever;
  };
  using Spans = std::vector<Span>;

  enum class Content { kNew, kZero, kBackup };
  RequestPtr begin(SectorRange sectors, Content content);
  static void add(Era& era, const RequestPtr& request);
  static Spans spans_of(const Era& era, uint64_t sector, Version version);
  static Span span_of(const std::vector<RequestPtr>& requests, Moment issued, Moment ended);
  static Spans intersect(const Spans& some, const Spans& others);
  static void merge(Spans& spans);
  [[nodiscard]] std::string check_cut(const Era& era, Span window,
                                      const std::vector<Version>& backup) const;
  [[nodiscard]] std::string check_asked(const Checkpoint& checkpoint, uint64_t number,
                                        const std::vector<Version>& backup) const;
  [[nodiscard]] std::string check_content(const std::string& name, uint64_t number,
                                          const std::vector<Version>& backup) const;
  [[nodiscard]] std::string check_unasked(const std::vector<Version>& backup) const;
  [[nodiscard]] bool is_current(uint64_t sector, Version version) const;
  [[nodiscard]] bool may_be_after_power_loss(uint64_t sector, Version version) const;
  [[nodiscard]] bool overwritten_durably(uint64_t sector, Moment ended) const;
  [[nodiscard]] static std::string explain(const Era& era, uint64_t sector, Version version);
  void note_requests_of_rollback();
  void begin_era(std::vector<Version> base, const std::vector<RequestPtr>& carried);

  uint64_t sector_count_;
  Moment now_ = 0;
  Version last_version_ = 0;
  std::vector<Era> eras_;
  size_t durable_era_ = 0;  // the disk has at least what this era began with
  std::map<std::string, Checkpoint> checkpoints_;
  uint64_t last_answered_ = 0;  // the highest number that was answered
  uint64_t last_number_ = 0;
  std::vector<Version> last_backup_;
  bool rolling_back_ = false;
  std::set<std::pair<uint64_t, Version>> after_rollback_;  // sectors, and what they may hold
  Moment rollback_began_ = 0;
};

}  // namespace ckpt::sim
