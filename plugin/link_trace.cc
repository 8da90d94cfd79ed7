// SPDX-License-Identifier: Apache-2.0
#include "plugin/link_trace.h"

namespace ckpt {
namespace {

std::string number_of(const std::optional<CheckpointInfo>& checkpoint) {
  return checkpoint ? std::to_string(checkpoint->id.number.value) : "none";
}

std::string described(const BatchHeader& header) {
  return "epoch " + std::to_string(header.epoch.value) + ", batch " +
         std::to_string(header.sequence) + ": " + std::to_string(header.extent_count) +
         " extents, " + std::to_string(header.data_bytes) + " bytes, stored as " +
         std::to_string(header.stored_bytes);
}

}  // namespace

template <typename Call>
auto LinkTrace::timed(const TraceLine& line, const std::string& what, const Call& call)
    -> decltype(call()) {
  const SteadyTime began = clock_.steady();
  auto outcome = call();
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(clock_.steady() - began);
  if (line != nullptr) {
    line(what + ", in " + std::to_string(took.count()) + " us" +
         (outcome ? "" : ": " + outcome.error().message()));
  }
  return outcome;
}

Result<StoreGreeting> LinkTrace::begin_session() {
  auto greeting = timed(options_.store, "session", [&] { return link_.begin_session(); });
  if (greeting && options_.store != nullptr) {
    options_.store("the store has checkpoint " + number_of(greeting->last));
  }
  return greeting;
}

Result<> LinkTrace::accept(uint64_t incarnation) {
  return timed(options_.store, "accept incarnation " + std::to_string(incarnation),
               [&] { return link_.accept(incarnation); });
}

Result<> LinkTrace::receive(const EncodedBatch& batch) {
  return timed(options_.ship, described(batch.header), [&] { return link_.receive(batch); });
}

Result<> LinkTrace::confirm(const Confirmation& confirmation) {
  return timed(options_.store,
               "confirm " + std::to_string(confirmation.checkpoint.id.number.value) + ", " +
                   std::to_string(confirmation.covered.size()) + " epochs covered",
               [&] { return link_.confirm(confirmation); });
}

Result<> LinkTrace::roll_back(const CheckpointId& from, const Uuid& to) {
  return timed(options_.store,
               "roll back to " + std::to_string(from.number.value) + ", timeline " + to.to_string(),
               [&] { return link_.roll_back(from, to); });
}

Result<> LinkTrace::export_checkpoint(std::optional<Epoch> number, ExportSink& sink) {
  return timed(options_.store, "export " + (number ? std::to_string(number->value) : "the last"),
               [&] { return link_.export_checkpoint(number, sink); });
}

Result<> LinkTrace::read_confirmed(uint64_t offset, ByteSpan buffer) {
  return link_.read_confirmed(offset, buffer);
}

Result<std::optional<ByteRange>> LinkTrace::next_confirmed_data(uint64_t offset) {
  return link_.next_confirmed_data(offset);
}

Result<std::vector<CheckpointInfo>> LinkTrace::checkpoints() { return link_.checkpoints(); }

StoreStatus LinkTrace::status() { return link_.status(); }

}  // namespace ckpt
