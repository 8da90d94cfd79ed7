// SPDX-License-Identifier: Apache-2.0
#include "common/socket_stream.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>

namespace ckpt {
namespace {

iovec vector_of(ConstByteSpan bytes) {
  // sendmsg(2) reads what it is given; the field is not const because recvmsg(2) shares the type.
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

// What is left of both after so many bytes of them.
void advance(ConstByteSpan& head, ConstByteSpan& body, size_t sent) {
  const size_t of_head = std::min(sent, head.size());
  head = head.subspan(of_head);
  body = body.subspan(sent - of_head);
}

}  // namespace

Unexpected SocketStream::failed(const char* act, int number) const {
  return fail(ErrorKind::kUnreachable, peer_ + ": " + act, number);
}

Result<> SocketStream::wait_for(short events) const {
  pollfd waited{socket_.get(), events, 0};
  int ready = 0;
  do {
    ready = ::poll(&waited, 1, static_cast<int>(silence_.count()));
  } while (ready < 0 && errno == EINTR);
  if (ready < 0) {
    return failed("poll", errno);
  }
  return ready > 0 ? Result<>()
                   : failed("nothing was heard of it for so long that it is taken for gone", 0);
}

Result<> SocketStream::read(ByteSpan buffer) {
  while (!buffer.empty()) {
    CKPT_TRY(wait_for(POLLIN));
    const ssize_t count = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count == 0) {
      return failed("it has closed the connection", 0);
    }
    if (count > 0) {
      buffer = buffer.subspan(static_cast<size_t>(count));
    } else if (errno != EAGAIN && errno != EINTR) {
      return failed("receive", errno);
    }
  }
  return {};
}

Result<> SocketStream::write(ConstByteSpan head, ConstByteSpan body) {
  while (!head.empty() || !body.empty()) {
    CKPT_TRY(wait_for(POLLOUT));
    std::array<iovec, 2> parts{vector_of(head), vector_of(body)};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t count = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0) {
      advance(head, body, static_cast<size_t>(count));
    } else if (errno != EAGAIN && errno != EINTR) {
      return failed("send", errno);
    }
  }
  return {};
}

void SocketStream::shut_down() { (void)::shutdown(socket_.get(), SHUT_RDWR); }

}  // namespace ckpt
