// SPDX-License-Identifier: Apache-2.0
// What the tool knows of virtual machines: what QEMU says of them, and what is kept of them.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "golden_file.h"
#include "plugin/listeners.h"
#include "tools/guest_agent.h"
#include "tools/local_socket.h"
#include "tools/program.h"
#include "tools/vm_memory.h"
#include "tools/vm_record.h"
#include "tools/vm_rollback.h"
#include "tools/vm_run.h"
#include "tools/work_folder.h"

namespace ckpt {
namespace {

Uuid uuid_of(const char* text) { return *Uuid::parse(text); }

VmRecord some_vm_record() {
  const Uuid volume = uuid_of("b107b1af-b6a7-4623-bf1f-d19af5ebced4");
  VmRecord record;
  record.group = uuid_of("fbb148db-f9e8-4efc-a484-b78b346207e1");
  record.volumes = {{volume, Epoch{5}, "disk0"},
                    {uuid_of("018f2b5e-1111-4222-8333-944445555666"), Epoch{9}, "disk1"}};
  record.memory = volume;
  record.machine = {"7.2.22", "pc-i440fx-7.2-machine", 268435456,
                    2,        "max-x86_64-cpu",        {"virtio-blk-pci"}};
  record.command = {"qemu-system-x86_64", "-m", "256"};
  record.directory = "/srv/vm";
  return record;
}

TEST(VmRecordText, ComesBackAsItWas) {
  const auto back = decode_vm_record(encode_vm_record(some_vm_record()));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->group, some_vm_record().group);
  EXPECT_EQ(back->volumes, some_vm_record().volumes);
  EXPECT_EQ(back->memory, some_vm_record().memory);
  EXPECT_EQ(back->machine, some_vm_record().machine);
  EXPECT_EQ(back->command, some_vm_record().command);
  EXPECT_EQ(back->directory, "/srv/vm");
}

TEST(VmRecordText, WithoutMemory) {
  VmRecord record = some_vm_record();
  record.memory.reset();
  const auto back = decode_vm_record(encode_vm_record(record));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_FALSE(back->memory);
}

TEST(VmRecordText, IsAsDocumented) {
  const std::string page = test::read_whole(std::string(CKPT_DOCS_DIR) + "/vm-format.md");
  EXPECT_NE(page.find("\n" + encode_vm_record(some_vm_record()) + "\n"), std::string::npos)
      << encode_vm_record(some_vm_record());
}

TEST(VmRecordText, WhatIsNotValidIsRefused) {
  const std::string good = encode_vm_record(some_vm_record());
  const auto without = [&good](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  for (const std::string& text :
       {std::string("{}"), without("\"group\":\"fbb", "\"group\":\"xbb"),
        without("\"checkpoint\":5", "\"checkpoint\":-5"), without("\"cpus\":2", "\"cpus\":\"2\""),
        without("[\"virtio-blk-pci\"]", "[7]"), without("\"directory\"", "\"folder\""),
        without("\"memory\":", "\"recollection\":")}) {
    const auto decoded = decode_vm_record(text);
    ASSERT_FALSE(decoded) << text;
    EXPECT_EQ(decoded.error().kind, ErrorKind::kCorrupt) << text;
  }
  VmRecord none = some_vm_record();
  none.volumes.clear();
  EXPECT_FALSE(decode_vm_record(encode_vm_record(none)));
}

TEST(VmDisks, AreReadAsQemuSaysThem) {
  const auto blocks = ParsedJson::parse(R"([
    {"device":"","qdev":"/machine/peripheral-anon/device[0]/virtio-backend",
     "inserted":{"drv":"nbd","ro":false,"file":"nbd+unix://?socket=/run/a%20b.sock"}},
    {"device":"ide0","inserted":{"drv":"raw","ro":false,"file":"nbd+unix:///name?socket=c.sock"}},
    {"device":"cd0"},
    {"device":"x","inserted":{"drv":"nbd","ro":true,"file":"nbd://host:7000/name"}},
    {"device":"y","inserted":{"drv":"qcow2","ro":false,"file":"/srv/y.qcow2"}},
    {"device":"z","inserted":{"drv":"raw","ro":false,
     "file":"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"server\":{\"type\":\"inet\",\"host\":\"::1\",\"port\":\"7\"}}}"}},
    {"device":"u","inserted":{"drv":"nbd","ro":false,
     "file":"json:{\"driver\":\"nbd\",\"server\":{\"type\":\"unix\",\"path\":\"d.sock\"}}"}},
    7])");
  const auto disks = parse_disks(blocks, "/srv/vm");
  ASSERT_EQ(disks.size(), 6U);
  EXPECT_EQ(disks[0].device, "/machine/peripheral-anon/device[0]/virtio-backend");
  EXPECT_EQ(disks[0].uri, uri_of_path("/run/a b.sock"));
  EXPECT_TRUE(disks[0].writable);
  EXPECT_EQ(disks[1].uri, uri_of_path("/srv/vm/c.sock"));
  EXPECT_EQ(disks[1].driver, "raw");
  EXPECT_EQ(disks[2].uri, "nbd://host:7000");
  EXPECT_FALSE(disks[2].writable);
  EXPECT_EQ(disks[3].uri, "");
  EXPECT_EQ(disks[3].driver, "qcow2");
  EXPECT_EQ(disks[4].uri, "nbd://[::1]:7");
  EXPECT_EQ(disks[5].uri, uri_of_path("/srv/vm/d.sock"));
}

TEST(VmFacts, SayInWhichTheyDiffer) {
  const VmFacts saved = some_vm_record().machine;
  VmFacts now = saved;
  now.qemu = "8.0.0";
  EXPECT_EQ(difference_between(saved, now), "");
  now.memory_bytes *= 2;
  EXPECT_NE(difference_between(saved, now).find("536870912"), std::string::npos);
  now = saved;
  now.cpus = 3;
  EXPECT_NE(difference_between(saved, now), "");
  now = saved;
  now.cpu = "qemu64-x86_64-cpu";
  EXPECT_NE(difference_between(saved, now).find("qemu64"), std::string::npos);
  now = saved;
  now.devices.emplace_back("virtio-net-pci");
  EXPECT_NE(difference_between(saved, now).find("virtio-net-pci"), std::string::npos);
  now = saved;
  now.machine = "pc-q35-7.2-machine";
  EXPECT_NE(difference_between(saved, now).find("q35"), std::string::npos);
}

TEST(WordsOfQemu, HaveNothingOfAnEarlierMemory) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(words_for_new({"qemu", "-S", "-m", "256", "-incoming", "defer", "-qmp", "unix:/run/q",
                           "--loadvm", "x", "-qmp", "unix:/tmp/ckpt-vm.AbCdEf/qmp,server=on",
                           "-daemonize", "-incoming"}),
            (Words{"qemu", "-m", "256", "-qmp", "unix:/run/q"}));
}

TEST(ShellLine, IsReadByAShellAsItWas) {
  const std::vector<std::string> words{"printf", "%s|", "a b", "it's", "", "$HOME", "x=1,y:2"};
  const auto said = output_of({"/bin/sh", "-c", shell_line(words)}, std::chrono::seconds(10));
  ASSERT_TRUE(said) << said.error().message();
  EXPECT_EQ(*said, "a b|it's||$HOME|x=1,y:2|");
}

TEST(MachineOnVolumes, HasWhatTheUserLeavesOut) {
  VolumeStatus first;
  first.uris = {uri_of_path("/run/a,b.sock")};
  VolumeStatus second;
  second.uris = {"nbds://far", "nbd://[::1]:7000"};
  const auto words = words_of_machine({"-m", "2G", "-accel", "tcg"}, {first, second}, "/run/v.qmp");
  ASSERT_TRUE(words) << words.error().message();
  EXPECT_EQ(
      shell_line(*words),
      "qemu-system-x86_64 -m 2G -accel tcg -machine q35 -cpu max "
      "-blockdev driver=nbd,node-name=ckpt0,server.type=unix,server.path=/run/a,,b.sock,"
      "reconnect-delay=30,discard=unmap "
      "-device virtio-blk-pci,drive=ckpt0,discard=on,write-zeroes=on,bootindex=1 "
      "-blockdev driver=nbd,node-name=ckpt1,server.type=inet,server.host=::1,server.port=7000,"
      "reconnect-delay=30,discard=unmap "
      "-device virtio-blk-pci,drive=ckpt1,discard=on,write-zeroes=on,bootindex=2 "
      "-qmp unix:/run/v.qmp,server=on,wait=off");
  const auto other = words_of_machine({"qemu-kvm", "-m", "1G"}, {first}, "/run/v.qmp");
  ASSERT_TRUE(other);
  EXPECT_EQ(other->front(), "qemu-kvm");
  second.uris = {"nbds://far"};
  EXPECT_FALSE(words_of_machine({}, {second}, "/run/v.qmp"));
  EXPECT_FALSE(words_of_machine({}, {first}, std::string(108, 'x')));
}

// QEMU's own tools say the rest: tests/integration/test_vm.py.
TEST(VmMemory, HasTheStreamWhereItsTablesSay) {
  std::string base = testing::TempDir();
  const auto file = VmMemory::make(base);
  ASSERT_TRUE(file) << file.error().message();
  const std::string stream(3U << 20U, 'm');
  ASSERT_TRUE((*file)->begin({}, stream.size()));
  ASSERT_TRUE((*file)->write(0, as_bytes_of(stream)));
  ASSERT_TRUE((*file)->finish());
  ASSERT_TRUE((*file)->rewind());
  std::string back(stream.size(), 0);
  EXPECT_EQ(::read((*file)->fd(), back.data(), back.size()), static_cast<ssize_t>(back.size()));
  EXPECT_EQ(back, stream);
  EXPECT_EQ(vm_memory_bytes(stream.size()), uint64_t{18} << 20U);
  EXPECT_EQ(::lseek((*file)->fd(), 0, SEEK_END), off_t{18} << 20U);
  const auto tables = vm_memory_tables(stream.size());
  EXPECT_EQ(tables.back().bytes.size(), 2 * sizeof(uint64_t)) << "a cluster each";
}

TEST(VmMemory, WhatIsNoMemoryIsRefused) {
  const auto file = VmMemory::make(testing::TempDir());
  ASSERT_TRUE(file);
  EXPECT_FALSE((*file)->begin({}, 0));
  EXPECT_FALSE((*file)->begin({}, kVmMemoryBytesMax + 1));
}

// A monitor that says what it is told to.
class Monitor : public testing::Test {
 protected:
  Monitor() : folder_(*WorkFolder::make(testing::TempDir(), "qmp")) {
    listening_ = *listen_local(path());
  }
  ~Monitor() override {
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  std::string path() { return folder_.path() + "/qmp"; }
  // One answer for each line that comes; ID in it is that of the question.
  void serve(std::string greeting, std::vector<std::string> answers) {
    thread_ = std::thread([this, greeting, answers] {
      const UniqueFd fd(::accept(listening_.get(), nullptr, nullptr));
      say(fd.get(), greeting);
      for (std::string answer : answers) {
        const ParsedJson question = ParsedJson::parse(hear(fd.get()), nullptr, false);
        for (size_t at = answer.find("ID"); at != std::string::npos; at = answer.find("ID")) {
          answer.replace(at, 2, text_in(question, "id"));
        }
        say(fd.get(), answer);
      }
    });
  }
  static void say(int fd, const std::string& text) {
    ASSERT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  static std::string hear(int fd) {
    std::string line;
    char letter = 0;
    while (::recv(fd, &letter, 1, 0) == 1 && letter != '\n') {
      line += letter;
    }
    return line;
  }

  WorkFolder folder_;
  UniqueFd listening_;
  std::thread thread_;
};

constexpr const char* kGreeting = "{\"QMP\":{\"version\":{}}}\r\n";
constexpr const char* kEmpty = "{\"return\":{},\"id\":\"ID\"}\r\n";

TEST_F(Monitor, ThatEndsWithinAnAnswerIsGone) {
  serve(kGreeting, {kEmpty, "{\"event\":\"STOP\"}\r\n{\"return\":{\"status\":\"pau"});
  const auto port = QmpSocket::connect(path());
  ASSERT_TRUE(port) << port.error().message();
  EXPECT_EQ((*port)->pid(), ::getpid());
  const auto refused = (*port)->execute("query-status");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kNotFound);
}

TEST_F(Monitor, RefusesInItsOwnWords) {
  serve(kGreeting,
        {kEmpty,
         "{\"event\":\"X\"}\r\n{\"error\":{\"class\":\"G\",\"desc\":\"no way\"},\"id\":\"ID\"}\r\n",
         "{\"return\":{\"status\":\"paused\"},\"id\":\"ID\"}\r\n"});
  const auto port = QmpSocket::connect(path());
  ASSERT_TRUE(port) << port.error().message();
  const auto refused = (*port)->execute("stop");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kIo);
  EXPECT_NE(refused.error().message().find("no way"), std::string::npos);
  VirtualMachine machine(**port);
  const auto state = machine.state();
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(*state, "paused");
}

// The client before was killed while it waited.
TEST_F(Monitor, MayAnswerSomebodyElseFirst) {
  const std::string stale = "{\"return\":[],\"id\":\"1\"}\r\n{\"return\":[]}\r\n";
  serve(stale + kGreeting,
        {stale + kEmpty, stale + "{\"return\":{\"status\":\"paused\"},\"id\":\"ID\"}\r\n"});
  const auto port = QmpSocket::connect(path());
  ASSERT_TRUE(port) << port.error().message();
  VirtualMachine machine(**port);
  const auto state = machine.state();
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(*state, "paused");
}

TEST_F(Monitor, ThatIsNoneIsSaid) {
  serve("220 mail.example ESMTP\r\n", {});
  const auto port = QmpSocket::connect(path());
  ASSERT_FALSE(port);
  EXPECT_EQ(port.error().kind, ErrorKind::kInvalid);
  EXPECT_NE(port.error().message().find("not QMP"), std::string::npos);
}

TEST_F(Monitor, WithALineWithoutEndIsRefused) {
  thread_ = std::thread([this] {
    const UniqueFd fd(::accept(listening_.get(), nullptr, nullptr));
    const std::string much(1U << 20U, 'x');
    while (::send(fd.get(), much.data(), much.size(), MSG_NOSIGNAL) > 0) {
    }
  });
  const auto port = QmpSocket::connect(path());
  ASSERT_FALSE(port);
  EXPECT_EQ(port.error().kind, ErrorKind::kInvalid);
}

// As one that another client has.
TEST_F(Monitor, ThatDoesNotGreetIsBusy) {
  const auto port = QmpSocket::connect(path());
  ASSERT_FALSE(port);
  EXPECT_EQ(port.error().kind, ErrorKind::kBusy);
}

// An agent behind a channel: answers the synchronization, then says what it is told to.
class AgentChannel : public Monitor {
 protected:
  void serve_agent(const std::string& before, std::vector<std::string> answers) {
    thread_ = std::thread([this, before, answers] {
      const UniqueFd fd(::accept(listening_.get(), nullptr, nullptr));
      const ParsedJson question = ParsedJson::parse(hear(fd.get()).substr(1), nullptr, false);
      const uint64_t id = number_in(question["arguments"], "id");
      say(fd.get(), before + "\xff{\"return\": 1}\n\xff{\"return\": " + std::to_string(id) + "}\n");
      for (const std::string& answer : answers) {
        asked_.push_back(text_in(ParsedJson::parse(hear(fd.get()), nullptr, false), "execute"));
        say(fd.get(), answer);
      }
    });
  }
  std::vector<std::string> asked() {
    thread_.join();
    return asked_;
  }
  std::vector<std::string> asked_;
};

using Asked = std::vector<std::string>;

TEST_F(AgentChannel, FreezesAndThawsOnce) {
  serve_agent("{\"return\": {}}\nhalf of an ans", {"{\"return\": 2}\n", "{\"return\": 2}\n"});
  const auto agent = connect_agent(path());
  ASSERT_TRUE(agent) << agent.error().message();
  {
    const auto frozen = FrozenFileSystems::freeze(**agent);
    ASSERT_TRUE(frozen) << frozen.error().message();
    EXPECT_EQ((*frozen)->count(), 2U);
    EXPECT_TRUE((*frozen)->thaw());
  }
  EXPECT_EQ(asked(), (Asked{"guest-fsfreeze-freeze", "guest-fsfreeze-thaw"}));
}

// It may have frozen some.
TEST_F(AgentChannel, ThawsWhatCouldNotBeFrozen) {
  serve_agent("", {"{\"error\": {\"desc\": \"no such mount\"}}\n", "{\"return\": 0}\n"});
  const auto agent = connect_agent(path());
  ASSERT_TRUE(agent) << agent.error().message();
  const auto frozen = FrozenFileSystems::freeze(**agent);
  ASSERT_FALSE(frozen);
  EXPECT_NE(frozen.error().message().find("no such mount"), std::string::npos);
  EXPECT_EQ(asked(), (Asked{"guest-fsfreeze-freeze", "guest-fsfreeze-thaw"}));
}

TEST_F(AgentChannel, WhatIsNotThawedIsSaid) {
  serve_agent("", {"{\"return\": 1}\n", "{\"error\": {\"desc\": \"busy\"}}\n"});
  const auto agent = connect_agent(path());
  ASSERT_TRUE(agent) << agent.error().message();
  const auto frozen = FrozenFileSystems::freeze(**agent);
  ASSERT_TRUE(frozen);
  const auto thawed = (*frozen)->thaw();
  ASSERT_FALSE(thawed);
  EXPECT_NE(thawed.error().message().find("guest-fsfreeze-thaw"), std::string::npos);
}

TEST(LocalSocket, WithALongPathIsConnectedTo) {
  const auto folder = WorkFolder::make(testing::TempDir(), "long");
  ASSERT_TRUE(folder);
  const auto listening = listen_local(folder->path() + "/s");
  ASSERT_TRUE(listening);
  const std::string place = folder->path() + "/" + std::string(120, 'x');
  std::filesystem::create_directory(place);
  std::filesystem::rename(folder->path() + "/s", place + "/s");
  EXPECT_TRUE(connect_local(place + "/s"));
  EXPECT_EQ(connect_local(place + "/t").error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(listen_local(place + "/u").error().kind, ErrorKind::kInvalid);
}

}  // namespace
}  // namespace ckpt
