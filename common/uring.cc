// SPDX-License-Identifier: Apache-2.0
#include "common/uring.h"

#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

namespace ckpt {
namespace {

constexpr unsigned kRingDepth = 64;

std::atomic<bool> rings_enabled{false};

class Ring {
 public:
  Ring() {
    // One thread submits and waits: the kernel can complete in that thread's own context (6.1).
    error_ = io_uring_queue_init(kRingDepth, &ring_,
                                 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    if (error_ == -EINVAL) {
      error_ = io_uring_queue_init(kRingDepth, &ring_, 0);
    }
  }
  ~Ring() {
    if (error_ == 0) {
      io_uring_queue_exit(&ring_);
    }
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  [[nodiscard]] int error() const { return -error_; }
  Result<> transfer(int fd, TransferKind kind, std::span<const Transfer> transfers);

 private:
  void submit(int fd, TransferKind kind, std::span<const Transfer> transfers);

  io_uring ring_{};
  int error_ = 0;
};

Ring& this_threads_ring() {
  thread_local Ring ring;
  return ring;
}

void Ring::submit(int fd, TransferKind kind, std::span<const Transfer> transfers) {
  for (size_t i = 0; i < transfers.size(); ++i) {
    const Transfer& transfer = transfers[i];
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    CKPT_CHECK(sqe != nullptr);
    const auto length = static_cast<unsigned>(transfer.buffer.size());
    if (kind == TransferKind::kRead) {
      io_uring_prep_read(sqe, fd, transfer.buffer.data(), length, transfer.offset);
    } else {
      io_uring_prep_write(sqe, fd, transfer.buffer.data(), length, transfer.offset);
    }
    io_uring_sqe_set_data64(sqe, i);
  }
}

// What a completion left undone, or its error: EAGAIN and EINTR mean that nothing was done.
Result<> finish(int fd, TransferKind kind, const Transfer& transfer, int result) {
  if (result < 0 && result != -EAGAIN && result != -EINTR) {
    return fail_errno(-result, "io_uring");
  }
  const auto done = static_cast<size_t>(std::max(result, 0));
  if (done == transfer.buffer.size()) {
    return {};
  }
  return plain_transfer(fd, kind, {transfer.offset + done, transfer.buffer.subspan(done)});
}

Result<> Ring::transfer(int fd, TransferKind kind, std::span<const Transfer> transfers) {
  submit(fd, kind, transfers);
  Result<> outcome;
  size_t completed = 0;
  while (completed < transfers.size()) {
    const int submitted =
        io_uring_submit_and_wait(&ring_, static_cast<unsigned>(transfers.size() - completed));
    // Buffers of transfers in flight belong to the kernel: leaving is only possible when none is.
    CKPT_CHECK(submitted >= 0 || submitted == -EINTR || submitted == -EAGAIN ||
               submitted == -EBUSY);
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      const Transfer& transfer = transfers[io_uring_cqe_get_data64(cqe)];
      auto finished = finish(fd, kind, transfer, cqe->res);
      if (!finished && outcome) {
        outcome = Unexpected(finished.error());
      }
      io_uring_cqe_seen(&ring_, cqe);
      ++completed;
    }
  }
  return outcome;
}

}  // namespace

void uring_enable() { rings_enabled.store(true); }

Result<> uring_available() {
  if (const int number = this_threads_ring().error(); number != 0) {
    return fail_errno(number, "io_uring_setup");
  }
  return {};
}

Result<> uring_transfer(int fd, TransferKind kind, std::span<const Transfer> transfers) {
  Result<> outcome;
  // Without a ring, for limits that only some threads meet, the same is done one after the other.
  if (!rings_enabled.load() || this_threads_ring().error() != 0) {
    for (size_t i = 0; i < transfers.size() && outcome; ++i) {
      outcome = plain_transfer(fd, kind, transfers[i]);
    }
    return outcome;
  }
  for (size_t at = 0; at < transfers.size(); at += kRingDepth) {
    const auto part = transfers.subspan(at, std::min<size_t>(kRingDepth, transfers.size() - at));
    if (auto done = this_threads_ring().transfer(fd, kind, part); !done && outcome) {
      outcome = Unexpected(done.error());
    }
  }
  return outcome;
}

Result<> plain_transfer(int fd, TransferKind kind, const Transfer& transfer) {
  ByteSpan rest = transfer.buffer;
  uint64_t offset = transfer.offset;
  while (!rest.empty()) {
    const ssize_t done = kind == TransferKind::kRead
                             ? pread(fd, rest.data(), rest.size(), static_cast<off_t>(offset))
                             : pwrite(fd, rest.data(), rest.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      return fail_errno(done < 0 ? errno : EIO, kind == TransferKind::kRead ? "pread" : "pwrite");
    }
    rest = rest.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
  return {};
}

}  // namespace ckpt
