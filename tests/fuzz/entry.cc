// SPDX-License-Identifier: Apache-2.0
// For libFuzzer: the target that $CKPT_FUZZ_TARGET names.
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/target.h"

namespace {

const ckpt::fuzz::Target& chosen() {
  const char* const name = std::getenv("CKPT_FUZZ_TARGET");
  const auto* const target = ckpt::fuzz::find_target(name == nullptr ? "" : name);
  if (target == nullptr) {
    std::fputs("CKPT_FUZZ_TARGET must be one of:\n", stderr);
    for (const auto& one : ckpt::fuzz::all_targets()) {
      std::fprintf(stderr, "  %s\n", one.name);
    }
    std::exit(2);
  }
  return *target;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ckpt::fuzz::Target& target = chosen();
  target.run(std::as_bytes(std::span(data, size)));
  return 0;
}
