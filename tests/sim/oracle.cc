// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/oracle.h"

#include <algorithm>

namespace ckpt::sim {
namespace {

std::string sector_text(uint64_t sector) { return "sector " + std::to_string(sector) + ": "; }

std::string moment_text(Moment moment) {
  return moment == kNever ? std::string("never") : std::to_string(moment);
}

}  // namespace

Oracle::Oracle(uint64_t sector_count) : sector_count_(sector_count) {
  begin_era(std::vector<Version>(sector_count), {});
}

void Oracle::begin_era(std::vector<Version> base, const std::vector<RequestPtr>& carried) {
  if (!eras_.empty()) {
    eras_.back().ended = now_;
  }
  Era era;
  era.began = ++now_;
  era.base = std::move(base);
  era.requests.resize(sector_count_);
  for (const RequestPtr& request : carried) {
    add(era, request);
  }
  eras_.push_back(std::move(era));
}

// ---- requests

void Oracle::add(Era& era, const RequestPtr& request) {
  for (uint64_t sector = request->sectors.first; sector < request->sectors.end; ++sector) {
    era.requests[sector].push_back(request);
  }
}

RequestPtr Oracle::begin(SectorRange sectors, Content content) {
  auto request = std::make_shared<Request>();
  request->sectors = sectors;
  request->number = ++last_version_;
  request->issued = ++now_;
  for (uint64_t sector = sectors.first; sector < sectors.end; ++sector) {
    request->versions.push_back(content == Content::kNew      ? last_version_
                                : content == Content::kBackup ? last_backup_[sector]
                                                              : 0);
  }
  add(eras_.back(), request);
  return request;
}

RequestPtr Oracle::begin_write(SectorRange sectors) { return begin(sectors, Content::kNew); }
RequestPtr Oracle::begin_zero(SectorRange sectors) { return begin(sectors, Content::kZero); }
RequestPtr Oracle::begin_restore(SectorRange sectors) {
  return begin(sectors, last_number_ != 0 ? Content::kBackup : Content::kNew);
}

void Oracle::end(const RequestPtr& request, bool success, bool fua) {
  request->ended = ++now_;
  request->certain = success;
  request->flushed = success && fua;
}

void Oracle::end_flush(Moment issued) {
  ++now_;
  for (const Era& era : eras_) {
    for (const auto& requests : era.requests) {
      for (const RequestPtr& request : requests) {
        request->flushed = request->flushed || (request->certain && request->ended < issued);
      }
    }
  }
}

std::string Oracle::end_read(Moment issued, uint64_t first_sector,
                             const std::vector<Version>& versions) const {
  const Era& era = eras_.back();
  const Spans window{{issued, kNever}};
  for (size_t i = 0; i < versions.size(); ++i) {
    const uint64_t sector = first_sector + i;
    if (intersect(spans_of(era, sector, versions[i]), window).empty()) {
      return "a read returned " + explain(era, sector, versions[i]);
    }
  }
  return "";
}

// ---- when a value was there

// Since the request was issued, and until another, issued after its end, was answered.
Oracle::Span Oracle::span_of(const std::vector<RequestPtr>& requests, Moment issued, Moment ended) {
  Span span{issued, kNever};
  for (const RequestPtr& other : requests) {
    if (other->certain && !other->doubtful && other->issued > ended) {
      span.last = std::min(span.last, other->ended - 1);
    }
  }
  return span;
}

Oracle::Spans Oracle::spans_of(const Era& era, uint64_t sector, Version version) {
  Spans spans;
  const std::vector<RequestPtr>& requests = era.requests[sector];
  if (era.base[sector] == version) {
    spans.push_back(span_of(requests, era.began, era.began));
  }
  for (const RequestPtr& request : requests) {
    if (request->version_at(sector) == version) {
      spans.push_back(span_of(requests, std::max(request->issued, era.began), request->ended));
    }
  }
  return spans;
}

Oracle::Spans Oracle::intersect(const Spans& some, const Spans& others) {
  Spans result;
  for (const Span& one : some) {
    for (const Span& other : others) {
      const Span both{std::max(one.first, other.first), std::min(one.last, other.last)};
      if (both.first <= both.last) {
        result.push_back(both);
      }
    }
  }
  merge(result);
  return result;
}

// Makes spans that overlap one.
void Oracle::merge(Spans& spans) {
  std::sort(spans.begin(), spans.end(),
            [](const Span& one, const Span& other) { return one.first < other.first; });
  Spans merged;
  for (const Span& span : spans) {
    if (merged.empty() || span.first > merged.back().last) {
      merged.push_back(span);
    } else {
      merged.back().last = std::max(merged.back().last, span.last);
    }
  }
  spans = std::move(merged);
}

bool Oracle::is_current(uint64_t sector, Version version) const {
  const Era& era = eras_.back();
  if (era.requests[sector].empty()) {
    return era.base[sector] == version;
  }
  const Spans spans = spans_of(era, sector, version);
  return std::any_of(spans.begin(), spans.end(),
                     [this](const Span& span) { return span.last >= now_; });
}

std::string Oracle::explain(const Era& era, uint64_t sector, Version version) {
  std::string text = sector_text(sector) + describe_version(version) + "; the era began at " +
                     std::to_string(era.began) + " with " + describe_version(era.base[sector]);
  for (const RequestPtr& request : era.requests[sector]) {
    text += "; request " + std::to_string(request->number) + " (" +
            describe_version(request->version_at(sector)) + ") " + moment_text(request->issued) + ".." +
            moment_text(request->ended) + (request->certain ? " done" : "") +
            (request->flushed ? " flushed" : "") + (request->doubtful ? " doubtful" : "");
  }
  return text;
}

// ---- checkpoints

void Oracle::begin_checkpoint(const std::string& name) {
  Checkpoint& checkpoint = checkpoints_[name];
  checkpoint.name = name;
  checkpoint.era = era();
  checkpoint.asked = ++now_;
}

std::string Oracle::end_checkpoint(const std::string& name, uint64_t number) {
  Checkpoint& checkpoint = checkpoints_.at(name);
  checkpoint.answered = ++now_;
  checkpoint.existence = Existence::kExists;
  checkpoint.number = number;
  if (number <= last_answered_) {
    return "O6: checkpoint " + std::to_string(number) + " was answered after checkpoint " +
           std::to_string(last_answered_);
  }
  last_answered_ = number;
  return "";
}

void Oracle::end_checkpoint(const std::string& name, Existence existence) {
  Checkpoint& checkpoint = checkpoints_.at(name);
  ++now_;
  checkpoint.existence = existence;
}

void Oracle::lose_backup() {
  last_answered_ = 0;
  last_number_ = 0;
}

std::string Oracle::check_no_backup() const {
  return last_answered_ == 0 ? ""
                             : "O1: checkpoint " + std::to_string(last_answered_) +
                                   " was answered, and the store has none";
}

std::string Oracle::check_backup(const std::string& name, uint64_t number,
                                 const std::vector<Version>& backup) {
  const auto asked = checkpoints_.find(name);
  const bool is_gone =
      asked != checkpoints_.end() && asked->second.existence == Existence::kGone;
  const std::string wrong =
      number < last_answered_ ? "checkpoint " + std::to_string(last_answered_) + " was answered"
      : is_gone               ? "it was put back from before that"
                              : check_content(name, number, backup);
  if (!wrong.empty()) {
    return "O1: the store's checkpoint " + std::to_string(number) + " (" + name + "): " + wrong;
  }
  last_number_ = number;
  last_answered_ = std::max(last_answered_, number);
  last_backup_ = backup;
  return "";
}

void Oracle::restore_backup(uint64_t number, const std::vector<Version>& backup) {
  last_number_ = last_answered_ = number;
  last_backup_ = backup;
  for (auto& [name, checkpoint] : checkpoints_) {
    if (checkpoint.existence == Existence::kExists && checkpoint.number > number) {
      checkpoint.existence = Existence::kGone;
    }
  }
}

std::string Oracle::check_export(uint64_t least, const std::string& name, uint64_t number,
                                 const std::vector<Version>& content) const {
  const std::string wrong = number < least
                                ? "checkpoint " + std::to_string(least) + " was answered before"
                                : check_content(name, number, content);
  return wrong.empty() ? ""
                       : "an export of checkpoint " + std::to_string(number) + " (" + name +
                             "): " + wrong;
}

std::string Oracle::check_content(const std::string& name, uint64_t number,
                                  const std::vector<Version>& backup) const {
  if (number == last_number_) {
    return check_equal(last_backup_, backup);
  }
  const auto asked = checkpoints_.find(name);
  return asked == checkpoints_.end() ? check_unasked(backup)
                                     : check_asked(asked->second, number, backup);
}

std::string Oracle::check_asked(const Checkpoint& checkpoint, uint64_t number,
                                const std::vector<Version>& backup) const {
  if (checkpoint.existence == Existence::kVoid) {
    return "its caller was told that it never will exist";
  }
  const bool existed =
      checkpoint.existence == Existence::kExists || checkpoint.existence == Existence::kGone;
  if (existed && checkpoint.number != number) {
    return "its caller was told number " + std::to_string(checkpoint.number);
  }
  return check_cut(eras_[checkpoint.era], {checkpoint.asked, checkpoint.answered}, backup);
}

std::string Oracle::check_unasked(const std::vector<Version>& backup) const {
  std::string wrong;
  for (auto era = eras_.rbegin(); era != eras_.rend(); ++era) {
    wrong = check_cut(*era, {era->began, era->ended}, backup);
    if (wrong.empty()) {
      return "";
    }
  }
  return wrong;
}

// Some instant must explain every sector.
std::string Oracle::check_cut(const Era& era, Span window,
                              const std::vector<Version>& backup) const {
  Spans instants{{std::max(window.first, era.began), std::min(window.last, era.ended)}};
  for (uint64_t sector = 0; sector < sector_count_; ++sector) {
    if (era.requests[sector].empty() && era.base[sector] == backup[sector]) {
      continue;
    }
    Spans left = intersect(instants, spans_of(era, sector, backup[sector]));
    if (left.empty()) {
      std::string text = "no instant explains " + explain(era, sector, backup[sector]);
      for (const Span& instant : instants) {
        text += "; the others leave " + moment_text(instant.first) + ".." + moment_text(instant.last);
      }
      return text;
    }
    instants = std::move(left);
  }
  return "";
}

// ---- crashes and rollbacks

bool Oracle::overwritten_durably(uint64_t sector, Moment ended) const {
  for (size_t i = durable_era_; i < eras_.size(); ++i) {
    for (const RequestPtr& request : eras_[i].requests[sector]) {
      if (request->flushed && !request->doubtful && request->issued > ended) {
        return true;
      }
    }
  }
  return false;
}

bool Oracle::may_be_after_power_loss(uint64_t sector, Version version) const {
  const Era& durable = eras_[durable_era_];
  if (durable.base[sector] == version && !overwritten_durably(sector, durable.began)) {
    return true;
  }
  for (size_t i = durable_era_; i < eras_.size(); ++i) {
    for (const RequestPtr& request : eras_[i].requests[sector]) {
      if (request->version_at(sector) == version && !overwritten_durably(sector, request->ended)) {
        return true;
      }
    }
  }
  return false;
}

std::string Oracle::check_crash(const std::vector<Version>& primary, bool power_lost,
                                bool syncs_failed) {
  std::string wrong;
  if (syncs_failed) {
    // What a failed sync lost may be of any age.
    durable_era_ = 0;
  }
  for (uint64_t sector = 0; sector < sector_count_ && wrong.empty(); ++sector) {
    const Version version = primary[sector];
    const bool restored = rolling_back_ && last_backup_[sector] == version;
    const bool legal = restored || (power_lost ? may_be_after_power_loss(sector, version)
                                               : is_current(sector, version));
    if (!legal && !(syncs_failed && version < kMisplaced)) {
      wrong = std::string(power_lost ? "O4: after a loss of power " : "after a kill ") +
              explain(eras_.back(), sector, version);
    }
  }
  if (rolling_back_) {
    note_requests_of_rollback();
  }
  for (const auto& requests : eras_.back().requests) {
    for (const RequestPtr& request : requests) {
      request->ended = std::min(request->ended, now_);
    }
  }
  begin_era(primary, {});
  if (power_lost) {
    // What is left of the disk is durable, whatever failed before.
    synced_all();
  }
  return wrong;
}

RequestPtr Oracle::tamper(SectorRange sectors) {
  RequestPtr request = begin(sectors, Content::kNew);
  end(request, true, true);
  return request;
}

void Oracle::put_back(const std::vector<Version>& versions) {
  const RequestPtr request = begin({0, sector_count_}, Content::kNew);
  request->versions = versions;
  end(request, true, true);
}

// It may have ended before the crash, and they have come after it.
void Oracle::note_requests_of_rollback() {
  for (uint64_t sector = 0; sector < sector_count_; ++sector) {
    for (const RequestPtr& request : eras_.back().requests[sector]) {
      if (request->ended > rollback_began_) {
        after_rollback_.emplace(sector, request->version_at(sector));
      }
    }
  }
}

std::string Oracle::check_rolled_back(const std::vector<Version>& primary) const {
  std::vector<Version> expected = last_backup_;
  for (const auto& [sector, version] : after_rollback_) {
    if (sector < primary.size() && primary[sector] == version) {
      expected[sector] = version;
    }
  }
  return check_equal(primary, expected);
}

void Oracle::begin_rollback() {
  after_rollback_.clear();
  rolling_back_ = true;
  rollback_began_ = ++now_;
}

void Oracle::end_rollback() {
  rolling_back_ = false;
  std::map<Version, RequestPtr> flying;
  for (const auto& requests : eras_.back().requests) {
    for (const RequestPtr& request : requests) {
      if (request->ended > rollback_began_) {
        request->doubtful = true;
        flying[request->number] = request;
      }
    }
  }
  std::vector<RequestPtr> carried;
  for (const auto& [number, request] : flying) {
    carried.push_back(request);
  }
  begin_era(last_backup_, carried);
  synced_all();
}

std::string Oracle::check_equal(const std::vector<Version>& primary,
                                const std::vector<Version>& backup) const {
  // Something went wrong before, if one side was never read.
  if (primary.size() != sector_count_ || backup.size() != sector_count_) {
    return "there are " + std::to_string(primary.size()) + " sectors on one side, " +
           std::to_string(backup.size()) + " on the other";
  }
  for (uint64_t sector = 0; sector < sector_count_; ++sector) {
    if (primary[sector] != backup[sector]) {
      return sector_text(sector) + describe_version(primary[sector]) + " on one side, " +
             describe_version(backup[sector]) + " on the other";
    }
  }
  return "";
}

std::string Oracle::check_primary(const std::vector<Version>& primary) const {
  for (uint64_t sector = 0; sector < sector_count_; ++sector) {
    if (!is_current(sector, primary[sector])) {
      return "the primary has " + explain(eras_.back(), sector, primary[sector]);
    }
  }
  return "";
}

}  // namespace ckpt::sim
