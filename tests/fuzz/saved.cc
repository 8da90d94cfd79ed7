// SPDX-License-Identifier: Apache-2.0
// docs/process-format.md, docs/vm-format.md, QEMU's docs/interop/qmp-spec.txt and qcow2.txt
#include <unistd.h>

#include "tests/fuzz/target.h"
#include "tools/guest_agent.h"
#include "tools/process_record.h"
#include "tools/virtual_machine.h"
#include "tools/vm_memory.h"
#include "tools/vm_record.h"

namespace ckpt::fuzz {
namespace {

// A machine whose answers are the lines of an input, one after the other.
class AnsweringPort final : public QmpPort {
 public:
  explicit AnsweringPort(std::string lines) : lines_(std::move(lines)) {}

  Result<ParsedJson> execute(const std::string& /*command*/, const Json& /*arguments*/,
                             int /*fd*/) override {
    if (lines_.empty()) {
      return fail(ErrorKind::kNotFound, "QEMU is gone");
    }
    const size_t end = std::min(lines_.find('\n'), lines_.size());
    const auto answer = ParsedJson::parse(lines_.substr(0, end), nullptr, false);
    lines_.erase(0, end + 1);
    return answer.is_discarded() ? Result<ParsedJson>(fail(ErrorKind::kIo, "refused")) : answer;
  }
  [[nodiscard]] pid_t pid() const override { return 0; }

 private:
  std::string lines_;
};

void run_process_record(ConstByteSpan input) {
  expect_same_meaning(text_of(input), decode_process_record, encode_process_record);
}

void run_vm_record(ConstByteSpan input) {
  expect_same_meaning(text_of(input), decode_vm_record, encode_vm_record);
}

void run_machine(ConstByteSpan input) {
  AnsweringPort port(text_of(input));
  VirtualMachine machine(port);
  (void)machine.disks();
  (void)machine.facts();
  (void)machine.agent_socket();
  (void)machine.state();
}

// A qcow2 image as QEMU leaves it, from whose snapshot the memory is read.
void run_side_image(ConstByteSpan input) {
  auto image = VmSideImage::make("/tmp");
  CKPT_CHECK(image.has_value());
  CKPT_CHECK(ftruncate((*image)->fd(), 0) == 0);
  CKPT_CHECK(pwrite((*image)->fd(), input.data(), input.size(), 0) ==
             static_cast<ssize_t>(input.size()));
  if (const auto bytes = (*image)->find_stream()) {
    CKPT_CHECK(*bytes <= kVmMemoryBytesMax);
    std::vector<std::byte> buffer(std::min<uint64_t>(*bytes, 4096));
    (void)(*image)->read(0, buffer);
    (void)(*image)->read(*bytes - buffer.size(), buffer);
  }
}

}  // namespace

std::vector<Target> saved_targets() {
  return {{"process-record", run_process_record},
          {"vm-record", run_vm_record},
          {"machine", run_machine},
          {"side-image", run_side_image}};
}

}  // namespace ckpt::fuzz
