// SPDX-License-Identifier: Apache-2.0
// A stack and the registers to go on with on it: what a fiber runs in. On x86-64 a switch is eleven
// instructions; elsewhere it is ucontext's, which costs two system calls.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#if !defined(__x86_64__) || defined(CKPT_SIM_UCONTEXT)
#define CKPT_SIM_USES_UCONTEXT 1
#include <ucontext.h>
#endif

namespace ckpt::sim {

// 256 KiB of stack with a page below that faults. The pages are touched as they are needed.
class Stack {
 public:
  static constexpr size_t kBytes = size_t{256} * 1024;
  Stack();
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  [[nodiscard]] std::byte* bottom() const { return bottom_; }
  [[nodiscard]] std::byte* top() const { return bottom_ + kBytes; }

 private:
  std::byte* mapping_;
  std::byte* bottom_;
};

// Stacks that are kept for reuse: mapping one costs more than most fibers.
std::unique_ptr<Stack> take_stack();
void give_back(std::unique_ptr<Stack> stack);

// Where a thread of control stands, while it is not running. With it goes what the C++ runtime keeps per
// thread about exceptions in flight, so that a switch may happen in the middle of an unwinding.
class Context {
 public:
  using Entry = void (*)(void* argument);

  // One that will call entry(argument) on the stack; entry must never return.
  void prepare(Stack& stack, Entry entry, void* argument);
  // Leaves this context and goes on with the other. Returns when somebody switches back.
  void switch_to(Context& other);
  // The same, never to come back.
  [[noreturn]] void leave_to(Context& other);
  // To be called first on a new stack.
  void entered();

 private:
  struct ExceptionState {
    void* caught = nullptr;
    unsigned int uncaught = 0;
  };

  void jump(Context& other, bool for_good);

#ifdef CKPT_SIM_USES_UCONTEXT
  ucontext_t registers_{};
#else
  void* stack_pointer_ = nullptr;
#endif
  ExceptionState exceptions_;
  [[maybe_unused]] void* fake_stack_ = nullptr;  // these three: AddressSanitizer's
  const void* sanitized_bottom_ = nullptr;
  size_t sanitized_bytes_ = 0;
};

}  // namespace ckpt::sim
