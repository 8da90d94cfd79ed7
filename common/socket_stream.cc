// SPDX-License-Identifier: Apache-2.0
#include "common/socket_stream.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
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

// No longer than until then.
std::chrono::milliseconds shorter(std::chrono::milliseconds time, SteadyTime deadline) {
  if (deadline == SteadyTime::max()) {
    return time;
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(
      std::max(SteadyTime{0}, deadline - system_clock().steady()));
  return std::min(time, left);
}

}  // namespace

Result<> SocketStream::shake_hands(const std::string&) { return {}; }

Unexpected SocketStream::failed(const std::string& act, int number) const {
  return fail(ErrorKind::kUnreachable, peer_ + ": " + act, number);
}

bool SocketStream::is_ready(short events, std::chrono::milliseconds time) const {
  pollfd waited{socket_.get(), events, 0};
  int ready = 0;
  do {
    ready = ::poll(&waited, 1, static_cast<int>(time.count()));
  } while (ready < 0 && errno == EINTR);
  return ready != 0;  // an error shows at the call that follows
}

int SocketStream::unsent_bytes() const {
  int bytes = 0;
  return ::ioctl(socket_.get(), TIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

int SocketStream::unread_bytes() const {
  int bytes = 0;
  return ::ioctl(socket_.get(), FIONREAD, &bytes) == 0 ? bytes : 0;
}

// Who waits for room hears of the other side by what it takes, over a slow link long before there
// is room for more, and by what it says meanwhile.
Result<> SocketStream::wait_for(short events, SteadyTime deadline) const {
  int unsent = unsent_bytes();
  int unread = unread_bytes();
  while (!is_ready(events, shorter(silence_, deadline))) {
    if (system_clock().steady() >= deadline) {
      return failed("it takes what it is sent too slowly, and is given up", 0);
    }
    const int now_unsent = unsent_bytes();
    const int now_unread = unread_bytes();
    if (events != POLLOUT || (now_unsent >= unsent && now_unread <= unread)) {
      return failed("nothing was heard of it for so long that it is taken for gone", 0);
    }
    unsent = now_unsent;
    unread = now_unread;
  }
  return {};
}

SteadyTime SocketStream::write_deadline() const {
  return write_limit_.count() == 0 ? SteadyTime::max() : system_clock().steady() + write_limit_;
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
  const SteadyTime deadline = write_deadline();
  while (!head.empty() || !body.empty()) {
    CKPT_TRY(wait_for(POLLOUT, deadline));
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

bool SocketStream::can_write() const {
  pollfd asked{socket_.get(), POLLOUT, 0};
  return ::poll(&asked, 1, 0) > 0 && (asked.revents & POLLOUT) != 0;
}

bool SocketStream::is_over() const {
  pollfd asked{socket_.get(), POLLRDHUP, 0};
  return ::poll(&asked, 1, 0) > 0;
}

void SocketStream::stop_reading() { (void)shutdown(socket_.get(), SHUT_RD); }

void SocketStream::shut_down() { (void)::shutdown(socket_.get(), SHUT_RDWR); }

}  // namespace ckpt
