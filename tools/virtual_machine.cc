// SPDX-License-Identifier: Apache-2.0
#include "tools/virtual_machine.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "common/clock.h"
#include "common/text.h"
#include "plugin/listeners.h"
#include "tools/attached_disk.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDescriptor = "ckpt-memory";
constexpr const char* kNode = "ckpt-memory";
constexpr const char* kAgentPort = "org.qemu.guest_agent.0";
constexpr const char* kMark = "ckpt-half-way";  // an object, since a machine keeps no notes
constexpr const char* kBackground = "background-snapshot";
constexpr uint64_t kDescriptorsMin = 1'000'000'000;  // a set's number is a 32-bit one in places
constexpr const char* kJob = "ckpt-memory";
constexpr std::chrono::milliseconds kShortLook{1};
constexpr std::chrono::milliseconds kLongLook{10};
constexpr std::chrono::seconds kShortLooks{1};
constexpr std::chrono::minutes kReceivePatience{30};
constexpr std::chrono::minutes kLeftPatience{1};
// What is saved goes into a file of this machine: as fast as that takes it.
constexpr uint64_t kBandwidth = uint64_t{1} << 40U;
constexpr uint64_t kBandwidthOfQemu = uint64_t{128} << 20U;  // its default

std::string lines_of(const std::vector<std::string>& texts) {
  std::string line;
  for (const std::string& text : texts) {
    line += (line.empty() ? "" : ", ") + text;
  }
  return line;
}

// First often, so that the moment is known; then not, so that a long one costs nothing.
void pause_between_looks(SteadyTime began) {
  std::this_thread::sleep_for(system_clock().steady() - began < kShortLooks ? kShortLook
                                                                            : kLongLook);
}

// QEMU's own notation of what has no URI: the innermost object that has a server.
const ParsedJson* find_server(const ParsedJson& object) {
  if (!object.is_object()) {
    return nullptr;
  }
  if (const auto server = object.find("server"); server != object.end()) {
    return &*server;
  }
  for (const auto& inner : object) {
    if (const ParsedJson* found = find_server(inner)) {
      return found;
    }
  }
  return nullptr;
}

std::string uri_of_socket(const std::string& path, const std::string& directory) {
  return uri_of_path((fs::path(directory) / path).lexically_normal().string());
}

std::string uri_of_host(const std::string& host, const std::string& port) {
  const bool is_ipv6 = host.find(':') != std::string::npos && !host.starts_with('[');
  return "nbd://" + (is_ipv6 ? "[" + host + "]" : host) + ":" + port;
}

// What QEMU calls an image: nbd+unix://?socket=PATH, nbd+unix:///NAME?socket=PATH,
// nbd://HOST:PORT/NAME, or json:{…}.
std::string uri_of_file(const std::string& name, const std::string& directory) {
  constexpr std::string_view kJson = "json:";
  constexpr std::string_view kTcp = "nbd://";
  if (name.starts_with(kJson)) {
    const ParsedJson object = ParsedJson::parse(name.substr(kJson.size()), nullptr, false);
    const ParsedJson* const server = find_server(object);
    if (server == nullptr) {
      return "";
    }
    const std::string path = text_in(*server, "path");
    return path.empty() ? uri_of_host(text_in(*server, "host"), text_in(*server, "port"))
                        : uri_of_socket(path, directory);
  }
  if (const size_t socket = name.find("socket=");
      name.starts_with("nbd+unix:") && socket != std::string::npos) {
    const std::string rest = name.substr(socket + std::string_view("socket=").size());
    return uri_of_socket(percent_decode(rest.substr(0, rest.find('&'))), directory);
  }
  return name.starts_with(kTcp) ? name.substr(0, name.find('/', kTcp.size())) : "";
}

std::string process_folder(pid_t pid) { return "/proc/" + std::to_string(pid); }

}  // namespace

std::string difference_between(const VmFacts& saved, const VmFacts& now) {
  if (saved.machine != now.machine) {
    return "it was a " + saved.machine + ", and this is a " + now.machine;
  }
  if (saved.memory_bytes != now.memory_bytes) {
    return "it had " + std::to_string(saved.memory_bytes) + " bytes of memory, and this has " +
           std::to_string(now.memory_bytes);
  }
  if (saved.cpus != now.cpus) {
    return "it had " + std::to_string(saved.cpus) + " processors, and this has " +
           std::to_string(now.cpus);
  }
  if (saved.cpu != now.cpu) {
    return "its processors were " + saved.cpu + ", and here they are " + now.cpu;
  }
  return saved.devices == now.devices ? ""
                                      : "its devices were " + lines_of(saved.devices) +
                                            ", and here they are " + lines_of(now.devices);
}

std::vector<VmDisk> parse_disks(const ParsedJson& blocks, const std::string& directory) {
  std::vector<VmDisk> disks;
  for (const ParsedJson& block : blocks) {
    const auto inserted = block.is_object() ? block.find("inserted") : block.end();
    if (!block.is_object() || inserted == block.end()) {
      continue;
    }
    const std::string device = text_in(block, "device");
    const std::string place = text_in(block, "qdev");
    disks.push_back({device.empty() ? place : device, text_in(*inserted, "drv"),
                     uri_of_file(text_in(*inserted, "file"), directory),
                     !flag_in(*inserted, "ro")});
  }
  return disks;
}

std::vector<std::string> words_for_new(const std::vector<std::string>& words) {
  std::vector<std::string> kept;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string option = words[i].starts_with("--") ? words[i].substr(1) : words[i];
    const bool has_value = i + 1 < words.size();
    const bool is_ours =
        option == "-qmp" && has_value &&
        words[i + 1].find(std::string("/") + kMonitorFolder + ".") != std::string::npos;
    if (option == "-S" || option == "-daemonize") {
      continue;
    }
    if (option == "-incoming" || option == "-loadvm" || is_ours) {
      ++i;
      continue;
    }
    kept.push_back(words[i]);
  }
  return kept;
}

Result<std::string> VirtualMachine::state() {
  CKPT_ASSIGN(const ParsedJson said, port_.execute("query-status"));
  return text_in(said, "status");
}

Result<> VirtualMachine::stop() {
  CKPT_TRY(port_.execute("stop"));
  resumed_ = port_.resumed();
  return {};
}

Result<> VirtualMachine::check_stands_still() {
  CKPT_ASSIGN(const std::string now, state());
  return now != "running" && port_.resumed() == resumed_
             ? Result<>()
             : Result<>(fail(ErrorKind::kBusy,
                             "the machine was told to go on by somebody else meanwhile"));
}

Result<> VirtualMachine::take_over() {
  CKPT_ASSIGN(const std::string now, state());
  if (now == "inmigrate") {
    return fail(ErrorKind::kBusy, "the machine waits for its memory (-incoming): it is none yet");
  }
  if (now == "suspended") {
    return fail(ErrorKind::kBusy, "the machine sleeps (suspended), and may wake at any moment");
  }
  CKPT_TRY(clear_away());
  CKPT_ASSIGN(const ParsedJson said, port_.execute("query-migrate"));
  const std::string status = text_in(said, "status");
  const bool is_idle = status.empty() || status == "none" || status == "completed" ||
                       status == "failed" || status == "cancelled";
  return is_idle ? Result<>()
                 : Result<>(fail(ErrorKind::kBusy,
                                 "the machine is being migrated (" + printable(status) + ")"));
}

Result<> VirtualMachine::mark() {
  CKPT_ASSIGN(const bool is_there, is_marked());
  const auto marked =
      is_there ? Result<ParsedJson>(ParsedJson())
               : port_.execute("object-add",
                               {{"qom-type", "secret"}, {"id", kMark}, {"data", "half-way"}});
  return marked ? Result<>() : Result<>(Unexpected(marked.error()));
}

Result<> VirtualMachine::unmark() {
  const auto done = port_.execute("object-del", {{"id", kMark}});
  return done ? Result<>() : Result<>(Unexpected(done.error()));
}

Result<bool> VirtualMachine::is_marked() {
  CKPT_ASSIGN(const ParsedJson objects, port_.execute("qom-list", {{"path", "/objects"}}));
  return std::ranges::any_of(objects,
                             [](const ParsedJson& one) { return text_in(one, "name") == kMark; });
}

Result<> VirtualMachine::go_on() {
  const auto done = port_.execute("cont");
  return done ? Result<>() : Result<>(Unexpected(done.error()));
}

Result<> VirtualMachine::reset() {
  const auto done = port_.execute("system_reset");
  return done ? Result<>() : Result<>(Unexpected(done.error()));
}

Result<VmFacts> VirtualMachine::facts() {
  VmFacts facts;
  CKPT_ASSIGN(const ParsedJson version, port_.execute("query-version"));
  if (const auto qemu = version.find("qemu"); qemu != version.end()) {
    facts.qemu = std::to_string(number_in(*qemu, "major")) + "." +
                 std::to_string(number_in(*qemu, "minor")) + "." +
                 std::to_string(number_in(*qemu, "micro"));
  }
  CKPT_ASSIGN(const ParsedJson machine,
              port_.execute("qom-get", {{"path", "/machine"}, {"property", "type"}}));
  facts.machine = machine.is_string() ? machine.get<std::string>() : "";
  CKPT_ASSIGN(const ParsedJson memory, port_.execute("query-memory-size-summary"));
  facts.memory_bytes = number_in(memory, "base-memory") + number_in(memory, "plugged-memory");
  CKPT_ASSIGN(const ParsedJson cpus, port_.execute("query-cpus-fast"));
  facts.cpus = cpus.size();
  facts.cpu = cpus.empty() ? "" : text_in(cpus.front(), "qom-type");
  for (const char* folder : {"/machine/peripheral", "/machine/peripheral-anon"}) {
    CKPT_ASSIGN(const ParsedJson children, port_.execute("qom-list", {{"path", folder}}));
    for (const ParsedJson& child : children) {
      const std::string type = text_in(child, "type");  // "child<virtio-blk-pci>"
      if (type.starts_with("child<") && type.ends_with('>')) {
        facts.devices.push_back(type.substr(6, type.size() - 7));
      }
    }
  }
  std::ranges::sort(facts.devices);
  return facts;
}

Result<std::string> VirtualMachine::agent_socket() {
  for (const std::string folder : {"/machine/peripheral", "/machine/peripheral-anon"}) {
    CKPT_ASSIGN(const ParsedJson children, port_.execute("qom-list", {{"path", folder}}));
    for (const ParsedJson& child : children) {
      if (text_in(child, "type") != "child<virtserialport>") {
        continue;
      }
      const std::string path = folder + "/" + text_in(child, "name");
      CKPT_ASSIGN(const ParsedJson name,
                  port_.execute("qom-get", {{"path", path}, {"property", "name"}}));
      CKPT_ASSIGN(const ParsedJson device,
                  port_.execute("qom-get", {{"path", path}, {"property", "chardev"}}));
      if (name == kAgentPort && device.is_string()) {
        return socket_of_device(device.get<std::string>());
      }
    }
  }
  return std::string();
}

// "unix:/run/agent,server=on", or the same after "disconnected:".
Result<std::string> VirtualMachine::socket_of_device(const std::string& label) {
  CKPT_ASSIGN(const ParsedJson devices, port_.execute("query-chardev"));
  for (const ParsedJson& device : devices) {
    const std::string place = text_in(device, "filename");
    const size_t scheme = place.find("unix:");
    if (text_in(device, "label") == label && scheme != std::string::npos) {
      const std::string path = place.substr(scheme + std::string_view("unix:").size());
      return (fs::path(directory()) / path.substr(0, path.find(','))).string();
    }
  }
  return std::string();
}

Result<std::vector<VmDisk>> VirtualMachine::disks() {
  CKPT_ASSIGN(const ParsedJson blocks, port_.execute("query-block"));
  return parse_disks(blocks, directory());
}

std::vector<std::string> VirtualMachine::command() const {
  return port_.pid() > 0 ? words_for_new(words_of_process(process_folder(port_.pid())))
                         : std::vector<std::string>();
}

std::string VirtualMachine::directory() const {
  std::error_code unknown;
  const fs::path folder = port_.pid() > 0
                              ? fs::read_symlink(process_folder(port_.pid()) + "/cwd", unknown)
                              : fs::path();
  return unknown ? "" : folder.string();
}

Result<> VirtualMachine::set_background(bool on) {
  const Json one{{"capability", kBackground}, {"state", on}};
  const auto done =
      port_.execute("migrate-set-capabilities", {{"capabilities", Json::array({one})}});
  return done ? Result<>() : Result<>(Unexpected(done.error()));
}

Result<> VirtualMachine::check_background() {
  const auto can = set_background(true);
  if (!can && can.error().kind != ErrorKind::kIo) {
    return can;
  }
  return can ? set_background(false)
             : fail(ErrorKind::kInvalid, can.error().context +
                                             ": the memory cannot be saved while the machine runs; "
                                             "--mode snapshot does it while it stands still");
}

Result<> VirtualMachine::prepare_background(int fd) {
  CKPT_ASSIGN(const ParsedJson parameters, port_.execute("query-migrate-parameters"));
  bandwidth_ = number_in(parameters, "max-bandwidth");
  if (*bandwidth_ == kBandwidth) {  // left by a tool that was killed
    bandwidth_ = kBandwidthOfQemu;
  }
  CKPT_TRY(set_background(true));
  CKPT_TRY(port_.execute("migrate-set-parameters", {{"max-bandwidth", kBandwidth}}));
  CKPT_TRY(port_.execute("getfd", {{"fdname", kDescriptor}}, fd));
  return {};
}

Result<> VirtualMachine::save_in_background(const std::function<void()>& on_running,
                                            SteadyTime deadline) {
  CKPT_TRY(check_stands_still());
  CKPT_TRY(port_.execute("migrate", {{"uri", std::string("fd:") + kDescriptor}}));
  if (const auto saved = await_saved(on_running, deadline); !saved) {
    return explain_failed(saved.error());
  }
  // QEMU itself has let it go on, once.
  const auto resumed = port_.resumed();
  return !resumed || *resumed <= *resumed_ + 1
             ? Result<>()
             : Result<>(fail(ErrorKind::kVoid,
                             "the machine was told to go on by somebody else meanwhile"));
}

// QEMU before 8.1 does not let go of a memory whose saving has failed: what writes to it waits for
// ever, and it can not be saved in the background again, by which it is known here.
Unexpected VirtualMachine::explain_failed(const Error& error) {
  const auto off = set_background(false);
  const auto again = off ? set_background(true) : off;
  return error.kind != ErrorKind::kVoid || again || again.error().kind != ErrorKind::kIo
             ? Unexpected(error)
             : fail(ErrorKind::kVoid,
                    error.message() +
                        ". QEMU holds the machine's memory for good, and it may hang: end it, and "
                        "roll back with --fresh");
}

void VirtualMachine::end_background() {
  if (bandwidth_) {
    (void)port_.execute("closefd", {{"fdname", kDescriptor}});  // a migration has its own
    (void)set_background(false);
    (void)port_.execute("migrate-set-parameters", {{"max-bandwidth", *bandwidth_}});
    bandwidth_.reset();
  }
}

Result<> VirtualMachine::await_saved(const std::function<void()>& on_running, SteadyTime deadline) {
  const SteadyTime began = system_clock().steady();
  bool runs = false;
  for (;;) {
    CKPT_ASSIGN(const std::string now, state());
    if (!runs && now == "running") {
      runs = true;
      on_running();
    }
    CKPT_ASSIGN(const ParsedJson said, port_.execute("query-migrate"));
    const std::string status = text_in(said, "status");
    if (status == "completed") {
      return {};
    }
    if (status == "failed" || status == "cancelled" || status == "none" || status.empty()) {
      return fail(ErrorKind::kVoid, "QEMU has not saved the memory: " +
                                        printable(status + " " + text_in(said, "error-desc")));
    }
    if (system_clock().steady() >= deadline) {
      return fail(ErrorKind::kVoid, "QEMU has not saved the memory in time, and still does");
    }
    pause_between_looks(began);
  }
}

Result<> VirtualMachine::save(int side_image) {
  CKPT_TRY(check_stands_still());
  CKPT_TRY(run_with_node("snapshot-save", side_image));
  return check_stands_still();
}

Result<> VirtualMachine::load(int image) {
  CKPT_TRY(check_stands_still());
  CKPT_TRY(run_with_node("snapshot-load", image));
  return check_stands_still();
}

// An image by its descriptor, as a block node for as long as a job works on it.
Result<> VirtualMachine::run_with_node(const std::string& command, int image) {
  uint64_t descriptors = 0;
  Result<> done = add_node(image, descriptors);
  if (done) {
    done = run_job(command);
    (void)port_.execute("blockdev-del", {{"node-name", kNode}});
  }
  (void)port_.execute("remove-fd", {{"fdset-id", descriptors}});
  return done;
}

Result<> VirtualMachine::add_node(int image, uint64_t& descriptors) {
  // A set of its own: others count from 0, and one that was removed may still be there.
  descriptors = kDescriptorsMin + system_random().next() % kDescriptorsMin;
  CKPT_TRY(port_.execute("add-fd", {{"fdset-id", descriptors}}, image));
  const Json no_flush{{"no-flush", true}};  // nothing of it need survive
  Json file{{"driver", "file"},
            {"filename", "/dev/fdset/" + std::to_string(descriptors)},
            {"cache", no_flush}};
  const auto added = port_.execute(
      "blockdev-add",
      {{"driver", "qcow2"}, {"node-name", kNode}, {"cache", no_flush}, {"file", std::move(file)}});
  return added ? Result<>() : Result<>(Unexpected(added.error()));
}

// Returns when it has ended, and is forgotten.
Result<> VirtualMachine::run_job(const std::string& command) {
  const auto begun = port_.execute(command, {{"job-id", kJob},
                                             {"tag", kMemorySnapshot},
                                             {"vmstate", kNode},
                                             {"devices", Json::array({kNode})}});
  CKPT_TRY(begun);
  const SteadyTime began = system_clock().steady();
  for (;;) {
    ParsedJson job;
    const auto is_there = has_job(job);
    if (!is_there && is_there.error().kind == ErrorKind::kTimeout) {
      continue;  // it answers nobody while it works
    }
    CKPT_TRY(is_there);
    if (!*is_there) {
      return fail(ErrorKind::kIo, "QEMU, " + command + ": it has forgotten it");
    }
    if (text_in(job, "status") == "concluded") {
      (void)port_.execute("job-dismiss", {{"id", kJob}});
      const std::string error = text_in(job, "error");
      return error.empty() ? Result<>()
                           : fail(ErrorKind::kIo, "QEMU, " + command + ": " + printable(error));
    }
    pause_between_looks(began);
  }
}

Result<bool> VirtualMachine::has_job(ParsedJson& job) {
  CKPT_ASSIGN(const ParsedJson jobs, port_.execute("query-jobs"));
  const auto found =
      std::ranges::find_if(jobs, [](const ParsedJson& one) { return text_in(one, "id") == kJob; });
  if (found != jobs.end()) {
    job = *found;
  }
  return found != jobs.end();
}

// What a tool that was killed has left behind; its job is waited for.
Result<> VirtualMachine::clear_away() {
  const SteadyTime began = system_clock().steady();
  for (;;) {
    ParsedJson job;
    CKPT_ASSIGN(const bool is_there, has_job(job));
    if (!is_there) {
      break;
    }
    if (text_in(job, "status") == "concluded") {
      (void)port_.execute("job-dismiss", {{"id", kJob}});
    }
    pause_between_looks(began);
  }
  (void)port_.execute("blockdev-del", {{"node-name", kNode}});
  return await_background();
}

// It is waited for, and not cancelled: QEMU 7.2 does not let go of a memory whose saving was
// cancelled, and can never save it again. It goes into a file, so that it ends. A migration that is
// none of this tool's stays.
Result<> VirtualMachine::await_background() {
  CKPT_ASSIGN(const ParsedJson capabilities, port_.execute("query-migrate-capabilities"));
  const bool is_ours = std::ranges::any_of(capabilities, [](const ParsedJson& one) {
    return text_in(one, "capability") == kBackground && flag_in(one, "state");
  });
  const SteadyTime began = system_clock().steady();
  while (is_ours) {
    CKPT_ASSIGN(const ParsedJson said, port_.execute("query-migrate"));
    const std::string status = text_in(said, "status");
    if (status != "setup" && status != "active" && status != "cancelling") {
      return set_background(false);  // on, it would spoil every other way of saving
    }
    if (system_clock().steady() - began > kLeftPatience) {
      return fail(ErrorKind::kBusy, "QEMU still saves the memory for a command that was ended");
    }
    pause_between_looks(began);
  }
  return {};
}

Result<> VirtualMachine::receive(int fd) {
  CKPT_TRY(port_.execute("getfd", {{"fdname", kDescriptor}}, fd));
  CKPT_TRY(port_.execute("migrate-incoming", {{"uri", std::string("fd:") + kDescriptor}}));
  const SteadyTime began = system_clock().steady();
  while (system_clock().steady() - began < kReceivePatience) {
    CKPT_ASSIGN(const std::string now, state());
    if (now != "inmigrate") {
      return {};
    }
    pause_between_looks(began);
  }
  return fail(ErrorKind::kTimeout, "QEMU does not load the memory within 30 min");
}

}  // namespace ckpt
