// SPDX-License-Identifier: Apache-2.0
#include <libnbd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <vector>

#include "common/clock.h"
#include "tools/destination.h"

namespace ckpt {
namespace {

// Requests in flight: what a server with 16 threads keeps busy.
constexpr size_t kSlots = 16;
// A server that says nothing for so long is taken for gone; while it flushes, which may have to
// write all that its page cache took, for so long.
constexpr std::chrono::seconds kSilence{60};
constexpr std::chrono::seconds kFlushTime{600};
constexpr nbd_completion_callback kNoCallback{};         // libnbd's own macro is no C++
constexpr uint64_t kZeroBytesMax = uint64_t{16} << 20U;  // small enough for one that writes them

struct CloseHandle {
  void operator()(nbd_handle* handle) const { nbd_close(handle); }
};

// Asynchronous throughout, so that a server that hangs is noticed: libnbd(3), "ISSUING ASYNCHRONOUS
// COMMANDS".
class NbdDestination : public Destination {
 public:
  explicit NbdDestination(std::string uri) : uri_(std::move(uri)) {}

  Result<> begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) override;
  Result<> write(uint64_t offset, ConstByteSpan data) override;
  Result<> zero(ByteRange range) override {
    holes_.push_back(range);
    return {};
  }
  Result<> finish() override;
  [[nodiscard]] std::string description() const override;
  Result<> connect();

 private:
  struct Slot {
    int64_t cookie = 0;  // 0: free
    std::vector<std::byte> data;
  };

  [[nodiscard]] Unexpected failed(const std::string& act) const;
  Result<> zero_hole(ByteRange range);
  Result<> zero_part(ByteRange range);
  // Blocks until one is free.
  Result<Slot*> free_slot();
  Result<> issue(Slot& slot, int64_t cookie, const std::string& act);
  // Frees the slots of what has ended; how many.
  Result<size_t> reap();
  // Reaps; where nothing has ended, waits for the server, until the deadline.
  Result<size_t> reap_or_wait(const SteadyTime& deadline);
  Result<> wait_for_event(const SteadyTime& deadline);
  Result<> wait_for_all(std::chrono::seconds silence);
  [[nodiscard]] bool has_in_flight() const;

  const std::string uri_;
  std::unique_ptr<nbd_handle, CloseHandle> handle_;
  bool can_zero_ = false;
  std::vector<ByteRange> holes_;  // zeroed at the end, when nobody waits for what that takes
  std::array<Slot, kSlots> slots_;
};

Unexpected NbdDestination::failed(const std::string& act) const {
  const int number = nbd_get_errno();
  const char* const text = nbd_get_error();
  const ErrorKind kind = number == ENOSPC ? ErrorKind::kNoSpace : ErrorKind::kIo;
  return fail(kind, uri_ + ": " + act + ": " + (text == nullptr ? "failed" : text));
}

Result<> NbdDestination::connect() {
  handle_.reset(nbd_create());
  if (!handle_) {
    return failed("create");
  }
  if (nbd_set_full_info(handle_.get(), true) == -1 ||
      nbd_aio_connect_uri(handle_.get(), uri_.c_str()) == -1) {
    return failed("connect");
  }
  const SteadyTime deadline = system_clock().steady() + kSilence;
  while (nbd_aio_is_connecting(handle_.get()) > 0) {
    CKPT_TRY(wait_for_event(deadline));
  }
  return nbd_aio_is_ready(handle_.get()) > 0 ? Result<>() : failed("connect");
}

std::string NbdDestination::description() const {
  const std::unique_ptr<char, decltype(&std::free)> text(nbd_get_export_description(handle_.get()),
                                                         &std::free);
  return text ? text.get() : "";
}

Result<> NbdDestination::begin(const CheckpointInfo& /*checkpoint*/, uint64_t size_bytes) {
  const int64_t export_bytes = nbd_get_size(handle_.get());
  if (export_bytes < 0) {
    return failed("size");
  }
  if (nbd_is_read_only(handle_.get()) != 0) {
    return fail(ErrorKind::kInvalid, uri_ + " is read-only: nothing can be exported to it");
  }
  if (static_cast<uint64_t>(export_bytes) < size_bytes) {
    return fail(ErrorKind::kNoSpace, uri_ + " has " + std::to_string(export_bytes) +
                                         " bytes, and the disk " + std::to_string(size_bytes));
  }
  can_zero_ = nbd_can_zero(handle_.get()) > 0;
  return {};
}

Result<> NbdDestination::write(uint64_t offset, ConstByteSpan data) {
  CKPT_ASSIGN(Slot* const slot, free_slot());
  slot->data.assign(data.begin(), data.end());
  return issue(
      *slot,
      nbd_aio_pwrite(handle_.get(), slot->data.data(), slot->data.size(), offset, kNoCallback, 0),
      "write");
}

Result<> NbdDestination::zero_hole(ByteRange range) {
  const uint64_t part_bytes = can_zero_ ? kZeroBytesMax : kPieceBytes;
  while (range.length > 0) {
    const ByteRange part{range.offset, std::min(range.length, part_bytes)};
    CKPT_TRY(zero_part(part));
    range = {part.end(), range.length - part.length};
  }
  return {};
}

Result<> NbdDestination::zero_part(ByteRange range) {
  if (!can_zero_) {
    return write(range.offset, std::vector<std::byte>(range.length));
  }
  CKPT_ASSIGN(Slot* const slot, free_slot());
  return issue(*slot, nbd_aio_zero(handle_.get(), range.length, range.offset, kNoCallback, 0),
               "zero");
}

Result<NbdDestination::Slot*> NbdDestination::free_slot() {
  const SteadyTime deadline = system_clock().steady() + kSilence;
  auto free = std::ranges::find(slots_, 0, &Slot::cookie);
  while (free == slots_.end()) {
    CKPT_TRY(reap_or_wait(deadline));
    free = std::ranges::find(slots_, 0, &Slot::cookie);
  }
  return &*free;
}

Result<> NbdDestination::issue(Slot& slot, int64_t cookie, const std::string& act) {
  if (cookie == -1) {
    return failed(act);
  }
  slot.cookie = cookie;
  return {};
}

Result<size_t> NbdDestination::reap() {
  size_t ended_count = 0;
  for (Slot& slot : slots_) {
    const int ended = slot.cookie == 0 ? 0
                                       : nbd_aio_command_completed(
                                             handle_.get(), static_cast<uint64_t>(slot.cookie));
    if (ended == -1) {
      return failed("request");
    }
    slot.cookie = ended == 1 ? 0 : slot.cookie;
    ended_count += ended == 1 ? 1 : 0;
  }
  return ended_count;
}

Result<size_t> NbdDestination::reap_or_wait(const SteadyTime& deadline) {
  CKPT_ASSIGN(const size_t ended, reap());
  if (ended == 0) {
    CKPT_TRY(wait_for_event(deadline));
  }
  return ended;
}

Result<> NbdDestination::wait_for_event(const SteadyTime& deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - system_clock().steady());
  if (left.count() <= 0) {
    return fail(ErrorKind::kTimeout, uri_ +
                                         ": the server has said nothing for so long "
                                         "that it is taken for gone");
  }
  return nbd_poll(handle_.get(), static_cast<int>(left.count())) == -1 ? failed("wait")
                                                                       : Result<>();
}

bool NbdDestination::has_in_flight() const {
  return std::ranges::any_of(slots_, [](const Slot& slot) { return slot.cookie != 0; });
}

// Each answer shows that the server lives.
Result<> NbdDestination::wait_for_all(std::chrono::seconds silence) {
  SteadyTime deadline = system_clock().steady() + silence;
  while (has_in_flight()) {
    CKPT_ASSIGN(const size_t ended, reap_or_wait(deadline));
    deadline = ended > 0 ? system_clock().steady() + silence : deadline;
  }
  return {};
}

// A server without flush keeps nothing back (NBD proto.md, SEND_FLUSH).
Result<> NbdDestination::finish() {
  for (const ByteRange& hole : holes_) {
    CKPT_TRY(zero_hole(hole));
  }
  CKPT_TRY(wait_for_all(kSilence));
  if (nbd_can_flush(handle_.get()) > 0) {
    CKPT_ASSIGN(Slot* const slot, free_slot());
    CKPT_TRY(issue(*slot, nbd_aio_flush(handle_.get(), kNoCallback, 0), "flush"));
    CKPT_TRY(wait_for_all(kFlushTime));
  }
  // All is durable: a server that does not take leave politely changes nothing.
  (void)nbd_aio_disconnect(handle_.get(), 0);
  return {};
}

}  // namespace

Result<std::unique_ptr<Destination>> open_nbd_destination(const std::string& uri) {
  auto destination = std::make_unique<NbdDestination>(uri);
  CKPT_TRY(destination->connect());
  return std::unique_ptr<Destination>(std::move(destination));
}

}  // namespace ckpt
