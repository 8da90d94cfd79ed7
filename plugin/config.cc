// SPDX-License-Identifier: Apache-2.0
#include "plugin/config.h"

#include <array>
#include <charconv>
#include <filesystem>
#include <functional>

#include "common/volume_name.h"
#include "plugin/backup_place.h"

namespace ckpt {
namespace {

using Setter = Result<> (*)(LocalOptions&, const std::string&);

struct Parameter {
  const char* key;
  Setter set;
};

Unexpected invalid(const std::string& what) { return fail(ErrorKind::kInvalid, what); }

std::string absolute(const std::string& path) {
  std::error_code ignored;  // only without a working directory; then the path stays as it is
  const std::filesystem::path full = std::filesystem::absolute(path, ignored);
  return full.empty() ? path : full.lexically_normal().string();
}

Result<uint64_t> parse_number(const std::string& value) {
  uint64_t number = 0;
  const char* const end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, number);
  if (value.empty() || error != std::errc() || stop != end) {
    return invalid("not a number: " + value);
  }
  return number;
}

Result<bool> parse_switch(const std::string& value) {
  if (value == "on" || value == "off") {
    return value == "on";
  }
  return invalid("not on or off: " + value);
}

Result<> set_size(LocalOptions& options, const std::string& value) {
  CKPT_ASSIGN(options.create_bytes, parse_size(value));
  const uint64_t bytes = *options.create_bytes;
  return bytes > 0 && bytes <= kDiskBytesMax ? Result<>() : Result<>(invalid("no size of a disk"));
}

Result<> set_batch_bytes(LocalOptions& options, const std::string& value) {
  CKPT_ASSIGN(options.volume.ship.batch_bytes, parse_size(value));
  const uint64_t bytes = options.volume.ship.batch_bytes;
  if (bytes < kLockedBytesMax || bytes > kDiskBytesMax) {
    return invalid("must be at least 64k");
  }
  return {};
}

Result<> set_batch_delay(LocalOptions& options, const std::string& value) {
  CKPT_ASSIGN(const uint64_t milliseconds, parse_number(value));
  if (milliseconds < 1 || milliseconds > 3600000) {
    return invalid("must be from 1 to 3600000 milliseconds");
  }
  options.volume.ship.batch_delay = std::chrono::milliseconds(milliseconds);
  return {};
}

Result<> set_compress(LocalOptions& options, const std::string& value) {
  Compression& compression = options.volume.ship.compression;
  if (value == "none") {
    compression.codec = Codec::kNone;
    return {};
  }
  const bool zstd = value == "zstd" || value.rfind("zstd:", 0) == 0;
  const auto level = parse_number(value.size() > 5 ? value.substr(5) : "1");
  if (!zstd || !level || *level < 1 || *level > 19 || value == "zstd:") {
    return invalid("must be none, zstd or zstd:LEVEL, with a level from 1 to 19");
  }
  compression = {Codec::kZstd, static_cast<int>(*level)};
  return {};
}

Result<> set_io(LocalOptions& options, const std::string& value) {
  const std::array<std::pair<const char*, IoMode>, 3> modes{
      {{"auto", IoMode::kAuto}, {"uring", IoMode::kUring}, {"sync", IoMode::kSync}}};
  for (const auto& [name, mode] : modes) {
    if (value == name) {
      options.io = mode;
      return {};
    }
  }
  return invalid("must be auto, uring or sync");
}

Result<> set_takeover(LocalOptions& options, const std::string& value) {
  if (value != "fence" && value != "refuse") {
    return invalid("must be fence or refuse");
  }
  options.volume.clients.takeover = value == "fence" ? Takeover::kFence : Takeover::kRefuse;
  return {};
}

Result<> set_start(LocalOptions& options, const std::string& value) {
  if (value != "alone" && value != "contact") {
    return invalid("must be alone or contact");
  }
  options.volume.needs_contact = value == "contact";
  return {};
}

Result<> set_require_backup(LocalOptions& options, const std::string& value) {
  CKPT_ASSIGN(options.volume.requires_backup, parse_switch(value));
  return {};
}

Result<> set_confirm(LocalOptions& options, const std::string& value) {
  if (value != "store" && value != "relayed") {
    return invalid("must be store or relayed");
  }
  options.volume.awaits_relay = value == "relayed";
  return {};
}

Result<> set_interval(LocalOptions& options, const std::string& value) {
  CKPT_ASSIGN(const uint64_t seconds, parse_number(value));
  if (seconds > 31536000) {
    return invalid("must be at most a year");
  }
  options.checkpoint_interval = std::chrono::seconds(seconds);
  return {};
}

Result<> set_preserve_limit(LocalOptions& options, const std::string& value) {
  PreserveLimits& limits = options.volume.start.preserve;
  CKPT_ASSIGN(limits.total_bytes, parse_size(value));
  limits.memory_bytes = std::min(limits.memory_bytes, limits.total_bytes);
  return {};
}

// It holds what processes had in memory: a folder that the user has made, with the access that they
// want.
Result<> set_attachments(LocalOptions& options, const std::string& value) {
  std::error_code failed;
  if (!std::filesystem::is_directory(value, failed)) {
    return invalid("must be an existing folder");
  }
  options.volume.attachments_path = absolute(value);
  return {};
}

Result<> set_name(LocalOptions& options, const std::string& value) {
  if (!valid_volume_name(value)) {
    return invalid(
        "must be one word of a path: UTF-8, at most 255 bytes, no slash, no control character, and "
        "no UUID");
  }
  options.volume.name = value;
  return {};
}

Result<> set_direct(LocalOptions& options, const std::string& value) {
  CKPT_ASSIGN(options.direct, parse_switch(value));
  return {};
}

Result<> set_backup(LocalOptions& options, const std::string& value) {
  options.has_backup = value != "none";
  options.is_place_said = options.has_backup;
  CKPT_ASSIGN(options.store_place, options.has_backup ? parse_backup(value) : std::string());
  return {};
}

Result<> set_tls(LocalOptions& options, const std::string& value) {
  CKPT_ASSIGN(options.tls.use, parse_tls_use(value));
  return {};
}

Result<> set_certificates(LocalOptions& options, const std::string& value) {
  options.tls.certificates = absolute(value);
  return {};
}

Result<> set_psk(LocalOptions& options, const std::string& value) {
  options.tls.psk = absolute(value);
  return {};
}

Result<> set_verify_peer(LocalOptions& options, const std::string& value) {
  CKPT_ASSIGN(options.tls.verify_peer, parse_switch(value));
  return {};
}

constexpr std::array<Parameter, 23> kParameters{{
    {"file",
     [](LocalOptions& o, const std::string& v) -> Result<> {
       if (!o.image_path.empty()) {
         return fail(ErrorKind::kInvalid, o.image_path +
                                              " is the image already: one server serves "
                                              "one, start another for " +
                                              v);
       }
       o.image_path = absolute(v);
       return {};
     }},
    {"state",
     [](LocalOptions& o, const std::string& v) -> Result<> {
       o.state_path = absolute(v);
       return {};
     }},
    {"multi-conn",
     [](LocalOptions& o, const std::string& v) -> Result<> {
       CKPT_ASSIGN(o.volume.clients.multi_conn, parse_switch(v));
       return {};
     }},
    {"format",
     [](LocalOptions& o, const std::string& v) -> Result<> {
       o.raw = v == "raw";
       return o.raw ? Result<>() : Result<>(invalid("only raw images are served"));
     }},
    {"backup", set_backup},
    {"attachments", set_attachments},
    {"size", set_size},
    {"batch-bytes", set_batch_bytes},
    {"batch-delay", set_batch_delay},
    {"compress", set_compress},
    {"io", set_io},
    {"takeover", set_takeover},
    {"start", set_start},
    {"require-backup", set_require_backup},
    {"confirm", set_confirm},
    {"checkpoint-interval", set_interval},
    {"preserve-limit", set_preserve_limit},
    {"direct", set_direct},
    {"tls", set_tls},
    {"name", set_name},
    {"tls-certificates", set_certificates},
    {"tls-psk", set_psk},
    {"tls-verify-peer", set_verify_peer},
}};

}  // namespace

Result<> set_parameter(LocalOptions& options, const std::string& key, const std::string& value) {
  for (const Parameter& parameter : kParameters) {
    if (key == parameter.key) {
      auto set = parameter.set(options, value);
      return set ? set : Result<>(within(std::string(key).append("=").append(value), set.error()));
    }
  }
  return invalid("unknown parameter " + key + "; nbdkit ckpt --help lists them");
}

std::string default_name(const std::string& image_path) {
  const std::string name = std::filesystem::path(image_path).filename().string();
  return valid_volume_name(name) ? name : "";
}

Result<> check_parameters(const LocalOptions& options) {
  CKPT_TRY(check_said_tls(options.tls));
  const bool is_elsewhere = !options.is_place_said || is_remote_place(options.store_place);
  return options.tls.is_used() && !(options.has_backup && is_elsewhere)
             ? invalid("tls-certificates and tls-psk are for a back-up at backup=HOST:PORT")
             : Result<>();
}

Result<std::string> parse_backup(const std::string& value) {
  const std::string prefix = "embedded:";
  if (value == "embedded") {
    return std::string();
  }
  if (value.rfind(prefix, 0) == 0 && value.size() > prefix.size()) {
    return absolute(value.substr(prefix.size()));
  }
  if (value == prefix || value.find(':') == std::string::npos) {
    return invalid(
        "must be embedded, embedded:DIR, unix:PATH or HOST:PORT (or, for a server only, none)");
  }
  CKPT_ASSIGN(const Address address, parse_address(value));
  return address.to_string();
}

Result<std::string> parse_backup_option(const std::string& value) {
  auto place = parse_backup(value);
  return place ? place : within("--backup=" + value, place.error());
}

Result<uint64_t> parse_size(const std::string& value) {
  const std::string suffixes = "kMGTPE";
  uint64_t unit = 1;
  std::string digits = value;
  if (!value.empty() && (value.back() < '0' || value.back() > '9')) {
    const size_t at = value.back() == 'K' ? 0 : suffixes.find(value.back());
    const bool bytes = value.back() == 'b';
    const bool sectors = value.back() == 's';
    if (at == std::string::npos && !bytes && !sectors) {
      return invalid("not a size: " + value + " (bytes, or with k, M, G, T, P or E)");
    }
    unit = bytes ? 1 : sectors ? 512 : uint64_t{1} << (10 * (at + 1));
    digits.pop_back();
  }
  CKPT_ASSIGN(const uint64_t number, parse_number(digits));
  if (number > UINT64_MAX / unit) {
    return invalid("too large: " + value);
  }
  return number * unit;
}

}  // namespace ckpt
