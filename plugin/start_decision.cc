// SPDX-License-Identifier: Apache-2.0
#include "plugin/start_decision.h"

#include "common/mutex.h"

namespace ckpt {
namespace {

// A write that was in flight when its process was killed may have stamped the image this much after
// the last one that was seen to end: it had entered the kernel, and was waiting for the file there.
constexpr WallTime kLandingTime = std::chrono::seconds(1);

// Whether clients may have been connected when the server ended. Not known is yes.
bool may_have_had_clients(const StartFacts& facts) {
  return !facts.record.clean && (!facts.maps || facts.maps->connections > 0);
}

StartDecision everything(std::string reason) {
  return {ChangedSource::kEverything, std::move(reason), false};
}

bool names_this_generation(const StartFacts& facts) {
  const uint64_t nonce = facts.record.nonce;
  return facts.maps && (facts.maps->nonce == nonce || facts.maps->next_nonce == nonce);
}

WallTime last_legal_change(const StartFacts& facts) {
  const MapsFacts& maps = *facts.maps;
  return maps.last_write + (maps.writes_in_flight > 0 ? kLandingTime : WallTime{});
}

StartDecision decide_clean(const StartFacts& facts) {
  if (facts.image != facts.record.image) {
    return everything("the image was changed while it was not being served");
  }
  if (!facts.saved_map_intact) {
    return everything("the map saved at the last stop is missing or damaged");
  }
  CKPT_PROBE(start_after_a_clean_stop);
  return {ChangedSource::kSavedMap, "", false};
}

StartDecision decide_killed(const StartFacts& facts) {
  if (!names_this_generation(facts)) {
    return everything("the written maps are missing, or of another state of this volume");
  }
  if (facts.image.changed > last_legal_change(facts) && !CKPT_PLANTED(outside_change_not_noticed)) {
    CKPT_PROBE(image_was_changed_behind_our_back);
    return everything("the image was changed after its server died");
  }
  // What has changed since the clock was set back is stamped earlier than what was written before.
  if (was_set_back(facts.maps->last_write, facts.now)) {
    CKPT_PROBE(clock_was_set_back_after_the_last_write);
    return everything("the clock was set back after the last write");
  }
  if (!facts.maps->exact) {
    return {ChangedSource::kRegionMarks, "", false};
  }
  CKPT_PROBE(start_with_exact_maps);
  return {ChangedSource::kWrittenMaps, "", false};
}

StartDecision decide_after_boot(const StartFacts& facts) {
  if (facts.image.changed >= facts.boot_time) {
    return everything("the image was changed since the machine started again");
  }
  CKPT_PROBE(start_with_region_marks);
  return {ChangedSource::kRegionMarks, "", false};
}

// A device keeps no times: only within one boot, and from a stop that recorded what had been
// written, can be known that nobody else wrote.
bool is_unknown_device(const StartFacts& facts) {
  return facts.is_device && !(facts.record.clean && facts.record.boot_id == facts.boot_id);
}

StartDecision decide_source(const StartFacts& facts) {
  if (is_unknown_device(facts)) {
    return everything("a block device does not say whether others wrote to it meanwhile");
  }
  if (!facts.image.same_file(facts.record.image)) {
    return everything("the image is not the file that it was");
  }
  if (!facts.self.same_file(facts.record.self)) {
    return everything("the state directory is not the one that it was");
  }
  if (facts.record.everything) {
    CKPT_PROBE(start_with_everything_on_record);
    return everything("everything was recorded as changed");
  }
  if (!facts.regions_intact) {
    return everything("the region marks are missing or damaged");
  }
  if (facts.record.clean) {
    return decide_clean(facts);
  }
  return facts.record.boot_id == facts.boot_id ? decide_killed(facts) : decide_after_boot(facts);
}

}  // namespace

StartDecision decide_start(const StartFacts& facts) {
  StartDecision decision = decide_source(facts);
  decision.had_clients = may_have_had_clients(facts);
  return decision;
}

}  // namespace ckpt
