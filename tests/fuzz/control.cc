// SPDX-License-Identifier: Apache-2.0
// docs/control-protocol.md, docs/events-format.md
#include "plugin/control_codec.h"
#include "plugin/event_file.h"
#include "tests/fuzz/target.h"

namespace ckpt::fuzz {
namespace {

// A request that is understood says the same when it is written and read again.
void run_request(ConstByteSpan input) {
  expect_same_meaning(text_of(input), decode_request, encode_request);
}

void run_answer(ConstByteSpan input) {
  const auto answer = decode_answer(text_of(input));
  if (answer && std::holds_alternative<ParsedJson>(*answer)) {
    const auto& object = std::get<ParsedJson>(*answer);
    (void)decode_checkpoints(object);
    (void)decode_checkpoint_outcome(object);
    (void)decode_rollback_outcome(object);
    (void)decode_verify_outcome(object);
    (void)decode_volume_status(object);
  }
}

void run_piece_line(ConstByteSpan input) { (void)decode_piece_line(text_of(input)); }

void run_event(ConstByteSpan input) { (void)decode_event(text_of(input)); }

}  // namespace

std::vector<Target> control_targets() {
  return {{"request", run_request},
          {"answer", run_answer},
          {"piece-line", run_piece_line},
          {"event", run_event}};
}

}  // namespace ckpt::fuzz
