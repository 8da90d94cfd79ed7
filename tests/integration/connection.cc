// SPDX-License-Identifier: Apache-2.0
// A thin layer over libnbd's asynchronous calls.

#include "tests/integration/connection.h"

#include <algorithm>

namespace ckpt {

namespace {

constexpr size_t kReadBytes = size_t{4} << 20;

int on_completed(void* listener, int* error) {
  static_cast<Connection::Listener*>(listener)->completed(*error);
  return 1;  // retire the request
}

nbd_completion_callback callback_to(Connection::Listener& listener) {
  return {.callback = on_completed, .user_data = &listener, .free = nullptr};
}

}  // namespace

std::unique_ptr<Connection> Connection::open(const std::string& uri) {
  nbd_handle* handle = nbd_create();
  if (handle == nullptr) return nullptr;
  std::unique_ptr<Connection> connection(new Connection(handle));
  if (nbd_connect_uri(handle, uri.c_str()) == -1) return nullptr;
  return connection;
}

std::string Connection::last_error() {
  const char* error = nbd_get_error();
  return error == nullptr ? "no error" : error;
}

Connection::~Connection() {
  if (alive()) nbd_shutdown(handle_, 0);
  nbd_close(handle_);
}

uint64_t Connection::size_bytes() const {
  const int64_t size = nbd_get_size(handle_);
  return size < 0 ? 0 : static_cast<uint64_t>(size);
}

bool Connection::alive() const {
  return nbd_aio_is_ready(handle_) == 1 || nbd_aio_is_processing(handle_) == 1;
}

bool Connection::read_all(std::span<uint8_t> out) {
  for (size_t at = 0; at < out.size(); at += kReadBytes) {
    const size_t part = std::min(kReadBytes, out.size() - at);
    if (nbd_pread(handle_, out.data() + at, part, at, 0) == -1) return false;
  }
  return true;
}

bool Connection::send(const Operation& operation, std::span<const uint8_t> data, uint32_t flags,
                      Listener& listener) {
  const auto done = callback_to(listener);
  switch (operation.kind) {
    case OperationKind::kWrite:
      return nbd_aio_pwrite(handle_, data.data(), data.size(), operation.offset, done, flags) != -1;
    case OperationKind::kZero:
      return nbd_aio_zero(handle_, operation.length, operation.offset, done, flags) != -1;
    case OperationKind::kTrim:
      return nbd_aio_trim(handle_, operation.length, operation.offset, done, flags) != -1;
  }
  return false;
}

bool Connection::send_flush(Listener& listener) {
  return nbd_aio_flush(handle_, callback_to(listener), 0) != -1;
}

bool Connection::pump(int timeout_ms) { return nbd_poll(handle_, timeout_ms) != -1 && alive(); }

}  // namespace ckpt
