// SPDX-License-Identifier: Apache-2.0
// What a checkpoint says of the processes that are saved with it: its attachment "processes".
//
// Format: docs/process-format.md
#pragma once

#include "tools/attached_disk.h"
#include "tools/process_tree.h"

namespace ckpt {

inline constexpr const char* kProcessAttachment = "processes";

struct MountRecord {
  std::string point;
  std::string source;
  std::string type;
  std::string options;
};

struct TreeRecord {
  std::string attachment;  // of CRIU's images, in a tar archive
  std::vector<ProcessIdentity> processes;
  bool own_numbers = false;  // in a PID namespace of their own: they need no number outside
};

struct ProcessRecord {
  std::string device;  // that the volume's disk was attached as
  uint64_t block_bytes = 512;
  std::vector<MountRecord> mounts;
  std::vector<TreeRecord> trees;
  std::vector<std::string> options;  // CRIU's, of the dump
  std::string file{};                // of nbdfuse, below the device; empty: an NBD device
};

// Which checkpoint a folder of CRIU's images belongs to: ckpt.json in it.
struct ImageNote {
  Uuid volume;
  Uuid timeline;
  Epoch checkpoint;
};

Result<> write_image_note(const std::string& images, const ImageNote& note);
// kNotFound: there is none; kCorrupt.
Result<ImageNote> read_image_note(const std::string& images);

// More is not believed.
inline constexpr size_t kProcessRecordBytesMax = size_t{1} << 20U;

std::string encode_process_record(const ProcessRecord& record);
// kCorrupt: it is not as its format says.
Result<ProcessRecord> decode_process_record(const std::string& text);

}  // namespace ckpt
