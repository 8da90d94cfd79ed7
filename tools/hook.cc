// SPDX-License-Identifier: Apache-2.0
// ckpt-tool hook
#include <cstdlib>

#include "plugin/checkpoint_name.h"
#include "tools/command.h"
#include "tools/format.h"
#include "tools/hook_socket.h"
#include "tools/mounted_disk.h"

namespace ckpt {
namespace {

constexpr CommandHelp kHookHelp{
    "hook", "What CRIU is to run as an action script",
    "For those who run CRIU themselves: a program that does just this is\n\n"
    "  " CKPT_CRIU_HOOK
    "\n\n"
    "Give it to CRIU with --action-script, and in CRIU's environment CKPT_VOLUME, the primary\n"
    "image, and CKPT_FS, where its disk is mounted. When `criu dump` has frozen the processes,\n"
    "the file system is synced and a checkpoint is made; the dump fails if that fails.\n"
    "ckpt.json beside CRIU's images says which. Before `criu restore` begins, the disk is\n"
    "unmounted, rolled back to just that checkpoint, and mounted again; if it cannot be, the\n"
    "restore fails.",
    false};

struct HookOptions {
  std::string socket;
};

Result<std::string> from_environment(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr && *value != 0
             ? Result<std::string>(value)
             : Result<std::string>(fail(ErrorKind::kInvalid,
                                        std::string(name) + " is not set in CRIU's environment"));
}

// A rollback or a promotion begins another one, which a checkpoint then is on; its parent tells the
// one on which it was made.
Uuid timeline_made_on(const CheckpointInfo& checkpoint) {
  return checkpoint.parent.timeline.is_nil() ? checkpoint.id.timeline : checkpoint.parent.timeline;
}

class CriuHook {
 public:
  static Result<CriuHook> make(Context& context) {
    VolumeName name;
    CKPT_ASSIGN(name.path, from_environment("CKPT_VOLUME"));
    CKPT_ASSIGN(std::string mount, from_environment("CKPT_FS"));
    CKPT_ASSIGN(std::string images, from_environment("CRTOOLS_IMAGE_DIR"));
    CKPT_ASSIGN(OpenedVolume opened, open_primary(context, name));
    return CriuHook(std::move(opened), std::move(mount), std::move(images));
  }

  Result<> pre_dump() {
    CKPT_ASSIGN(const Mount mount, find_mount(mount_));
    return sync_mount(mount);
  }
  // The processes stand still.
  Result<> post_dump() {
    const VolumeStatus status = opened_.volume->status();
    CKPT_ASSIGN(const MountedDisk disk, MountedDisk::find({mount_}, status));
    CKPT_TRY(sync_mount(disk.mounts().front()));
    CKPT_ASSIGN(const CheckpointOutcome made, opened_.volume->checkpoint({}));
    return write_image_note(
        images_, {status.volume, made.checkpoint.id.timeline, made.checkpoint.id.number});
  }
  Result<> pre_restore() {
    const VolumeStatus status = opened_.volume->status();
    CKPT_ASSIGN(const ImageNote note, read_image_note(images_));
    CKPT_TRY(check_ours(note, status));
    CKPT_ASSIGN(MountedDisk disk, MountedDisk::find({mount_}, status));
    CKPT_TRY(roll_back_below(disk, *opened_.volume, {std::to_string(note.checkpoint.value)}, {}));
    return {};
  }

 private:
  CriuHook(OpenedVolume opened, std::string mount, std::string images)
      : opened_(std::move(opened)), mount_(std::move(mount)), images_(std::move(images)) {}

  // kMismatch: the images are of another volume, or of a checkpoint that has only its number in
  // common with the one that is kept. kNotFound: theirs is not kept.
  [[nodiscard]] Result<> check_ours(const ImageNote& note, const VolumeStatus& status) const {
    const std::string name = images_ + "/ckpt.json: these images belong to ";
    if (note.volume != status.volume) {
      return fail(ErrorKind::kMismatch, name + "volume " + note.volume.to_string() + ", and " +
                                            status.image + " is " + status.volume.to_string());
    }
    const std::string number = std::to_string(note.checkpoint.value);
    CKPT_ASSIGN(const auto kept, opened_.volume->checkpoints());
    CKPT_ASSIGN(const CheckpointInfo checkpoint, find_checkpoint(kept, number));
    const Uuid timeline = timeline_made_on(checkpoint);
    return note.timeline == timeline
               ? Result<>()
               : Result<>(fail(ErrorKind::kMismatch,
                               name + "checkpoint " + number + " of timeline " +
                                   note.timeline.to_string() + ", and that of " + status.image +
                                   " is another one, of timeline " + timeline.to_string() +
                                   ": use the images that were made with that one"));
  }

  OpenedVolume opened_;
  const std::string mount_;
  const std::string images_;
};

Result<> act(Context& context, const std::string& action) {
  if (action != "pre-dump" && action != "post-dump" && action != "pre-restore") {
    return {};
  }
  CKPT_ASSIGN(CriuHook hook, CriuHook::make(context));
  return action == "pre-dump"    ? hook.pre_dump()
         : action == "post-dump" ? hook.post_dump()
                                 : hook.pre_restore();
}

Result<int> hook(Context& context, const VolumeName& name, const HookOptions& options) {
  if (name.path != "criu") {
    return fail(ErrorKind::kInvalid, "hook " + name.path + ": there is `ckpt-tool hook criu`");
  }
  CKPT_ASSIGN(const std::string action, from_environment("CRTOOLS_SCRIPT_ACTION"));
  CKPT_TRY(options.socket.empty() ? act(context, action) : call_hook(options.socket, action));
  return kExitDone;
}

}  // namespace

void add_hook(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<HookOptions>();
  Arguments arguments =
      add_command(app, invocation, kHookHelp, [options](Context& context, const VolumeName& name) {
        return hook(context, name, *options);
      });
  arguments.add_text("--socket", "PATH", options->socket,
                     "Of the command that has started CRIU, which does the rest");
}

}  // namespace ckpt
