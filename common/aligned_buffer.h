// SPDX-License-Identifier: Apache-2.0
// Memory that direct I/O can use as it is.
#pragma once

#include <memory>
#include <new>

#include "common/block.h"
#include "common/bytes.h"

namespace ckpt {

// Where every buffer of direct I/O may begin: no device asks for more (open(2), O_DIRECT).
inline constexpr size_t kBufferAlignment = kBlockBytes;

// So many bytes from such an address on. Not cleared: pages that nobody touches are never backed.
class AlignedBuffer {
 public:
  explicit AlignedBuffer(size_t bytes)
      : bytes_(bytes),
        memory_(
            static_cast<std::byte*>(::operator new[](bytes, std::align_val_t(kBufferAlignment)))) {}

  [[nodiscard]] ByteSpan span() const { return {memory_.get(), bytes_}; }
  [[nodiscard]] std::byte* data() const { return memory_.get(); }

 private:
  struct Release {
    void operator()(std::byte* memory) const {
      ::operator delete[](memory, std::align_val_t(kBufferAlignment));
    }
  };

  size_t bytes_;
  std::unique_ptr<std::byte[], Release> memory_;
};

}  // namespace ckpt
