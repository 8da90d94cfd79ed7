// SPDX-License-Identifier: Apache-2.0
// Events: what the page of their format shows, what a file that nobody vouches for may hold, and
// when checkpoints are due.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "common/fd.h"
#include "plugin/control_codec.h"
#include "plugin/event_file.h"
#include "plugin/event_log.h"
#include "plugin/schedule.h"
#include "tests/unit/golden_file.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

// One of each kind, as docs/events-format.md shows them.
std::vector<Event> samples() {
  std::vector<Event> events;
  events.push_back({.kind = EventKind::kStart});
  events.push_back({.kind = EventKind::kStore,
                    .state = "failed",
                    .text = "fallocate store/journal/7: No space left on device"});
  events.push_back({.kind = EventKind::kCheckpoint,
                    .checkpoint = 7,
                    .name = "before-upgrade",
                    .changed_bytes = 49152,
                    .shipped_bytes = 4321,
                    .stall = microseconds(80),
                    .confirm = milliseconds(12)});
  events.push_back(
      {.kind = EventKind::kVoid, .checkpoint = 8, .text = "its caller gave up waiting"});
  events.push_back({.kind = EventKind::kVoid, .text = "the server stops"});
  events.push_back({.kind = EventKind::kMissed,
                    .count = 3,
                    .text = "the checkpoint before was still being made"});
  events.push_back({.kind = EventKind::kRollback,
                    .checkpoint = 7,
                    .restored_bytes = 8192,
                    .elapsed = milliseconds(40),
                    .fenced = true});
  events.push_back({.kind = EventKind::kAccept});
  events.push_back({.kind = EventKind::kStop});
  for (Event& event : events) {
    event.time = milliseconds(1'769'860'800'123);
  }
  return events;
}

std::string text_of(const std::vector<std::byte>& bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    text += static_cast<char>(byte);
  }
  return text;
}

class EventLogTest : public testing::Test {
 protected:
  void add(uint64_t checkpoint, std::string name = "") {
    log_.add({.kind = EventKind::kCheckpoint, .checkpoint = checkpoint, .name = std::move(name)});
  }
  // So many, a few at once; how long the file ever was.
  uint64_t add_many(uint64_t count) {
    uint64_t longest = 0;
    for (uint64_t i = 1; i <= count; ++i) {
      add(i);
      if (i % 40 == 0) {
        log_.write_out();
        longest = std::max<uint64_t>(longest, disk_.content(kEventFileName).size());
      }
    }
    return longest;
  }
  std::vector<Event> read(size_t most = 10000) {
    const auto file = state_->open(kEventFileName, OpenMode::kRead);
    if (!file && file.error().kind == ErrorKind::kNotFound) {
      return {};
    }
    EXPECT_TRUE(file) << file.error().message();
    auto events = read_events(**file, most);
    EXPECT_TRUE(events) << events.error().message();
    return events ? *events : std::vector<Event>();
  }
  std::vector<uint64_t> numbers() {
    std::vector<uint64_t> numbers;
    for (const Event& event : read()) {
      numbers.push_back(event.checkpoint);
    }
    return numbers;
  }
  void set_file(const std::string& text) {
    if (!state_->open(kEventFileName, OpenMode::kRead)) {
      ASSERT_TRUE(state_->open(kEventFileName, OpenMode::kCreate));
    }
    disk_.damage(kEventFileName, [&](std::vector<std::byte>& bytes) {
      bytes.assign(as_bytes_of(text).begin(), as_bytes_of(text).end());
    });
  }
  std::string file() { return text_of(disk_.content(kEventFileName)); }

  MemoryDisk disk_;
  std::unique_ptr<Directory> state_ = disk_.root();
  FakeClock clock_;
  EventLog log_{*state_, clock_};
};

TEST(EventFormat, IsWhatItsPageShows) {
  std::string lines;
  for (const Event& event : samples()) {
    lines += encode_event(event) + "\n";
  }
  const std::string page = read_whole(std::string(CKPT_DOCS_DIR) + "/events-format.md");
  EXPECT_NE(page.find("```\n" + lines + "```"), std::string::npos) << lines;
}

TEST(EventFormat, RoundTrip) {
  for (const Event& event : samples()) {
    const auto decoded = decode_event(encode_event(event));
    ASSERT_TRUE(decoded) << encode_event(event);
    EXPECT_EQ(decoded->kind, event.kind);
    EXPECT_EQ(encode_event(*decoded), encode_event(event));
  }
}

TEST(EventFormat, TheLongestFitsIntoALine) {
  Event event{.kind = EventKind::kCheckpoint};
  event.name = std::string(255, '\x01');
  EXPECT_LE(encode_event(event).size(), kEventLineBytesMax);
  event = {.kind = EventKind::kVoid, .text = std::string(kEventTextBytesMax, '\xff')};
  EXPECT_LE(encode_event(event).size(), kEventLineBytesMax);
  EXPECT_TRUE(decode_event(encode_event(event)));
}

TEST_F(EventLogTest, IsAppendedAndRead) {
  EXPECT_EQ(read().size(), 0U);
  add(1);
  EXPECT_EQ(read().size(), 0U);
  log_.write_out();
  add(2, "a \"name\"\nwith everything \xff");
  log_.write_out();
  log_.write_out();
  EXPECT_EQ(numbers(), (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(read()[1].name, "a \"name\"\nwith everything \xef\xbf\xbd");
  EXPECT_EQ(read()[0].time, clock_.wall());
  EXPECT_EQ(read(1)[0].checkpoint, 2U);
}

TEST_F(EventLogTest, NothingIsSynced) {
  disk_.set_watcher([](const MemoryOperation& operation) {
    EXPECT_EQ(operation.act.find("sync"), std::string::npos) << operation.act;
  });
  add_many(8000);
}

TEST_F(EventLogTest, ATornLineSpoilsNoneAfterIt) {
  add(1);
  log_.write_out();
  set_file(file() + R"({"schema":1,"time":"2026-01-)");
  EXPECT_EQ(numbers(), (std::vector<uint64_t>{1}));
  EventLog next(*state_, clock_);
  next.add({.kind = EventKind::kCheckpoint, .checkpoint = 2});
  next.write_out();
  EXPECT_EQ(numbers(), (std::vector<uint64_t>{1, 2}));
}

TEST_F(EventLogTest, ForeignLinesAreSkipped) {
  const std::string good = encode_event(samples()[2]) + "\n";
  const std::vector<std::string> bad{
      "",
      "hello",
      std::string(1000, '\0'),
      "[1]",
      R"({"schema":1})",
      R"({"schema":2,"time":"2026-01-31T12:00:00.123Z","event":"start"})",
      R"({"schema":1,"time":"yesterday","event":"start"})",
      R"({"schema":1,"time":"2026-01-31T12:00:00.123Z","event":"eclipse"})",
      R"({"schema":1,"time":"2026-01-31T12:00:00.123Z","event":"missed","count":-1,"why":""})",
      R"({"schema":1,"time":"2026-01-31T12:00:00.123Z","event":"missed","count":"1","why":""})",
      std::string(kNestingMax + 1, '[') + std::string(kNestingMax + 1, ']'),
      R"({"schema":1,"time":"2026-01-31T12:00:00.123Z","event":"start","x":")" +
          std::string(kEventLineBytesMax, 'x') + "\"}",
  };
  for (const std::string& line : bad) {
    set_file(good + line + "\n" + good);
    EXPECT_EQ(numbers(), (std::vector<uint64_t>{7, 7})) << line.substr(0, 100);
    set_file(line);
    EXPECT_EQ(numbers().size(), 0U);
  }
  set_file("\n\n\n");
  EXPECT_EQ(read().size(), 0U);
}

// What a path of the file of events may be instead of one. None may hang whoever reads.
class EventPathTest : public testing::Test {
 protected:
  EventPathTest() {
    std::string pattern = testing::TempDir() + "events-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    path_ = directory_ + "/" + kEventFileName;
  }
  ~EventPathTest() override { std::filesystem::remove_all(directory_); }

  size_t count() {
    const auto events = read_events(directory_, 10);
    EXPECT_TRUE(events) << events.error().message();
    return events ? events->size() : 0;
  }
  static void write(const std::string& path) {
    std::ofstream(path) << encode_event(samples()[2]) << "\n";
  }

  std::string directory_;
  std::string path_;
};

TEST_F(EventPathTest, AFileOfEvents) {
  EXPECT_EQ(count(), 0U) << "there is none";
  write(path_);
  EXPECT_EQ(count(), 1U);
}

TEST_F(EventPathTest, AFifoHasNone) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(count(), 0U);
}

TEST_F(EventPathTest, ALinkAndADirectoryHaveNone) {
  write(directory_ + "/elsewhere");
  std::filesystem::create_symlink("elsewhere", path_);
  EXPECT_EQ(count(), 0U);
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_EQ(count(), 0U);
}

TEST_F(EventPathTest, ASocketHasNone) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path_.size(), sizeof address.sun_path);
  std::memcpy(address.sun_path, path_.c_str(), path_.size());
  const UniqueFd listening(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
            0);
  EXPECT_EQ(count(), 0U);
}

TEST_F(EventLogTest, TheFileIsBounded) {
  EXPECT_LE(add_many(12000), kEventFileBytesMax);
  const auto kept = numbers();
  ASSERT_GT(kept.size(), 2000U);
  EXPECT_EQ(kept.back(), 12000U);
  EXPECT_EQ(kept.back() - kept.front() + 1, kept.size());
  EXPECT_EQ(disk_.snapshot().size(), 1U);
}

TEST_F(EventLogTest, AForeignFileOfAnySizeIsCutDown) {
  set_file(std::string(5U << 20U, 'x'));
  EXPECT_EQ(read().size(), 0U);
  add(1);
  log_.write_out();
  EXPECT_EQ(numbers(), (std::vector<uint64_t>{1}));
  EXPECT_LE(disk_.content(kEventFileName).size(), kEventFileBytesMax);
}

TEST_F(EventLogTest, WaitsForSpaceAndDropsTheOldest) {
  add(1);
  log_.write_out();
  disk_.set_capacity(disk_.used_bytes());
  const uint64_t all = kEventsWaitingMax + 3;
  for (uint64_t i = 2; i < 2 + all; ++i) {
    add(i, std::string(200, 'x'));
  }
  log_.write_out();
  disk_.set_capacity(std::nullopt);
  log_.write_out();
  EXPECT_LT(numbers().size(), 3U) << "it was tried again at once";
  clock_.pass(seconds(6));
  log_.write_out();
  const auto kept = numbers();
  ASSERT_EQ(kept.size(), kEventsWaitingMax + 1);
  EXPECT_EQ(kept[1], 5U);
  EXPECT_EQ(kept.back(), all + 1);
}

TEST_F(EventLogTest, EveryFailureLeavesReadableLines) {
  for (uint64_t nth = 1; nth <= 4; ++nth) {
    set_file(std::string());
    EventLog log(*state_, clock_);
    std::string filling;
    while (filling.size() < kEventFileBytesMax - 100) {
      filling += encode_event(samples()[2]) + "\n";
    }
    set_file(filling);
    log.add({.kind = EventKind::kCheckpoint, .checkpoint = nth});
    disk_.fail_operation(nth, EIO);
    log.write_out();
    clock_.pass(seconds(6));
    log.write_out();
    EXPECT_GT(disk_.content(kEventFileName).size(), kEventFileBytesMax / 3) << nth;
    const auto last = read(2);
    ASSERT_EQ(last.size(), 2U) << nth;
    EXPECT_EQ(last[0].checkpoint, 7U);
    EXPECT_EQ(last[1].checkpoint, nth);
  }
}

TEST_F(EventLogTest, Counts) {
  for (const Event& event : samples()) {
    log_.add(event);
  }
  const EventCounts expected{1, 2, 3, 1, 4321, milliseconds(12)};
  EXPECT_EQ(log_.counts(), expected);
}

TEST(Schedule, PlannedTimesDoNotMove) {
  Schedule schedule(seconds(10), seconds(100));
  EXPECT_EQ(schedule.passed(seconds(109)), 0U);
  EXPECT_EQ(schedule.left(seconds(109)), seconds(1));
  EXPECT_EQ(schedule.passed(seconds(113)), 1U);
  EXPECT_EQ(schedule.passed(seconds(119)), 0U);
  EXPECT_EQ(schedule.passed(seconds(120)), 1U);
  EXPECT_EQ(schedule.passed(seconds(151)), 3U);
  EXPECT_EQ(schedule.left(seconds(151)), seconds(9));
}

TEST(Schedule, NoIntervalIsNeverDue) {
  Schedule schedule(seconds(0), seconds(100));
  EXPECT_EQ(schedule.passed(std::chrono::hours(1000)), 0U);
  EXPECT_GT(schedule.left(seconds(100)), std::chrono::hours(1000));
}

}  // namespace
}  // namespace ckpt::test
