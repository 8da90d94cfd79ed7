// SPDX-License-Identifier: Apache-2.0
// ckpt-tool export
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "plugin/checkpoint_name.h"
#include "plugin/own_export.h"
#include "tools/attachment_destination.h"
#include "tools/command.h"
#include "tools/destination.h"
#include "tools/format.h"
#include "tools/progress_bar.h"

namespace ckpt {
namespace {

constexpr CommandHelp kExportHelp{
    "export", "Copies a checkpoint to a raw file, a block device or an NBD server",
    "VOLUME may also be the folder of a back-up (the store) by itself: the primary may be gone. "
    "ID is\n"
    "a number, a name, or `last`. DEST is a path or an NBD URI; the disk there must be at least "
    "as\n"
    "large. Clients go on writing, and checkpoints are made meanwhile. A file comes to exist when\n"
    "it is whole; holes stay holes. What is interrupted leaves no file, and half a device.\n\n"
    "  ckpt-tool export disk.img last copy.raw\n"
    "  ckpt-tool export disk.img last state.bin --attachment state\n"
    "  ckpt-tool export disk.img.ckpt/store before-upgrade nbd://backup.example/disk --force"};

struct ExportOptions {
  std::string id;
  std::string destination;
  std::string attachment;  // that one instead of the disk; empty: the disk
  bool force = false;
};

// Passes on to a destination, and counts.
class CountedSink : public ExportSink {
 public:
  CountedSink(Destination& destination, Progress progress)
      : destination_(destination), progress_(std::move(progress)) {}

  Result<> begin(const CheckpointInfo& begun, uint64_t size_bytes) override {
    checkpoint = begun;
    total_bytes = size_bytes;
    return destination_.begin(begun, size_bytes);
  }
  Result<> write(uint64_t offset, ConstByteSpan data) override {
    data_bytes += data.size();
    return count(data.size(), destination_.write(offset, data));
  }
  Result<> zero(ByteRange range) override { return count(range.length, destination_.zero(range)); }

  CheckpointInfo checkpoint;
  uint64_t total_bytes = 0;
  uint64_t done_bytes = 0;
  uint64_t data_bytes = 0;

 private:
  Result<> count(uint64_t bytes, Result<> done) {
    done_bytes += bytes;
    progress_(done_bytes, total_bytes);
    return done;
  }

  Destination& destination_;
  const Progress progress_;
};

bool is_same_file(const std::string& one, const std::string& other) {
  struct stat first {};
  struct stat second {};
  return ::stat(one.c_str(), &first) == 0 && ::stat(other.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

// A kernel mounts an export as /dev/nbdN, and says nothing of whose it is.
bool may_be_own_device(const VolumeStatus& status, const std::string& path) {
  struct stat found {};
  return status.connections > 0 && ::stat(path.c_str(), &found) == 0 && S_ISBLK(found.st_mode) &&
         !OwnExport(status.size_bytes).find(found.st_rdev).empty();
}

// With --force nothing else keeps an export of this volume from being written over.
Result<> check_export(const VolumeStatus& status, const Destination& opened,
                      const std::string& destination) {
  if (opened.description() == describe_export(status.volume)) {
    return fail(
        ErrorKind::kInvalid,
        destination + " is the volume's own export: export elsewhere, or see `ckpt-tool rollback`");
  }
  if (may_be_own_device(status, destination)) {
    return fail(ErrorKind::kInvalid,
                destination +
                    " is an NBD device of just the disk's size, and may be its own export: give "
                    "the NBD URI of its server");
  }
  return {};
}

// The same of the volume's files.
Result<> check_files(const VolumeStatus& status, const OpenedVolume& opened,
                     const std::string& destination) {
  std::string backup_image =
      status.store ? status.store->address.substr(status.store->address.find(':') + 1) : "";
  backup_image += "/backup.img";
  for (const std::string& own : {opened.paths.image, status.image, backup_image}) {
    if (!own.empty() && is_same_file(destination, own)) {
      return fail(
          ErrorKind::kInvalid,
          fmt::format("{} is the volume's own {}: export elsewhere, or see `ckpt-tool rollback`",
                      destination, own));
    }
  }
  return {};
}

Result<CountedSink> perform(Console& console, const OpenedVolume& opened,
                            const ExportOptions& options) {
  CKPT_ASSIGN(const auto destination, open_destination(options.destination, options.force));
  const VolumeStatus status = opened.volume->status();
  CKPT_TRY(check_files(status, opened, options.destination));
  CKPT_TRY(check_export(status, *destination, options.destination));
  ProgressBar bar(console, "exporting", system_clock());
  CountedSink sink(*destination, bar.progress());
  CKPT_TRY(opened.volume->export_checkpoint(options.id, sink));
  if (sink.done_bytes != sink.total_bytes) {
    return fail(ErrorKind::kCorrupt,
                fmt::format("{} of {} bytes came: the export is not whole, and was given up",
                            sink.done_bytes, sink.total_bytes));
  }
  CKPT_TRY(destination->finish());
  return sink;
}

Json to_result(const CountedSink& done, const ExportOptions& options) {
  return Json{{"checkpoint", done.checkpoint.id.number.value},
              {"bytes", done.total_bytes},
              {"data_bytes", done.data_bytes},
              {"destination", options.destination}};
}

Result<CheckpointInfo> copy_attachment(const OpenedVolume& opened, const ExportOptions& options) {
  CKPT_ASSIGN(const auto kept, opened.volume->checkpoints());
  CKPT_ASSIGN(CheckpointInfo checkpoint, find_checkpoint(kept, options.id));
  const auto found =
      std::ranges::find(checkpoint.attachments, options.attachment, &AttachmentInfo::name);
  if (found == checkpoint.attachments.end()) {
    return fail(ErrorKind::kNotFound,
                fmt::format("checkpoint {} has no attachment {}; see `ckpt-tool show`",
                            checkpoint.id.number.value, options.attachment));
  }
  CKPT_TRY(check_files(opened.volume->status(), opened, options.destination));
  CKPT_ASSIGN(auto destination, AttachmentDestination::open(options.destination, options.force));
  CKPT_TRY(destination.begin(*found));
  CKPT_TRY(opened.volume->read_attachment(std::to_string(checkpoint.id.number.value), found->name,
                                          destination));
  CKPT_TRY(destination.finish());
  checkpoint.attachments = {*found};
  return checkpoint;
}

Result<int> export_attachment(Context& context, const VolumeName& name,
                              const ExportOptions& options) {
  Console& console = context.console;
  const bool is_output = options.destination == "-";
  if (is_output && console.verbosity().json) {
    return fail(ErrorKind::kInvalid, "- and --json: both write to the standard output");
  }
  CKPT_ASSIGN(const OpenedVolume opened, open_named(context, name));
  CKPT_ASSIGN(const CheckpointInfo done, copy_attachment(opened, options));
  const uint64_t bytes = done.attachments.front().size_bytes;
  console.result(Json{{"checkpoint", done.id.number.value},
                      {"attachment", options.attachment},
                      {"bytes", bytes},
                      {"destination", options.destination}});
  if (!console.verbosity().quiet && !is_output) {
    console.print(fmt::format("attachment {} of checkpoint {}{} is in {}: {}\n",
                              printable(options.attachment), done.id.number.value,
                              quoted_name(done), printable(options.destination),
                              format_bytes(bytes)));
  }
  return kExitDone;
}

Result<int> export_to(Context& context, const VolumeName& name, const ExportOptions& options) {
  if (!options.attachment.empty()) {
    return export_attachment(context, name, options);
  }
  Console& console = context.console;
  CKPT_ASSIGN(const OpenedVolume opened, open_named(context, name));
  CKPT_ASSIGN(const CountedSink done, perform(console, opened, options));
  console.result(to_result(done, options));
  if (!console.verbosity().quiet) {
    console.print(fmt::format("checkpoint {}{} is in {}: {}, of which {} are data\n",
                              done.checkpoint.id.number.value, quoted_name(done.checkpoint),
                              printable(options.destination), format_bytes(done.total_bytes),
                              format_bytes(done.data_bytes)));
  }
  return kExitDone;
}

}  // namespace

void add_export(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<ExportOptions>();
  Arguments arguments = add_command(app, invocation, kExportHelp,
                                    [options](Context& context, const VolumeName& name) {
                                      return export_to(context, name, *options);
                                    });
  arguments.add_word("ID", options->id, "The checkpoint: its number, its name, or `last`");
  arguments.add_word("DEST", options->destination, "A path, or an NBD URI");
  arguments.add_filled_text(
      "--attachment", "NAME", options->attachment,
      "Copies this attachment of the checkpoint, not the disk; DEST may be -");
  arguments.add_flag(
      "--force", options->force,
      "Replaces a file that is there, or writes over a block device or an NBD export");
}

}  // namespace ckpt
