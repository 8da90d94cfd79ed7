// SPDX-License-Identifier: Apache-2.0
#include "tools/guest_agent.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "common/clock.h"
#include "common/text.h"
#include "tools/local_socket.h"
#include "tools/program.h"
#include "tools/qmp.h"

namespace ckpt {
namespace {

constexpr const char* kVirshPath = "/usr/local/bin:/usr/bin:/bin";
constexpr std::chrono::seconds kSyncPatience{5};
// What is cached is written first.
constexpr std::chrono::minutes kAnswerPatience{2};
constexpr char kDelimiter = '\xff';  // no part of any text: what was before it is nobody's
constexpr size_t kAnswerBytesMax = size_t{1} << 20U;
constexpr uint64_t kIdMax = uint64_t{1} << 31U;

Result<ParsedJson> read_answer(const std::string& text, const std::string& command) {
  ParsedJson answer = ParsedJson::parse(text, nullptr, false);
  if (answer.is_object() && answer.contains("return")) {
    return ParsedJson(std::move(answer["return"]));
  }
  const auto refused = answer.is_object() ? answer.find("error") : answer.end();
  const bool has_reason = answer.is_object() && refused != answer.end();
  return fail(ErrorKind::kIo,
              "the guest's agent, " + command + ": " +
                  (has_reason ? printable(text_in(*refused, "desc")) : "no answer of an agent"));
}

class AgentSocket final : public GuestAgent {
 public:
  AgentSocket(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  // A client before this one may have left half of a question, and answers.
  Result<> synchronize() {
    const uint64_t id = system_random().next() % kIdMax;
    const Json request{{"execute", "guest-sync-delimited"}, {"arguments", {{"id", id}}}};
    const SteadyTime deadline = system_clock().steady() + kSyncPatience;
    CKPT_TRY(send(std::string(1, kDelimiter) + to_line(request) + "\n"));
    for (;;) {
      CKPT_TRY(skip_to_delimiter(deadline));
      CKPT_ASSIGN(const std::string line, receive_line(deadline));
      const ParsedJson answer = ParsedJson::parse(line, nullptr, false);
      if (answer.is_object() && number_in(answer, "return") == id) {
        return {};
      }
    }
  }

  Result<ParsedJson> execute(const std::string& command) override {
    CKPT_TRY(send(to_line(Json{{"execute", command}}) + "\n"));
    CKPT_ASSIGN(const std::string line, receive_line(system_clock().steady() + kAnswerPatience));
    return read_answer(line, command);
  }

 private:
  Result<> send(const std::string& text) {
    const ssize_t count = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
    return count == static_cast<ssize_t>(text.size())
               ? Result<>()
               : Result<>(fail(ErrorKind::kIo, path_ + ": the guest's agent takes nothing"));
  }

  Result<> skip_to_delimiter(SteadyTime deadline) {
    for (;;) {
      if (const size_t at = received_.find(kDelimiter); at != std::string::npos) {
        received_.erase(0, at + 1);
        return {};
      }
      received_.clear();
      CKPT_TRY(receive(deadline));
    }
  }

  Result<std::string> receive_line(SteadyTime deadline) {
    for (;;) {
      if (const size_t end = received_.find('\n'); end != std::string::npos) {
        std::string line = received_.substr(0, end);
        received_.erase(0, end + 1);
        return line;
      }
      CKPT_TRY(receive(deadline));
    }
  }

  Result<> receive(SteadyTime deadline) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - system_clock().steady());
    pollfd entry{fd_.get(), POLLIN, 0};
    if (left.count() <= 0) {
      return fail(ErrorKind::kTimeout, path_ + ": no agent in the guest answers");
    }
    if (::poll(&entry, 1, static_cast<int>(left.count())) <= 0) {
      return {};
    }
    std::array<char, 4096> buffer;
    const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (count == 0 || (count < 0 && errno != EINTR)) {
      return fail(ErrorKind::kIo, path_ + ": the guest's agent is gone");
    }
    received_.append(buffer.data(), count > 0 ? static_cast<size_t>(count) : 0);
    return received_.size() <= kAnswerBytesMax
               ? Result<>()
               : Result<>(fail(ErrorKind::kIo, path_ + ": no answer of an agent"));
  }

  UniqueFd fd_;
  const std::string path_;
  std::string received_;
};

class AgentOfDomain final : public GuestAgent {
 public:
  AgentOfDomain(std::string virsh, std::string domain)
      : virsh_(std::move(virsh)), domain_(std::move(domain)) {}

  Result<ParsedJson> execute(const std::string& command) override {
    const auto said = output_of({virsh_, "--quiet", "qemu-agent-command", "--domain", domain_,
                                 "--cmd", to_line(Json{{"execute", command}})},
                                kAnswerPatience);
    return said ? read_answer(*said, command)
                : within("domain " + domain_ + ": virsh qemu-agent-command", said.error());
  }

 private:
  const std::string virsh_;
  const std::string domain_;
};

}  // namespace

Result<std::unique_ptr<GuestAgent>> connect_agent(const std::string& path) {
  CKPT_ASSIGN(UniqueFd fd, connect_local(path));
  auto agent = std::make_unique<AgentSocket>(std::move(fd), path);
  if (const auto answers = agent->synchronize(); !answers) {
    return fail(ErrorKind::kNotFound, answers.error().message());
  }
  return std::unique_ptr<GuestAgent>(std::move(agent));
}

Result<std::unique_ptr<GuestAgent>> connect_agent_of_domain(const std::string& domain) {
  std::string virsh = find_program("virsh", kVirshPath);
  if (virsh.empty()) {
    return fail(ErrorKind::kNotFound, "virsh is not installed (package libvirt-clients)");
  }
  std::unique_ptr<GuestAgent> agent = std::make_unique<AgentOfDomain>(std::move(virsh), domain);
  const auto answers = agent->execute("guest-ping");
  return answers ? Result<std::unique_ptr<GuestAgent>>(std::move(agent))
                 : Result<std::unique_ptr<GuestAgent>>(
                       fail(ErrorKind::kNotFound, answers.error().message()));
}

Result<std::unique_ptr<FrozenFileSystems>> FrozenFileSystems::freeze(GuestAgent& agent) {
  const auto frozen = agent.execute("guest-fsfreeze-freeze");
  // Also where it failed: it may have frozen some.
  std::unique_ptr<FrozenFileSystems> all(new FrozenFileSystems(
      agent, frozen && frozen->is_number_unsigned() ? frozen->get<uint64_t>() : 0));
  if (!frozen) {
    return Unexpected(frozen.error());
  }
  return all;
}

Result<> FrozenFileSystems::thaw() {
  if (is_over_) {
    return {};
  }
  is_over_ = true;
  const auto thawed = agent_.execute("guest-fsfreeze-thaw");
  return thawed ? Result<>()
                : Result<>(fail(thawed.error().kind,
                                thawed.error().message() +
                                    ". The guest's file systems may still stand still: "
                                    "guest-fsfreeze-thaw, or fsfreeze --unfreeze in the guest"));
}

}  // namespace ckpt
