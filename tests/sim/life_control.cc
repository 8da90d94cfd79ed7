// SPDX-License-Identifier: Apache-2.0
// What is asked of a server in its life: checkpoints, rollbacks, exports, verifications; and what
// they must have done.
#include "tests/sim/attachments.h"
#include "tests/sim/life.h"
#include "tests/sim/sim_export.h"

namespace ckpt::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

bool never_stop(uint64_t /*done*/, uint64_t /*total*/) { return true; }

}  // namespace

void Life::control() {
  for (uint32_t i = 0; i < plan_.controls && !stuck_; ++i) {
    machine_.scheduler.sleep(microseconds(random_.below(plan_.crowded ? 500 : 20000)));
    check_status();
    if (random_.one_in(plan_.rollback_one_in)) {
      roll_back();
    } else if (random_.one_in(6)) {
      check_verify();
    } else {
      checkpoint(false);
    }
  }
}

// A back-up that is not reached is a problem, and has a reason.
void Life::check_status() {
  const VolumeStatus status = server_->volume().status();
  expect(!status.store || status.store->state != "detached" || !status.problem.empty(),
         "the back-up is detached, and the status names no problem");
}

// Whether there is a new one now.
bool Life::checkpoint(bool must) {
  const std::string name = "c" + std::to_string(++history_.checkpoints);
  CheckpointRequest request{.name = name, .message = "", .timeout = seconds(60)};
  if (plan_.short_timeouts && !options_.last && random_.one_in(3)) {
    // A checkpoint takes a millisecond, as a rule.
    request.timeout = milliseconds(random_.below(random_.one_in(2) ? 3 : 30));
  }
  const bool breaks_off = !must && random_.one_in(10);
  if (plan_.attachments) {
    request.attachments = bring_attachments(machine_.scheduler, name, breaks_off);
  }
  history_.oracle.begin_checkpoint(name);
  machine_.scheduler.event("> checkpoint", "", history_.checkpoints);
  auto made = server_->volume().checkpoint(request);
  end_if_killed();
  if (request.attachments != nullptr) {
    request.attachments->stop();
  }
  if (made) {
    const uint64_t number = made->checkpoint.id.number.value;
    machine_.scheduler.event("< checkpoint", "", number);
    report(history_.oracle.end_checkpoint(name, number));
    history_.probes.hit("checkpoint");
    if (random_.one_in(2)) {
      check_backup();
    }
    return true;
  }
  const bool unknown = made.error().kind == ErrorKind::kTimeout;
  machine_.scheduler.event(unknown ? "< checkpoint?" : "< no checkpoint", "", history_.checkpoints);
  history_.oracle.end_checkpoint(name, unknown ? Existence::kUnknown : Existence::kVoid);
  history_.probes.hit(unknown ? "checkpoint of unknown outcome" : "void checkpoint");
  expect((may_void() && !(must && options_.last)) || history_.image_suspect ||
             (breaks_off && request.attachments != nullptr),
         "O8: no checkpoint: " + made.error().message());
  return false;
}

// False: there is nothing to compare, or it could not be read.
bool Life::check_backup() {
  auto kept = server_->checkpoints();
  end_if_killed();
  if (!kept || kept->empty()) {
    expect(kept || options_.errors, "the store's checkpoints cannot be listed");
    report(kept ? history_.oracle.check_no_backup() : "");
    return false;
  }
  auto content = server_->read_backup();
  end_if_killed();
  auto again = server_->checkpoints();
  end_if_killed();
  if (!content || !again || again->back().id.number != kept->back().id.number) {
    expect(content || options_.errors, "the back-up cannot be read");
    return false;
  }
  const CheckpointInfo& last = kept->back();
  report(history_.oracle.check_backup(last.name, last.id.number.value, read_versions(0, *content)));
  if (plan_.attachments) {
    check_attachments(last);
  }
  return true;
}

// They are part of their checkpoint: all of them, whole, or there is no checkpoint.
void Life::check_attachments(const CheckpointInfo& checkpoint) {
  const std::string number = std::to_string(checkpoint.id.number.value);
  const std::vector<std::string> names = attachment_names(checkpoint.name);
  expect(checkpoint.attachments.size() == names.size(),
         "checkpoint " + number + " has " + std::to_string(checkpoint.attachments.size()) +
             " attachments, not " + std::to_string(names.size()));
  for (const std::string& name : names) {
    ReadAttachment read;
    auto done = server_->volume().read_attachment(number, name, read);
    end_if_killed();
    // (Another checkpoint may have come to exist.)
    expect(done || options_.errors || done.error().kind == ErrorKind::kNotFound,
           "attachment " + name + " cannot be read: " + (done ? "" : done.error().message()));
    expect(!done || read.content() == attachment_content(checkpoint.name, name),
           "attachment " + name + " of checkpoint " + number + " is not what was brought");
    history_.probes.hit("attachment", done ? 1 : 0);
  }
}

void Life::check_verify() {
  auto verified = server_->volume().verify(never_stop);
  end_if_killed();
  if (verified) {
    history_.probes.hit("verify");
    expect(verified->mismatched_bytes == 0,
           "verify: " + std::to_string(verified->mismatched_bytes) +
               " bytes differ that do not count as changed");
  } else {
    expect(options_.errors || verified.error().kind == ErrorKind::kNotFound,
           "verify failed: " + verified.error().message());
  }
}

void Life::export_disk() {
  SeededRandom random = random_.stream("export");
  for (uint32_t i = 0; i < plan_.exports && !stuck_; ++i) {
    machine_.scheduler.sleep(microseconds(random.below(20000)));
    one_export(random.stream(std::to_string(i)));
  }
}

// Beside all else; it may end the export, but not make it wrong.
void Life::one_export(const SeededRandom& random) {
  SimExport sink(machine_.scheduler, random, plan_.size_bytes);
  const uint64_t least = history_.oracle.last_answered();
  machine_.scheduler.event("> export", "", least);
  auto done = server_->volume().export_checkpoint("last", sink);
  end_if_killed();
  machine_.scheduler.event(done ? "< exported" : "< not exported", "",
                           sink.checkpoint().id.number.value);
  if (!done) {
    const ErrorKind kind = done.error().kind;
    history_.probes.hit(kind == ErrorKind::kBusy ? "export ended" : "no export");
    expect(
        options_.errors || kind == ErrorKind::kBusy || (kind == ErrorKind::kNotFound && least == 0),
        "an export failed: " + done.error().message());
    return;
  }
  const CheckpointInfo& of = sink.checkpoint();
  report(sink.check_whole());
  report(history_.oracle.check_export(least, of.name, of.id.number.value,
                                      read_versions(0, sink.content())));
  history_.probes.hit(of.id.number.value < history_.oracle.last_answered() ? "export of one before"
                                                                           : "export");
}

void Life::roll_back() {
  if (!check_backup()) {
    return;
  }
  const auto policy = static_cast<ClientPolicy>(random_.below(3));
  const bool quiet = policy == ClientPolicy::kRefuse || random_.one_in(2);
  if (quiet) {
    pause_requests();
  }
  if (policy == ClientPolicy::kRefuse) {
    disconnect();
  }
  history_.oracle.begin_rollback();
  machine_.guard.set_serving(false);
  machine_.scheduler.event("> rollback", "", history_.oracle.last_number());
  auto outcome = server_->volume().roll_back({.checkpoint = "last", .clients = policy}, never_stop);
  end_if_killed();
  machine_.guard.set_serving(true);
  if (!after_roll_back(outcome, quiet)) {
    stuck_ = true;
  }
  if (!stuck_ && policy != ClientPolicy::kKeep) {
    auto accepted = server_->volume().accept();
    end_if_killed();
    expect(accepted || options_.errors, "accept failed");
    stuck_ = !accepted;
    if (accepted && (outcome || policy == ClientPolicy::kRefuse)) {
      connect();
    }
  }
  if (stuck_) {
    machine_.scheduler.stop();
  }
  resume_requests();
}

// False: it stopped half-way.
bool Life::after_roll_back(const Result<RollbackOutcome>& outcome, bool quiet) {
  const Uuid timeline = server_->volume().status().timeline;
  machine_.scheduler.event(outcome ? "< rolled back" : "< not rolled back");
  if (timeline != history_.timeline) {
    history_.probes.hit("rollback");
    history_.timeline = timeline;
    if (quiet) {
      check_restored();
    }
    history_.oracle.end_rollback();
    return true;
  }
  expect(!outcome, "a rollback succeeded, and the timeline is the old one");
  const ErrorKind kind = outcome ? ErrorKind::kIo : outcome.error().kind;
  expect(options_.errors || kind == ErrorKind::kBusy || kind == ErrorKind::kNotFound,
         "a rollback failed: " + (outcome ? "" : outcome.error().message()));
  if (kind == ErrorKind::kHalfway) {
    history_.probes.hit("rollback half-way");
    return false;
  }
  if (!options_.errors) {
    history_.oracle.cancel_rollback();
  }
  return true;
}

void Life::check_restored() {
  expect_restored(history_.oracle.check_equal(primary(), history_.oracle.last_backup()));
}

void Life::expect_restored(const std::string& wrong) {
  expect(wrong.empty(), "O2: after a rollback to checkpoint " +
                            std::to_string(history_.oracle.last_number()) + ", " + wrong);
}

}  // namespace ckpt::sim
