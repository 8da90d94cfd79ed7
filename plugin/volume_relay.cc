// SPDX-License-Identifier: Apache-2.0
// A checkpoint that counts when a third machine has it, too.
#include <algorithm>

#include "plugin/volume.h"

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kRelayLook{20};
constexpr std::chrono::milliseconds kAfterError{500};

std::string what_is_wrong(const StoreStatus& status) {
  for (const RelayState& relay : status.relays) {
    if (!relay.error.empty()) {
      return ": " + relay.address + ": " + relay.error;
    }
  }
  return "";
}

}  // namespace

// It exists from before this on: whatever happens here, a rollback goes there.
Result<CheckpointOutcome> Volume::await_relay(CheckpointOutcome made, SteadyTime until) {
  const Epoch number = made.checkpoint.id.number;
  const std::string exists =
      "checkpoint " + std::to_string(number.value) + " exists at the back-up, ";
  const SteadyTime begin = surroundings_.clock.steady();
  std::string why;
  Waker pause;
  for (SteadyTime now = begin; now < until && !stopping_.load();
       now = surroundings_.clock.steady()) {
    const auto status = store_.ask();
    if (status && status->relays.empty()) {
      return fail(ErrorKind::kHalfway, exists +
                                           "which passes nothing on: give it a [[relay]] "
                                           "(backupd(8)), or leave out confirm=relayed");
    }
    if (status && std::ranges::any_of(status->relays, [number](const RelayState& relay) {
          return relay.passed && *relay.passed >= number;
        })) {
      made.confirm += surroundings_.clock.steady() - begin;
      return made;
    }
    if (!status && status.error().kind == ErrorKind::kDenied) {
      return fail(ErrorKind::kHalfway,
                  exists +
                      "and who is not allowed its status cannot say whether a further store has "
                      "it: " +
                      status.error().message());
    }
    why = status ? what_is_wrong(*status) : ": " + status.error().message();
    pause.wait(status ? kRelayLook : kAfterError);
  }
  return fail(ErrorKind::kTimeout, exists + "and no further store has it yet" + why);
}

}  // namespace ckpt
