// SPDX-License-Identifier: Apache-2.0
#include "tools/process_record.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <limits>

#include "plugin/control_fields.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

constexpr const char* kNoteName = "ckpt.json";
constexpr size_t kNoteBytesMax = 4096;

Fields record_fields(const ParsedJson& object) { return {object, ErrorKind::kCorrupt}; }

Result<MountRecord> decode_mount(const ParsedJson& object) {
  Fields fields = record_fields(object);
  MountRecord mount{fields.text("point"), fields.text("source"), fields.text("type"),
                    fields.text("options")};
  return fields.finish(std::move(mount));
}

Result<ProcessIdentity> decode_process(const ParsedJson& object) {
  Fields fields = record_fields(object);
  const uint64_t pid = fields.number("pid", std::numeric_limits<pid_t>::max());
  ProcessIdentity process{static_cast<pid_t>(pid), fields.text("name"), fields.text("command")};
  if (pid == 0) {
    fields.refuse("pid", "is 0");
  }
  return fields.finish(std::move(process));
}

// An array, each element by a function of its own.
template <typename T>
Result<std::vector<T>> decode_each(const ParsedJson& array,
                                   Result<T> (*decode)(const ParsedJson&)) {
  std::vector<T> all;
  for (const ParsedJson& element : array) {
    CKPT_ASSIGN(T one, decode(element));
    all.push_back(std::move(one));
  }
  return all;
}

Result<TreeRecord> decode_tree(const ParsedJson& object) {
  Fields fields = record_fields(object);
  TreeRecord tree;
  tree.attachment = fields.text("attachment");
  // Records of before there was `run` do not have it.
  tree.own_numbers = fields.optional("own_numbers") != nullptr && fields.flag("own_numbers");
  CKPT_ASSIGN(tree.processes, decode_each(fields.array("processes"), decode_process));
  if (tree.processes.empty()) {
    fields.refuse("processes", "is empty");
  }
  if (!valid_attachment_name(tree.attachment)) {
    fields.refuse("attachment", "cannot be a file's name");
  }
  return fields.finish(std::move(tree));
}

Result<std::string> decode_word(const ParsedJson& word) {
  const auto* const text = word.get_ptr<const std::string*>();
  return text != nullptr ? Result<std::string>(*text)
                         : Result<std::string>(fail(ErrorKind::kCorrupt, "options: no text"));
}

}  // namespace

Result<> write_image_note(const std::string& images, const ImageNote& note) {
  const std::string path = images + "/" + kNoteName;
  std::ofstream file(path);
  file << to_line(Json{{"schema", kControlSchema},
                       {"volume", note.volume.to_string()},
                       {"timeline", note.timeline.to_string()},
                       {"checkpoint", note.checkpoint.value}})
       << "\n";
  file.close();
  return file ? Result<>() : Result<>(fail_errno(errno, "write " + path));
}

Result<ImageNote> read_image_note(const std::string& images) {
  const std::string path = images + "/" + kNoteName;
  if (std::error_code unknown; !std::filesystem::exists(path, unknown)) {
    return fail(ErrorKind::kNotFound,
                path +
                    ": not there: no checkpoint of the disk belongs to these images; make them "
                    "with `ckpt-tool hook criu`");
  }
  const std::string text = content_of(path, kNoteBytesMax);
  CKPT_ASSIGN(const ParsedJson object, parse_object(text, kNoteBytesMax, ErrorKind::kCorrupt));
  Fields fields = record_fields(object);
  const ImageNote note{fields.uuid("volume"), fields.uuid("timeline"),
                       Epoch{fields.number("checkpoint")}};
  return fields.finish(note);
}

std::string encode_process_record(const ProcessRecord& record) {
  Json mounts = Json::array();
  for (const MountRecord& mount : record.mounts) {
    mounts.push_back(Json{{"point", mount.point},
                          {"source", mount.source},
                          {"type", mount.type},
                          {"options", mount.options}});
  }
  Json trees = Json::array();
  for (const TreeRecord& tree : record.trees) {
    Json processes = Json::array();
    for (const ProcessIdentity& process : tree.processes) {
      processes.push_back(
          Json{{"pid", process.pid}, {"name", process.name}, {"command", process.command}});
    }
    trees.push_back(Json{{"attachment", tree.attachment},
                         {"processes", std::move(processes)},
                         {"own_numbers", tree.own_numbers}});
  }
  Json object{{"schema", kControlSchema},          {"device", record.device},
              {"block_bytes", record.block_bytes}, {"mounts", std::move(mounts)},
              {"trees", std::move(trees)},         {"options", record.options}};
  if (!record.file.empty()) {
    object["file"] = record.file;
  }
  return to_line(object);
}

Result<ProcessRecord> decode_process_record(const std::string& text) {
  CKPT_ASSIGN(const ParsedJson object,
              parse_object(text, kProcessRecordBytesMax, ErrorKind::kCorrupt));
  Fields fields = record_fields(object);
  ProcessRecord record;
  record.device = fields.text("device");
  record.block_bytes = fields.number("block_bytes", 65536);
  CKPT_ASSIGN(record.mounts, decode_each(fields.array("mounts"), decode_mount));
  CKPT_ASSIGN(record.trees, decode_each(fields.array("trees"), decode_tree));
  CKPT_ASSIGN(record.options, decode_each(fields.array("options"), decode_word));
  if (fields.optional("file") != nullptr) {
    record.file = fields.text("file");
  }
  const char* const kind = record.file.empty() ? "/dev/nbd" : "/dev/loop";
  if (!record.device.starts_with(kind)) {
    fields.refuse("device", "is no NBD device, and no loop device with a file");
  }
  if (!record.file.empty() && !record.file.starts_with('/')) {
    fields.refuse("file", "is no absolute path");
  }
  return fields.finish(std::move(record));
}

}  // namespace ckpt
