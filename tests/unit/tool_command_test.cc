// SPDX-License-Identifier: Apache-2.0
// The tool as scripts and people use it: arguments in; lines and an exit code out.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/unit/control_fake_volume.h"
#include "tests/unit/golden_file.h"
#include "tools/process_record.h"
#include "tools/tool.h"
#include "tools/work_folder.h"

namespace ckpt {
namespace {

// Lets the tool own what a test goes on using.
class Borrowed : public VolumeApi {
 public:
  explicit Borrowed(VolumeApi& volume) : volume_(volume) {}
  VolumeStatus status() override { return volume_.status(); }
  Result<std::vector<CheckpointInfo>> checkpoints() override { return volume_.checkpoints(); }
  Result<CheckpointOutcome> checkpoint(const CheckpointRequest& request) override {
    return volume_.checkpoint(request);
  }
  Result<RollbackOutcome> roll_back(const RollbackRequest& request,
                                    const Progress& progress) override {
    return volume_.roll_back(request, progress);
  }
  Result<VerifyOutcome> verify(const Progress& progress) override {
    return volume_.verify(progress);
  }
  Result<> accept() override { return volume_.accept(); }
  Result<> export_checkpoint(const std::string& id, ExportSink& sink) override {
    return volume_.export_checkpoint(id, sink);
  }
  Result<> read_attachment(const std::string& id, const std::string& name,
                           PieceSink& sink) override {
    return volume_.read_attachment(id, name, sink);
  }

 private:
  VolumeApi& volume_;
};

// A FILE that collects in memory.
class Capture {
 public:
  Capture() : file_(::open_memstream(&text_, &length_)) {}
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture() {
    std::fclose(file_);
    std::free(text_);
  }
  [[nodiscard]] std::FILE* file() const { return file_; }
  [[nodiscard]] std::string text() const {
    std::fflush(file_);
    return {text_, length_};
  }

 private:
  char* text_ = nullptr;
  size_t length_ = 0;
  std::FILE* file_;
};

class ToolCommandTest : public testing::Test {
 protected:
  // Runs the tool; `typed` is what stands on its standard input.
  int run(const std::vector<std::string>& arguments, std::string typed = "") {
    const Capture out;
    const Capture err;
    typed += '\0';  // fmemopen refuses an empty buffer
    std::FILE* in = ::fmemopen(typed.data(), typed.size(), "r");
    Streams streams{in, out.file(), err.file(), terminal_, terminal_, terminal_};
    streams.colours = colours_;
    const int code = run_tool(arguments, streams, [this](const VolumeName& name) {
      opened_.push_back(name);
      return open_error_ ? Result<OpenedVolume>(Unexpected(*open_error_))
                         : OpenedVolume{std::make_unique<Borrowed>(volume_), served_, {}};
    });
    std::fclose(in);
    out_ = out.text();
    err_ = err.text();
    return code;
  }
  // The last line of standard output.
  ParsedJson last_object() const {
    const std::string lines = out_.substr(0, out_.find_last_not_of('\n') + 1);
    const size_t newline = lines.rfind('\n');
    return ParsedJson::parse(lines.substr(newline == std::string::npos ? 0 : newline + 1), nullptr,
                             false);
  }
  static std::vector<std::string> keys_of(const ParsedJson& object) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : object.items()) {
      keys.push_back(key);
    }
    return keys;
  }

  FakeVolume volume_;
  std::optional<Error> open_error_;
  std::vector<VolumeName> opened_;
  bool served_ = true;
  bool terminal_ = false;
  bool colours_ = false;
  std::string out_;
  std::string err_;
};

using Keys = std::vector<std::string>;  // sorted, as ParsedJson has them

TEST_F(ToolCommandTest, HelpAndVersion) {
  EXPECT_EQ(run({"--help"}), 0);
  EXPECT_NE(out_.find("Exit status"), std::string::npos);
  EXPECT_EQ(err_, "");
  for (const char* command :
       {"status", "checkpoint", "list", "show", "rollback", "accept", "verify", "export", "forget",
        "doctor", "metrics", "report", "restore", "hook"}) {
    EXPECT_EQ(run({command, "--help"}), 0) << command;
    EXPECT_NE(out_.find("ckpt-tool " + std::string(command)), std::string::npos) << out_;
    EXPECT_NE(out_.find("--json"), std::string::npos) << command;
  }
  EXPECT_EQ(run({"--version"}), 0);
  EXPECT_NE(out_.find("ckpt-tool "), std::string::npos);
  EXPECT_EQ(opened_.size(), 0U);
}

TEST_F(ToolCommandTest, WhatFollowsTwoDashesIsAnotherProgramsOrTheVolume) {
  EXPECT_EQ(run({"status", "--", "-disk.img"}), 0);
  EXPECT_EQ(opened_.back().path, "-disk.img");
  // Of a checkpoint they are CRIU's, which is not asked for here.
  EXPECT_EQ(run({"checkpoint", "disk.img", "--", "--shell-job"}), 2);
  EXPECT_NE(err_.find("go with --criu PID"), std::string::npos) << err_;
  // Not the ID, which may be left out: the last one has no processes.
  EXPECT_EQ(run({"restore", "disk.img", "--yes", "--", "--no-such"}), 4);
  EXPECT_EQ(err_.find("--no-such"), std::string::npos) << err_;
}

TEST_F(ToolCommandTest, WordsForProcessesGoTogether) {
  const std::vector<std::vector<std::string>> wrong{
      {"checkpoint", "disk.img", "--criu", "1"},
      {"checkpoint", "disk.img", "--fs", "/mnt"},
      {"checkpoint", "disk.img", "--images", "/tmp"},
      {"checkpoint", "disk.img", "--end-processes"},
      {"checkpoint", "disk.img", "--criu", "x", "--fs", "/mnt"},
      {"rollback", "disk.img", "--yes", "--fs", "/mnt", "--clients", "keep"},
      {"rollback", "disk.img", "--yes", "--fs", "/mnt", "--rebuild"},
      {"hook", "vm"},
  };
  for (const auto& words : wrong) {
    EXPECT_EQ(run(words), 2) << testing::PrintToString(words);
  }
  EXPECT_EQ(volume_.calls, 0);
}

// What CRIU has in the environment of its action script.
class HookTest : public ToolCommandTest {
 protected:
  HookTest() {
    volume_.told_checkpoints.back().parent.timeline = note_.timeline;
    ::setenv("CKPT_VOLUME", "disk.img", 1);
    ::setenv("CKPT_FS", "/no such mount", 1);
    ::setenv("CRTOOLS_IMAGE_DIR", images_.path().c_str(), 1);
    ::setenv("CRTOOLS_SCRIPT_ACTION", "pre-restore", 1);
  }
  ~HookTest() override {
    for (const char* name :
         {"CKPT_VOLUME", "CKPT_FS", "CRTOOLS_IMAGE_DIR", "CRTOOLS_SCRIPT_ACTION"}) {
      ::unsetenv(name);
    }
  }
  // What the hook says before a restore from images with this note.
  std::string before_restore(const ImageNote& note) {
    EXPECT_TRUE(write_image_note(images_.path(), note));
    EXPECT_NE(run({"hook", "criu"}), 0);
    return err_;
  }

  WorkFolder images_ = *WorkFolder::make(testing::TempDir(), "images");
  const ImageNote note_{FakeVolume::default_status().volume,
                        *Uuid::parse("77777777-8888-4999-8aaa-bbbbbbbbbbbb"), Epoch{7}};
};

TEST_F(HookTest, ImagesOfAnotherCheckpointAreRefusedBeforeTheDiskIsLookedFor) {
  ImageNote other = note_;
  other.volume = note_.timeline;
  EXPECT_NE(before_restore(other).find("these images belong to volume 77777777"), std::string::npos)
      << err_;
  other = note_;
  other.timeline = note_.volume;
  EXPECT_NE(before_restore(other).find("belong to checkpoint 7 of timeline 01234567"),
            std::string::npos)
      << err_;
  EXPECT_NE(err_.find("another one, of timeline 77777777"), std::string::npos) << err_;
  other = note_;
  other.checkpoint = Epoch{5};
  EXPECT_NE(before_restore(other).find("no checkpoint \"5\""), std::string::npos) << err_;
  EXPECT_EQ(err_.find("/no such mount"), std::string::npos) << err_;
}

// A rollback has renamed the timeline that the checkpoint is on, not that which it was made on. Of
// an older version its parent has no timeline.
TEST_F(HookTest, TheirOwnCheckpointIsTakenAlsoAfterARollback) {
  EXPECT_NE(before_restore(note_).find("/no such mount"), std::string::npos) << err_;
  volume_.told_checkpoints.back().parent = {};
  EXPECT_NE(before_restore(note_).find("is another one"), std::string::npos) << err_;
  volume_.told_checkpoints.back().id.timeline = note_.timeline;
  EXPECT_NE(before_restore(note_).find("/no such mount"), std::string::npos) << err_;
}

TEST_F(ToolCommandTest, WrongUseIsTwo) {
  const std::vector<std::vector<std::string>> wrong{
      {},
      {"status"},
      {"swap", "v"},
      {"export", "v", "last"},
      {"status", "v", "w"},
      {"status", "v", "--colour"},
      {"status", "--watch=0", "v"},
      {"status", "--watch=x", "v"},
      {"checkpoint", "v", "--timeout", "0"},
      {"checkpoint", "v", "--timeout", "-1"},
      {"checkpoint", "v", "--timeout", "1e300"},
      {"checkpoint", "v", "--name", "12"},
      {"checkpoint", "v", "--name", "last"},
      {"checkpoint", "v", "--name", "\xff"},
      {"show", "v"},
      {"rollback", "v", "--clients=kill", "--yes"},
      {"rollback", "v"},
      {"doctor", "v", "w"},
      {"doctor", "--state", "s"},
  };
  for (const auto& arguments : wrong) {
    EXPECT_EQ(run(arguments), 2) << testing::PrintToString(arguments);
    EXPECT_EQ(out_, "");
    EXPECT_NE(err_, "");
  }
  EXPECT_EQ(opened_.size(), 0U);
}

TEST_F(ToolCommandTest, UnknownCommandIsNamed) {
  EXPECT_EQ(run({"--json", "swap", "v"}), 2);
  EXPECT_EQ(last_object()["type"], "error");
  EXPECT_EQ(last_object()["exit_code"], 2);
  EXPECT_NE(err_.find("no command \"swap\""), std::string::npos);
}

TEST_F(ToolCommandTest, OptionsOnEitherSideOfTheCommand) {
  EXPECT_EQ(run({"--json", "--state", "/s", "--backup", "embedded:/b", "status", "v"}), 0);
  EXPECT_EQ(run({"status", "v", "--json", "--state=/s", "--backup=embedded:/b"}), 0);
  ASSERT_EQ(opened_.size(), 2U);
  for (const VolumeName& name : opened_) {
    EXPECT_EQ(name.path, "v");
    EXPECT_EQ(name.state, "/s");
    EXPECT_EQ(name.backup, "embedded:/b");
  }
  EXPECT_EQ(last_object()["type"], "result");
}

TEST_F(ToolCommandTest, StatusForPeople) {
  EXPECT_EQ(run({"status", "v"}), 0);
  for (const char* text : {"state          running (primary)", "1.0 GiB (1073741824 bytes)",
                           "7 \"before-7\"", "connected", "protected      yes"}) {
    EXPECT_NE(out_.find(text), std::string::npos) << text << " in\n" << out_;
  }
  EXPECT_EQ(out_.find('\x1b'), std::string::npos);
  EXPECT_EQ(run({"-q", "status", "v"}), 0);
  EXPECT_EQ(out_, "running\n");
}

TEST_F(ToolCommandTest, WhatIsNotKnownIsNotSaidToBeZero) {
  served_ = false;
  EXPECT_EQ(run({"status", "v"}), 0);
  EXPECT_EQ(out_.find("changed "), std::string::npos);
  EXPECT_EQ(out_.find("free"), std::string::npos);
  EXPECT_NE(out_.find("confirmed  7 (applied: 6)"), std::string::npos);
}

TEST_F(ToolCommandTest, AFirstCopySaysHowFarItIs) {
  EXPECT_EQ(run({"status", "v"}), 0);
  EXPECT_NE(out_.find("unshipped    8.0 KiB\n"), std::string::npos) << out_;
  volume_.told_status.changed_bytes = 1 << 20U;
  volume_.told_status.store->state = "syncing";
  EXPECT_EQ(run({"status", "v"}), 0);
  EXPECT_NE(out_.find("unshipped    8.0 KiB\n"), std::string::npos) << out_;
  volume_.told_status.store->confirmed.reset();
  EXPECT_EQ(run({"status", "v"}), 0);
  EXPECT_NE(out_.find("unshipped    8.0 KiB of 1.0 MiB\n"), std::string::npos) << out_;
}

TEST_F(ToolCommandTest, ColoursOnATerminalOnly) {
  colours_ = true;
  run({"status", "v"});
  EXPECT_EQ(out_.find('\x1b'), std::string::npos);
  terminal_ = true;
  run({"status", "v"});
  EXPECT_NE(out_.find("\x1b[32mrunning\x1b[0m"), std::string::npos);
  colours_ = false;
  run({"status", "v"});
  EXPECT_EQ(out_.find('\x1b'), std::string::npos);
}

TEST_F(ToolCommandTest, WhatAVolumeSaysCannotDriveTheTerminal) {
  volume_.told_status.problem = "evil \x1b]0;title\x07";
  volume_.told_checkpoints[0].name = "evil \x1b[2J";
  volume_.told_checkpoints[0].message = "evil\r\n";
  run({"status", "v"});
  EXPECT_EQ(out_.find('\x1b'), std::string::npos);
  run({"list", "v"});
  EXPECT_EQ(out_.find('\x1b'), std::string::npos);
  run({"show", "v", "6"});
  EXPECT_EQ(out_.find('\r'), std::string::npos);
}

TEST_F(ToolCommandTest, StatusForScripts) {
  EXPECT_EQ(run({"status", "v", "--json"}), 0);
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 1);
  EXPECT_EQ(last_object()["schema"], 1);
  EXPECT_EQ(last_object()["type"], "result");
  EXPECT_EQ(last_object()["backup"]["unshipped_bytes"], 8192);
}

TEST_F(ToolCommandTest, StatusTellsWhatWasMissedOnlyIfThereIsAny) {
  EXPECT_EQ(run({"status", "v"}), 0);
  EXPECT_NE(out_.find("interval       5.0 s"), std::string::npos) << out_;
  EXPECT_NE(out_.find("missed         3 checkpoints"), std::string::npos) << out_;
  EXPECT_NE(out_.find("void           2 checkpoints"), std::string::npos) << out_;
  volume_.told_status.counts = {};
  volume_.told_status.checkpoint_interval = {};
  EXPECT_EQ(run({"status", "v"}), 0);
  for (const char* text : {"interval", "missed", "void"}) {
    EXPECT_EQ(out_.find(text), std::string::npos) << text;
  }
}

TEST_F(ToolCommandTest, Metrics) {
  EXPECT_EQ(run({"metrics", "v"}), 0);
  EXPECT_NE(out_.find("\nckpt_missed_checkpoints_total{image=\"/srv/disk.img\"} 3\n"),
            std::string::npos)
      << out_;
  const std::string text = out_;
  EXPECT_EQ(run({"metrics", "v", "--json"}), 0);
  EXPECT_EQ(last_object()["text"], text);
  volume_.told_status = VolumeStatus{};
  EXPECT_EQ(run({"metrics", "v"}), 1);
}

TEST_F(ToolCommandTest, ReportIsNotForATerminal) {
  terminal_ = true;
  EXPECT_EQ(run({"report", "v"}), 2);
  EXPECT_EQ(out_, "");
  EXPECT_NE(err_.find("> report.html"), std::string::npos);
  EXPECT_EQ(opened_.size(), 0U);
}

TEST_F(ToolCommandTest, TheManualHasEveryCommand) {
  const std::string manual = test::read_whole(std::string(CKPT_DOCS_DIR) + "/ckpt-tool.pod");
  EXPECT_EQ(run({"--help"}), 0);
  size_t commands = 0;
  for (size_t at = out_.find("\nCommands"); at != std::string::npos;
       at = out_.find("\n  ", at + 1)) {
    const size_t end = out_.find(' ', at + 3);
    const std::string name = out_.substr(at + 3, end - at - 3);
    if (out_.compare(at, 3, "\n  ") == 0 && !name.empty()) {
      ++commands;
      EXPECT_NE(manual.find("\n=head2 " + name + " "), std::string::npos) << name;
    }
  }
  EXPECT_GE(commands, 9U);
}

TEST_F(ToolCommandTest, StatusWhenTheServerIsSilent) {
  volume_.told_status = VolumeStatus{};
  volume_.told_status.problem = "control.sock: silent";
  EXPECT_EQ(run({"status", "v", "--json"}), 1);
  EXPECT_EQ(last_object()["message"], "control.sock: silent");
}

TEST_F(ToolCommandTest, Checkpoint) {
  CheckpointRequest seen;
  volume_.on_checkpoint = [&](const CheckpointRequest& request) {
    seen = request;
    return CheckpointOutcome{sample_checkpoint(7), std::chrono::microseconds(80),
                             std::chrono::milliseconds(12)};
  };
  EXPECT_EQ(run({"--json", "checkpoint", "v", "--name", "n", "--message", "m", "--timeout", "0.5"}),
            0);
  EXPECT_EQ(seen.name, "n");
  EXPECT_EQ(seen.message, "m");
  EXPECT_EQ(seen.timeout, std::chrono::milliseconds(500));
  EXPECT_EQ(keys_of(last_object()), (Keys{"changed_bytes", "checkpoint", "confirm_ms", "name",
                                          "schema", "shipped_bytes", "stall_us", "state", "type"}));
  EXPECT_EQ(last_object()["state"], "confirmed");
  EXPECT_EQ(last_object()["stall_us"], 80);
  EXPECT_EQ(run({"-q", "checkpoint", "v"}), 0);
  EXPECT_EQ(out_, "7\n");
  EXPECT_EQ(run({"checkpoint", "v"}), 0);
  EXPECT_EQ(out_, "checkpoint 7 \"before-7\" confirmed: 48.0 KiB changed, 4.2 KiB shipped\n");
}

TEST_F(ToolCommandTest, ErrorsHaveTheirExitCodes) {
  for (int i = 0; i <= static_cast<int>(ErrorKind::kVoid); ++i) {
    const auto kind = static_cast<ErrorKind>(i);
    volume_.on_checkpoint = [&](const CheckpointRequest&) { return fail(kind, "why"); };
    EXPECT_EQ(run({"checkpoint", "v", "--json"}), exit_code_of(kind));
    EXPECT_EQ(last_object()["exit_code"], exit_code_of(kind));
    EXPECT_EQ(last_object()["type"], "error");
    EXPECT_EQ(err_, "ckpt-tool: why\n");
  }
  open_error_ = Error{ErrorKind::kNotFound, 0, "v: none"};
  EXPECT_EQ(run({"status", "v"}), 4);
}

TEST_F(ToolCommandTest, ListAndShow) {
  EXPECT_EQ(run({"list", "v", "--json"}), 0);
  ASSERT_EQ(last_object()["checkpoints"].size(), 2U);
  EXPECT_EQ(keys_of(last_object()["checkpoints"][0]),
            (Keys{"attachments", "changed_bytes", "checkpoint", "name", "parent", "time"}));
  EXPECT_EQ(run({"-q", "list", "v"}), 0);
  EXPECT_EQ(out_, "6\n7\n");
  EXPECT_EQ(run({"list", "v"}), 0);
  EXPECT_NE(out_.find("before-6"), std::string::npos);
  for (const char* id : {"last", "7", "before-7"}) {
    EXPECT_EQ(run({"show", "v", id, "--json"}), 0);
    EXPECT_EQ(last_object()["checkpoint"], 7) << id;
    EXPECT_EQ(last_object()["message"], "line one\nline \"two\"");
  }
  EXPECT_EQ(run({"show", "v", "8"}), 4);
  volume_.told_checkpoints.clear();
  EXPECT_EQ(run({"show", "v", "last"}), 4);
  EXPECT_EQ(run({"list", "v"}), 0);
  EXPECT_EQ(out_, "no checkpoint is confirmed yet\n");
}

TEST_F(ToolCommandTest, VerifySaysWhatDiffers) {
  EXPECT_EQ(run({"verify", "v"}), 0);
  EXPECT_NE(out_.find("no mismatch"), std::string::npos);
  volume_.on_verify = [](const Progress&) {
    VerifyOutcome outcome{sample_checkpoint(7), 100 << 20U, 0, 12 * 4096, {}};
    for (uint64_t i = 0; i < 12; ++i) {
      outcome.mismatches.push_back({i * 8192, 4096});
    }
    return outcome;
  };
  EXPECT_EQ(run({"verify", "v"}), 8);
  EXPECT_NE(out_.find("offset 8192, 4.0 KiB"), std::string::npos);
  EXPECT_NE(out_.find("2 more ranges"), std::string::npos);
  EXPECT_EQ(run({"verify", "v", "--json"}), 8);
  EXPECT_EQ(last_object()["type"], "result");
  EXPECT_EQ(keys_of(last_object()), (Keys{"checked_bytes", "checkpoint", "mismatched_bytes",
                                          "mismatches", "schema", "skipped_bytes", "type"}));
  EXPECT_EQ(last_object()["mismatches"][1]["offset"], 8192);
}

TEST_F(ToolCommandTest, ProgressOnATerminalOnly) {
  volume_.on_verify = [](const Progress& progress) {
    progress(1, 2);
    return VerifyOutcome{sample_checkpoint(7), 2, 0, 0, {}};
  };
  run({"verify", "v"});
  EXPECT_EQ(err_, "");
  terminal_ = true;
  run({"verify", "v"});
  EXPECT_NE(err_.find("verifying  50 %"), std::string::npos);
  run({"-q", "verify", "v"});
  EXPECT_EQ(err_, "");
}

class ToolRollbackTest : public ToolCommandTest {
 protected:
  ToolRollbackTest() {
    volume_.on_rollback = [this](const RollbackRequest& request, const Progress&) {
      seen_.push_back(request);
      return RollbackOutcome{sample_checkpoint(7), 3U << 20U, std::chrono::milliseconds(40),
                             request.clients == ClientPolicy::kFence};
    };
  }
  std::vector<RollbackRequest> seen_;
};

TEST_F(ToolRollbackTest, NeedsYesWithoutATerminal) {
  EXPECT_EQ(run({"rollback", "v"}), 2);
  EXPECT_NE(err_.find("--yes"), std::string::npos);
  EXPECT_EQ(seen_.size(), 0U);
}

TEST_F(ToolRollbackTest, GoesBackToWhatWasPreviewed) {
  EXPECT_EQ(run({"rollback", "v", "--yes", "--clients=keep", "--json"}), 0);
  ASSERT_EQ(seen_.size(), 2U);
  EXPECT_TRUE(seen_[0].dry_run);
  EXPECT_EQ(seen_[0].checkpoint, "last");
  EXPECT_FALSE(seen_[1].dry_run);
  EXPECT_EQ(seen_[1].checkpoint, "7");
  EXPECT_EQ(seen_[1].clients, ClientPolicy::kKeep);
  EXPECT_EQ(keys_of(last_object()), (Keys{"checkpoint", "dry_run", "elapsed_ms", "fenced",
                                          "restored_bytes", "schema", "type"}));
  EXPECT_EQ(last_object()["restored_bytes"], 3U << 20U);
}

TEST_F(ToolRollbackTest, DryRunChangesNothing) {
  EXPECT_EQ(run({"rollback", "v", "5", "--dry-run"}), 0);
  ASSERT_EQ(seen_.size(), 1U);
  EXPECT_TRUE(seen_[0].dry_run);
  EXPECT_EQ(seen_[0].checkpoint, "5");
  EXPECT_NE(out_.find("3.0 MiB (3145728 bytes)"), std::string::npos);
  EXPECT_NE(out_.find("ago"), std::string::npos);
}

TEST_F(ToolRollbackTest, AsksOnATerminal) {
  terminal_ = true;
  EXPECT_EQ(run({"rollback", "v"}, "y\n"), 0);
  EXPECT_EQ(seen_.size(), 2U);
  EXPECT_NE(err_.find("is lost: 3.0 MiB"), std::string::npos);
  for (const char* answer : {"n\n", "\n", "", "yikes\n"}) {
    seen_.clear();
    EXPECT_EQ(run({"rollback", "v"}, answer), 1) << answer;
    EXPECT_EQ(seen_.size(), 1U) << answer;
    EXPECT_NE(err_.find("nothing changed"), std::string::npos);
  }
}

TEST_F(ToolRollbackTest, SaysThatClientsAreFenced) {
  EXPECT_EQ(run({"rollback", "v", "--yes", "--clients=fence"}), 0);
  EXPECT_NE(err_.find("ckpt-tool accept v"), std::string::npos);
}

TEST_F(ToolRollbackTest, PreviewThatFailsIsTheEnd) {
  volume_.on_rollback = [this](const RollbackRequest& request, const Progress&) {
    seen_.push_back(request);
    return fail(ErrorKind::kBusy, "a client is connected");
  };
  EXPECT_EQ(run({"rollback", "v", "--yes"}), 5);
  EXPECT_EQ(seen_.size(), 1U);
}

TEST_F(ToolCommandTest, Accept) {
  EXPECT_EQ(run({"accept", "v", "--json"}), 0);
  EXPECT_EQ(out_, "{\"schema\":1,\"type\":\"result\"}\n");
  EXPECT_EQ(volume_.calls, 1);
}

TEST_F(ToolCommandTest, OutputThatDoesNotArriveIsAFailure) {
  std::FILE* full = std::fopen("/dev/full", "w");
  ASSERT_NE(full, nullptr);
  const Capture err;
  const Streams streams{stdin, full, err.file()};
  EXPECT_EQ(run_tool({"list", "v"}, streams,
                     [this](const VolumeName&) -> Result<OpenedVolume> {
                       return OpenedVolume{std::make_unique<Borrowed>(volume_), true, {}};
                     }),
            1);
  std::fclose(full);
}

}  // namespace
}  // namespace ckpt
