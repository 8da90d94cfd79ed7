// SPDX-License-Identifier: Apache-2.0
#include "tools/qmp.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "common/clock.h"
#include "common/text.h"
#include "tools/local_socket.h"
#include "tools/program.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kGreetPatience{5};
// A machine that stops flushes its disks first.
constexpr std::chrono::minutes kAnswerPatience{10};
constexpr size_t kLineBytesMax = size_t{16} << 20U;
constexpr size_t kReceiveBytes = 65536;
constexpr const char* kVirshPath = "/usr/local/bin:/usr/bin:/bin";
constexpr size_t kQuotedBytes = 80;

pid_t peer_of(int fd) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.pid : 0;
}

bool is_message(const ParsedJson& object) {
  return object.contains("return") || object.contains("error") || object.contains("event");
}

// A descriptor travels with the first byte (unix(7)).
ssize_t send_with(int socket, std::string_view bytes, int fd) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};  // NOLINT: as sendmsg(2) has it
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  }
  return ::sendmsg(socket, &message, MSG_NOSIGNAL);
}

}  // namespace

Result<std::unique_ptr<QmpSocket>> QmpSocket::connect(const std::string& path) {
  CKPT_ASSIGN(UniqueFd fd, connect_local(path));
  std::unique_ptr<QmpSocket> socket(new QmpSocket(std::move(fd), path));
  socket->pid_ = peer_of(socket->fd_.get());
  CKPT_TRY(socket->greet());
  return socket;
}

// QEMU may have answers left for the client before, which was killed: they are passed over.
Result<> QmpSocket::greet() {
  Result<ParsedJson> greeting = receive(kGreetPatience);
  while (greeting && !greeting->contains("QMP") && is_message(*greeting)) {
    greeting = receive(kGreetPatience);
  }
  if (!greeting && greeting.error().kind == ErrorKind::kTimeout) {
    return fail(ErrorKind::kBusy,
                path_ +
                    ": no greeting within 5 s: it is not QMP, or another client is connected "
                    "(a monitor has one at a time: start QEMU with one more -qmp)");
  }
  if (!greeting || !greeting->contains("QMP")) {
    return greeting ? Result<>(fail(ErrorKind::kInvalid, path_ + " is not QMP"))
                    : Result<>(Unexpected(greeting.error()));
  }
  const auto negotiated = execute("qmp_capabilities");
  return negotiated ? Result<>() : Result<>(Unexpected(negotiated.error()));
}

Result<ParsedJson> QmpSocket::execute(const std::string& command, const Json& arguments, int fd) {
  const std::string id = std::to_string(system_random().next());
  Json request{{"execute", command}, {"id", id}};
  if (!arguments.is_null()) {
    request["arguments"] = arguments;
  }
  CKPT_TRY(send(to_line(request) + "\n", fd));
  for (;;) {
    CKPT_ASSIGN(ParsedJson answer, receive(kAnswerPatience));
    resumed_ += text_in(answer, "event") == "RESUME" ? 1 : 0;
    if (text_in(answer, "id") != id) {
      continue;  // an event, or an answer to somebody else
    }
    if (const auto refused = answer.find("error"); refused != answer.end()) {
      return fail(ErrorKind::kIo, "QEMU, " + command + ": " + printable(text_in(*refused, "desc")));
    }
    if (const auto returned = answer.find("return"); returned != answer.end()) {
      return ParsedJson(std::move(*returned));
    }
  }
}

Result<> QmpSocket::send(const std::string& line, int fd) {
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t count = send_with(fd_.get(), rest, rest.size() == line.size() ? fd : -1);
    if (count < 0 && errno != EINTR) {
      return fail(ErrorKind::kNotFound, path_ + ": QEMU is gone", errno);
    }
    rest.remove_prefix(count > 0 ? static_cast<size_t>(count) : 0);
  }
  return {};
}

Result<ParsedJson> QmpSocket::receive(std::chrono::milliseconds patience) {
  CKPT_ASSIGN(const std::string line, receive_line(patience));
  ParsedJson object = ParsedJson::parse(line, nullptr, false);
  return object.is_object()
             ? Result<ParsedJson>(std::move(object))
             : Result<ParsedJson>(
                   fail(ErrorKind::kInvalid, path_ + " is not QMP: what it says is no JSON"));
}

Result<std::string> QmpSocket::receive_line(std::chrono::milliseconds patience) {
  const SteadyTime deadline = system_clock().steady() + patience;
  for (;;) {
    if (const size_t end = received_.find('\n'); end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      return line;
    }
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - system_clock().steady());
    pollfd entry{fd_.get(), POLLIN, 0};
    if (left.count() <= 0) {
      return fail(ErrorKind::kTimeout, path_ + ": QEMU does not answer");
    }
    if (::poll(&entry, 1, static_cast<int>(left.count())) <= 0) {
      continue;
    }
    std::array<char, kReceiveBytes> buffer;
    const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (count == 0 || (count < 0 && errno != EINTR)) {
      return fail(ErrorKind::kNotFound, path_ + ": QEMU is gone", count < 0 ? errno : 0);
    }
    received_.append(buffer.data(), static_cast<size_t>(std::max<ssize_t>(count, 0)));
    if (received_.size() > kLineBytesMax) {
      return fail(ErrorKind::kInvalid, path_ + " is not QMP: its line does not end");
    }
  }
}

Result<std::unique_ptr<QmpDomain>> QmpDomain::connect(const std::string& domain) {
  std::string virsh = find_program("virsh", kVirshPath);
  if (virsh.empty()) {
    return fail(ErrorKind::kNotFound, "virsh is not installed (package libvirt-clients)");
  }
  std::unique_ptr<QmpDomain> port(new QmpDomain(std::move(virsh), domain));
  const auto answers = port->execute("query-status");
  return answers ? Result<std::unique_ptr<QmpDomain>>(std::move(port))
                 : Result<std::unique_ptr<QmpDomain>>(
                       fail(ErrorKind::kNotFound, answers.error().message()));
}

// virsh says what QEMU says, and its exit status tells only whether it was asked.
Result<ParsedJson> QmpDomain::execute(const std::string& command, const Json& arguments, int fd) {
  Json request{{"execute", command}};
  if (!arguments.is_null()) {
    request["arguments"] = arguments;
  }
  std::vector<std::string> words{virsh_, "--quiet", "qemu-monitor-command", "--domain", domain_};
  if (fd >= 0) {
    words.insert(words.end(), {"--pass-fds", std::to_string(fd)});
  }
  words.insert(words.end(), {"--cmd", to_line(request)});
  const auto said = output_of(words, kAnswerPatience, fd);
  if (!said) {
    return fail(ErrorKind::kNotFound,
                "domain " + domain_ + ": virsh qemu-monitor-command: " + said.error().message());
  }
  ParsedJson answer = ParsedJson::parse(*said, nullptr, false);
  if (answer.is_object() && answer.contains("return")) {
    return ParsedJson(std::move(answer["return"]));
  }
  const auto refused = answer.is_object() ? answer.find("error") : answer.end();
  const std::string why = answer.is_object() && refused != answer.end()
                              ? text_in(*refused, "desc")
                              : "virsh says " + said->substr(0, kQuotedBytes);
  return fail(ErrorKind::kIo, "QEMU, " + command + ": " + printable(why));
}

std::string text_in(const ParsedJson& object, const char* name) {
  const auto field = object.is_object() ? object.find(name) : object.end();
  return object.is_object() && field != object.end() && field->is_string()
             ? field->get<std::string>()
             : std::string();
}

uint64_t number_in(const ParsedJson& object, const char* name) {
  const auto field = object.is_object() ? object.find(name) : object.end();
  return object.is_object() && field != object.end() && field->is_number_unsigned()
             ? field->get<uint64_t>()
             : 0;
}

bool flag_in(const ParsedJson& object, const char* name) {
  const auto field = object.is_object() ? object.find(name) : object.end();
  return object.is_object() && field != object.end() && field->is_boolean() && field->get<bool>();
}

}  // namespace ckpt
