// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/context.h"

#include <cxxabi.h>
#include <sys/mman.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>

#include "common/result.h"

#if defined(__SANITIZE_ADDRESS__)
#define CKPT_SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CKPT_SIM_ASAN 1
#endif
#endif
#ifdef CKPT_SIM_ASAN
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#endif

#ifndef CKPT_SIM_USES_UCONTEXT
extern "C" void ckpt_sim_switch(void** from, void* to);
extern "C" void ckpt_sim_start();
// System V ABI for x86-64, 3.2.1: these are the registers that a called function must keep. A new context
// finds its entry in r12 and the argument in r13.
asm(R"(
.text
.globl ckpt_sim_switch
.hidden ckpt_sim_switch
.type ckpt_sim_switch,@function
ckpt_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size ckpt_sim_switch,.-ckpt_sim_switch
.globl ckpt_sim_start
.hidden ckpt_sim_start
.type ckpt_sim_start,@function
ckpt_sim_start:
  movq %r13, %rdi
  callq *%r12
  ud2
.size ckpt_sim_start,.-ckpt_sim_start
)");
#endif

namespace ckpt::sim {
namespace {

constexpr size_t kGuardBytes = 4096;

std::vector<std::unique_ptr<Stack>>& spare_stacks() {
  static std::vector<std::unique_ptr<Stack>> stacks;
  return stacks;
}

#ifdef CKPT_SIM_ASAN
// The stack that the program's own thread runs on.
std::pair<const void*, size_t> thread_stack() {
  pthread_attr_t attributes;
  void* bottom = nullptr;
  size_t bytes = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &bytes);
  pthread_attr_destroy(&attributes);
  return {bottom, bytes};
}
#endif

#ifdef CKPT_SIM_USES_UCONTEXT
// makecontext(3) passes ints only: a pointer goes in two halves.
template <typename Pointer>
Pointer join(unsigned int high, unsigned int low) {
  return reinterpret_cast<Pointer>((uint64_t{high} << 32U) | low);
}

void start_ucontext(unsigned int entry_high, unsigned int entry_low, unsigned int argument_high,
                    unsigned int argument_low) {
  join<Context::Entry>(entry_high, entry_low)(join<void*>(argument_high, argument_low));
}
#endif

}  // namespace

Stack::Stack() {
  void* mapping = mmap(nullptr, kGuardBytes + kBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CKPT_CHECK(mapping != MAP_FAILED);
  mapping_ = static_cast<std::byte*>(mapping);
  bottom_ = mapping_ + kGuardBytes;
  CKPT_CHECK(mprotect(mapping_, kGuardBytes, PROT_NONE) == 0);
}

Stack::~Stack() { munmap(mapping_, kGuardBytes + kBytes); }

std::unique_ptr<Stack> take_stack() {
  if (spare_stacks().empty()) {
    return std::make_unique<Stack>();
  }
  std::unique_ptr<Stack> stack = std::move(spare_stacks().back());
  spare_stacks().pop_back();
  return stack;
}

void give_back(std::unique_ptr<Stack> stack) { spare_stacks().push_back(std::move(stack)); }

void Context::prepare(Stack& stack, Entry entry, void* argument) {
  sanitized_bottom_ = stack.bottom();
  sanitized_bytes_ = Stack::kBytes;
#ifdef CKPT_SIM_ASAN
  // The frames that its last user never returned from.
  __asan_unpoison_memory_region(stack.bottom(), Stack::kBytes);
#endif
#ifdef CKPT_SIM_USES_UCONTEXT
  const auto entry_bits = reinterpret_cast<uint64_t>(entry);
  const auto argument_bits = reinterpret_cast<uint64_t>(argument);
  getcontext(&registers_);
  registers_.uc_stack.ss_sp = stack.bottom();
  registers_.uc_stack.ss_size = Stack::kBytes;
  registers_.uc_link = nullptr;
  makecontext(&registers_, reinterpret_cast<void (*)()>(start_ucontext), 4,
              static_cast<unsigned int>(entry_bits >> 32U), static_cast<unsigned int>(entry_bits),
              static_cast<unsigned int>(argument_bits >> 32U),
              static_cast<unsigned int>(argument_bits));
#else
  // As ckpt_sim_switch leaves it: r15, r14, r13, r12, rbx, rbp and the return address. The two words above
  // keep the stack aligned to 16 at the call (ABI, 3.2.2) and end a debugger's walk.
  const std::array<void*, 9> frame{nullptr, nullptr, argument, reinterpret_cast<void*>(entry),
                                   nullptr, nullptr, reinterpret_cast<void*>(ckpt_sim_start),
                                   nullptr, nullptr};
  std::byte* const pointer = stack.top() - sizeof(frame);
  std::memcpy(pointer, frame.data(), sizeof(frame));
  stack_pointer_ = pointer;
#endif
}

void Context::switch_to(Context& other) { jump(other, false); }

void Context::leave_to(Context& other) {
  jump(other, true);
  std::abort();
}

void Context::jump(Context& other, [[maybe_unused]] bool for_good) {
  void* const globals = abi::__cxa_get_globals();
  std::memcpy(&exceptions_, globals, sizeof(exceptions_));
  std::memcpy(globals, &other.exceptions_, sizeof(exceptions_));
#ifdef CKPT_SIM_ASAN
  if (sanitized_bottom_ == nullptr) {
    std::tie(sanitized_bottom_, sanitized_bytes_) = thread_stack();
  }
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_, other.sanitized_bottom_,
                                 other.sanitized_bytes_);
#endif
#ifdef CKPT_SIM_USES_UCONTEXT
  swapcontext(&registers_, &other.registers_);
#else
  ckpt_sim_switch(&stack_pointer_, other.stack_pointer_);
#endif
#ifdef CKPT_SIM_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
}

void Context::entered() {
#ifdef CKPT_SIM_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

}  // namespace ckpt::sim
