// SPDX-License-Identifier: Apache-2.0
#include "common/relay_codec.h"

#include "common/text.h"

namespace ckpt {
namespace {

constexpr size_t kRelayTextBytesMax = 1024;

bool is_short(const RelayState& relay) {
  return relay.address.size() <= kRelayTextBytesMax && relay.error.size() <= kRelayTextBytesMax;
}

}  // namespace

void put_relays(Encoder& encoder, const std::vector<RelayState>& relays) {
  for (const RelayState& relay : relays) {
    encoder.put(relay.passed.value_or(Epoch{}).value);
    encoder.put_string(shortened(relay.address, kRelayTextBytesMax));
    encoder.put_string(shortened(relay.error, kRelayTextBytesMax));
  }
}

Result<std::vector<RelayState>> get_relays(Decoder& decoder, uint64_t count) {
  std::vector<RelayState> relays;
  bool fits = count <= kRelaysMax;
  for (uint64_t i = 0; fits && i < count; ++i) {
    RelayState& relay = relays.emplace_back();
    if (const auto passed = decoder.get<uint64_t>(); passed != 0) {
      relay.passed = Epoch{passed};
    }
    relay.address = decoder.get_string();
    relay.error = decoder.get_string();
    fits = decoder.ok() && is_short(relay);
  }
  return fits ? Result<std::vector<RelayState>>(std::move(relays))
              : fail(ErrorKind::kCorrupt, "store status: its relays are not valid");
}

}  // namespace ckpt
