// SPDX-License-Identifier: Apache-2.0
#include "plugin/control_fields.h"

#include <ctime>

namespace ckpt {
namespace {

// Whether arrays and objects are within one another more than kNestingMax deep, told without
// parsing, so that the parser never sees such a text.
bool too_deep(std::string_view text) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char byte = text[i];
    if (in_string) {
      in_string = byte != '"';
      i += byte == '\\' ? 1 : 0;
    } else if (byte == '"') {
      in_string = true;
    } else if (byte == '{' || byte == '[') {
      if (++depth > kNestingMax) {
        return true;
      }
    } else if ((byte == '}' || byte == ']') && depth > 0) {
      --depth;
    }
  }
  return false;
}

}  // namespace

Result<ParsedJson> parse_object(std::string_view line, size_t bytes_max, ErrorKind kind) {
  if (line.size() > bytes_max) {
    return fail(kind, "the line is longer than " + std::to_string(bytes_max) + " bytes");
  }
  if (too_deep(line)) {
    return fail(kind, "the line nests deeper than " + std::to_string(kNestingMax));
  }
  ParsedJson object = ParsedJson::parse(line.begin(), line.end(), nullptr, false);
  if (!object.is_object()) {
    return fail(kind, "the line is not one JSON object");
  }
  const auto schema = object.find("schema");
  if (schema == object.end() || *schema != kControlSchema) {
    return fail(kind, "\"schema\" is not " + std::to_string(kControlSchema));
  }
  return object;
}

std::optional<Digest> parse_digest(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  Digest digest;
  if (text.size() != 2 * digest.bytes.size()) {
    return std::nullopt;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t value = kDigits.find(text[i]);
    if (value == std::string_view::npos) {
      return std::nullopt;
    }
    digest.bytes[i / 2] = static_cast<uint8_t>(digest.bytes[i / 2] * size_t{16} + value);
  }
  return digest;
}

std::optional<WallTime> parse_time(const std::string& text) {
  std::tm parts{};
  const char* rest = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  const std::string_view fraction = rest == nullptr ? std::string_view() : rest;
  if (fraction.size() != 5 || fraction.front() != '.' || fraction.back() != 'Z' ||
      fraction.substr(1, 3).find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  const time_t seconds = timegm(&parts);
  // Beyond these an int64 of nanoseconds overflows.
  if (seconds < 0 || seconds > std::numeric_limits<int64_t>::max() / 1'000'000'000 - 1) {
    return std::nullopt;
  }
  const int milliseconds =
      (fraction[1] - '0') * 100 + (fraction[2] - '0') * 10 + (fraction[3] - '0');
  return std::chrono::seconds(seconds) + std::chrono::milliseconds(milliseconds);
}

Fields::Fields(const ParsedJson& object, ErrorKind kind) : object_(object), kind_(kind) {
  if (!object.is_object()) {
    refuse("what should be an object", "is none");
  }
}

const ParsedJson* Fields::find(const char* name) const {
  if (!object_.is_object()) {
    return nullptr;
  }
  const auto field = object_.find(name);
  return field == object_.end() ? nullptr : &*field;
}

uint64_t Fields::number(const char* name, uint64_t most) {
  const ParsedJson* field = find(name);
  if (field == nullptr || !field->is_number_unsigned() || field->get<uint64_t>() > most) {
    refuse(name, "is no number from 0 to " + std::to_string(most));
    return 0;
  }
  return field->get<uint64_t>();
}

bool Fields::flag(const char* name) {
  const ParsedJson* field = find(name);
  if (field == nullptr || !field->is_boolean()) {
    refuse(name, "is not true or false");
    return false;
  }
  return field->get<bool>();
}

std::string Fields::text(const char* name) {
  const ParsedJson* field = find(name);
  if (field == nullptr || !field->is_string()) {
    refuse(name, "is no string");
    return {};
  }
  return field->get<std::string>();
}

Uuid Fields::uuid(const char* name) {
  const auto value = Uuid::parse(text(name));
  if (!value) {
    refuse(name, "is no UUID");
  }
  return value.value_or(Uuid{});
}

Digest Fields::digest(const char* name) {
  const auto value = parse_digest(text(name));
  if (!value) {
    refuse(name, "is no digest");
  }
  return value.value_or(Digest{});
}

WallTime Fields::time(const char* name) {
  const auto value = parse_time(text(name));
  if (!value) {
    refuse(name, "is no time");
  }
  return value.value_or(WallTime{});
}

const ParsedJson& Fields::array(const char* name) {
  static const ParsedJson kEmpty = ParsedJson::array();
  const ParsedJson* field = find(name);
  if (field == nullptr || !field->is_array()) {
    refuse(name, "is no array");
    return kEmpty;
  }
  return *field;
}

const ParsedJson* Fields::optional(const char* name) {
  const ParsedJson* field = find(name);
  return field == nullptr || field->is_null() ? nullptr : field;
}

void Fields::only(const std::set<std::string>& names) {
  for (auto field = object_.begin(); object_.is_object() && field != object_.end(); ++field) {
    if (!names.contains(field.key())) {
      refuse(field.key(), "is not a field of this request");
    }
  }
}

void Fields::take(const Result<>& check) {
  if (!check && !error_) {
    error_ = check.error();
  }
}

void Fields::refuse(const std::string& name, const std::string& reason) {
  if (!error_) {
    error_ = Error{kind_, 0, "\"" + name + "\" " + reason};
  }
}

}  // namespace ckpt
