// SPDX-License-Identifier: Apache-2.0
#include "tools/vm_record.h"

#include "plugin/control_fields.h"

namespace ckpt {
namespace {

Result<std::vector<std::string>> decode_texts(const ParsedJson& array, const char* name) {
  std::vector<std::string> texts;
  for (const ParsedJson& element : array) {
    const auto* const text = element.get_ptr<const std::string*>();
    if (text == nullptr) {
      return fail(ErrorKind::kCorrupt, std::string(name) + ": no text");
    }
    texts.push_back(*text);
  }
  return texts;
}

Result<std::vector<VmVolume>> decode_volumes(const ParsedJson& array) {
  std::vector<VmVolume> volumes;
  for (const ParsedJson& element : array) {
    Fields fields(element, ErrorKind::kCorrupt);
    const VmVolume volume{fields.uuid("volume"), Epoch{fields.number("checkpoint")},
                          fields.text("device")};
    CKPT_ASSIGN(const VmVolume checked, fields.finish(volume));
    volumes.push_back(checked);
  }
  return volumes;
}

}  // namespace

std::string encode_vm_record(const VmRecord& record) {
  Json volumes = Json::array();
  for (const VmVolume& volume : record.volumes) {
    volumes.push_back(Json{{"volume", volume.volume.to_string()},
                           {"checkpoint", volume.checkpoint.value},
                           {"device", volume.device}});
  }
  return to_line(Json{{"schema", kControlSchema},
                      {"group", record.group.to_string()},
                      {"volumes", std::move(volumes)},
                      {"memory", record.memory ? Json(record.memory->to_string()) : Json()},
                      {"qemu", record.machine.qemu},
                      {"machine", record.machine.machine},
                      {"memory_bytes", record.machine.memory_bytes},
                      {"cpus", record.machine.cpus},
                      {"cpu", record.machine.cpu},
                      {"devices", record.machine.devices},
                      {"command", record.command},
                      {"directory", record.directory}});
}

Result<VmRecord> decode_vm_record(const std::string& text) {
  CKPT_ASSIGN(const ParsedJson object, parse_object(text, kVmRecordBytesMax, ErrorKind::kCorrupt));
  Fields fields(object, ErrorKind::kCorrupt);
  VmRecord record;
  record.group = fields.uuid("group");
  CKPT_ASSIGN(record.volumes, decode_volumes(fields.array("volumes")));
  if (fields.optional("memory") != nullptr) {
    record.memory = fields.uuid("memory");
  }
  record.machine = {fields.text("qemu"),   fields.text("machine"), fields.number("memory_bytes"),
                    fields.number("cpus"), fields.text("cpu"),     {}};
  CKPT_ASSIGN(record.machine.devices, decode_texts(fields.array("devices"), "devices"));
  CKPT_ASSIGN(record.command, decode_texts(fields.array("command"), "command"));
  record.directory = fields.text("directory");
  if (!object.contains("memory")) {
    fields.refuse("memory", "is missing");
  }
  if (record.volumes.empty()) {
    fields.refuse("volumes", "is empty");
  }
  return fields.finish(std::move(record));
}

}  // namespace ckpt
