// SPDX-License-Identifier: Apache-2.0
// Input that nobody means well with is an error: never a throw, never a crash, never a default.
#include <gtest/gtest.h>

#include <random>

#include "plugin/control_codec.h"
#include "tests/unit/control_fake_volume.h"

namespace ckpt {
namespace {

void expect_refused(const std::string& line) {
  const auto request = decode_request(line);
  ASSERT_FALSE(request) << line.substr(0, 200);
  EXPECT_EQ(request.error().kind, ErrorKind::kInvalid);
}

TEST(ControlHostile, NotAnObjectOfOurs) {
  for (const char* line : {"",
                           " ",
                           "null",
                           "1",
                           "\"status\"",
                           "[]",
                           "{",
                           "}",
                           "{}",
                           "{]",
                           "{\"schema\":1",
                           "\0",
                           R"({"command":"status"})",
                           R"({"schema":2,"command":"status"})",
                           R"({"schema":"1","command":"status"})",
                           R"({"schema":[1],"command":"status"})",
                           R"({"schema":1})",
                           R"({"schema":1,"command":7})",
                           R"({"schema":1,"command":"reboot"})",
                           R"({"schema":1,"command":"status"}{"schema":1,"command":"status"})",
                           R"({"schema":1,"command":"status",})"}) {
    expect_refused(line);
  }
}

TEST(ControlHostile, FieldsOfTheWrongType) {
  for (const char* line : {R"({"schema":1,"command":"checkpoint","name":7})",
                           R"({"schema":1,"command":"checkpoint","name":{"a":1}})",
                           R"({"schema":1,"command":"checkpoint","timeout_ms":"60000"})",
                           R"({"schema":1,"command":"checkpoint","timeout_ms":-1})",
                           R"({"schema":1,"command":"checkpoint","timeout_ms":1.5})",
                           R"({"schema":1,"command":"checkpoint","timeout_ms":true})",
                           R"({"schema":1,"command":"rollback","checkpoint":7})",
                           R"({"schema":1,"command":"rollback","checkpoint":""})",
                           R"({"schema":1,"command":"rollback","clients":"kill"})",
                           R"({"schema":1,"command":"rollback","clients":[]})",
                           R"({"schema":1,"command":"rollback","dry_run":"yes"})",
                           R"({"schema":1,"command":"rollback","dry_run":1})"}) {
    expect_refused(line);
  }
}

TEST(ControlHostile, MisspeltFieldIsNotADefault) {
  expect_refused(R"({"schema":1,"command":"rollback","dry-run":true})");
  expect_refused(R"({"schema":1,"command":"status","name":"x"})");
}

TEST(ControlHostile, HugeNumbers) {
  for (const char* number :
       {"604800001", "18446744073709551615", "18446744073709551616", "1e9", "1e999999",
        "-9223372036854775809", "99999999999999999999999999999999"}) {
    expect_refused(R"({"schema":1,"command":"checkpoint","timeout_ms":)" + std::string(number) +
                   "}");
  }
}

TEST(ControlHostile, Nesting) {
  const auto nested = [](size_t depth) {
    return R"({"schema":1,"command":"status","x":)" + std::string(depth, '[') +
           std::string(depth, ']') + "}";
  };
  EXPECT_NE(decode_request(nested(kNestingMax)).error().message().find("nests"), std::string::npos);
  expect_refused(nested(kNestingMax - 1));  // as an unknown field
  expect_refused(nested(20000));
  expect_refused(std::string(kRequestBytesMax, '['));
  expect_refused(std::string(kRequestBytesMax, '{'));
  // Brackets in strings are no nesting.
  EXPECT_TRUE(
      decode_request(R"({"schema":1,"command":"checkpoint","message":"[[[[[[[[[[[[[[[[[[\"[["})"));
}

TEST(ControlHostile, TooLong) {
  const std::string line = R"({"schema":1,"command":"status"})";
  EXPECT_TRUE(decode_request(line + std::string(kRequestBytesMax - line.size(), ' ')));
  expect_refused(line + std::string(kRequestBytesMax - line.size() + 1, ' '));
  expect_refused(R"({"schema":1,"command":"checkpoint","name":")" + std::string(256, 'x') + "\"}");
  expect_refused(R"({"schema":1,"command":"checkpoint","message":")" + std::string(4097, 'x') +
                 "\"}");
}

TEST(ControlHostile, NotUtf8) {
  expect_refused("{\"schema\":1,\"command\":\"checkpoint\",\"name\":\"\xff\xfe\"}");
  expect_refused("{\"schema\":1,\"command\":\"checkpoint\",\"name\":\"\xc3\"}");
  expect_refused(R"({"schema":1,"command":"checkpoint","name":"\ud800"})");
  expect_refused(R"({"schema":1,"command":"checkpoint","name":"a\u0000b"})");
  // A request of ours with such a name is encoded without a throw.
  EXPECT_FALSE(encode_request(CheckpointRequest{"\xff", "\xff", {}}).empty());
  EXPECT_FALSE(encode_error({ErrorKind::kIo, 0, "open \xff"}).empty());
}

TEST(ControlHostile, AnswersAreNotBelievedEither) {
  for (const char* line :
       {"", "[]", R"({"schema":1})", R"({"schema":1,"type":"joke"})", R"({"schema":1,"type":7})",
        R"({"schema":1,"type":"progress"})",
        R"({"schema":1,"type":"progress","done_bytes":-1,"total_bytes":1})",
        R"({"schema":1,"type":"error"})", R"({"schema":1,"type":"error","kind":1,"message":2})"}) {
    const auto answer = decode_answer(line);
    ASSERT_FALSE(answer) << line;
    EXPECT_EQ(answer.error().kind, ErrorKind::kCorrupt);
  }
}

TEST(ControlHostile, ResultsWithoutOneFieldAreRefused) {
  const ParsedJson whole = ParsedJson::parse(to_line(to_json(FakeVolume::default_status())));
  ASSERT_TRUE(decode_volume_status(whole));
  for (const auto& [name, value] : whole.items()) {
    ParsedJson object = whole;
    object.erase(name);
    const bool may_be_missing = name == "last_checkpoint" || name == "backup" || name == "uris" ||
                                name == "attachments_folder" || name == "name" || name == "lineage";
    EXPECT_EQ(decode_volume_status(object).has_value(), may_be_missing) << name;
    object[name] = ParsedJson::array({1, "x"});
    EXPECT_FALSE(decode_volume_status(object)) << name;
  }
}

TEST(ControlHostile, TimesAndDigests) {
  for (const char* time :
       {"", "yesterday", "2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.12Z",
        "2026-01-31T12:00:00.123Zx", "2026-01-31T12:00:00.1-3Z", "1969-12-31T23:59:59.000Z",
        "9999-12-31T23:59:59.000Z", "2026-13-31T12:00:00.123Z"}) {
    ParsedJson list = ParsedJson::parse(to_line(to_json(std::vector{sample_checkpoint(1)})));
    list["checkpoints"][0]["time"] = time;
    EXPECT_FALSE(decode_checkpoints(list)) << time;
  }
  for (const char* digest : {"", "xyz", "deadbeef", "DEADBEEF000000000000000000000000"}) {
    ParsedJson list = ParsedJson::parse(to_line(to_json(std::vector{sample_checkpoint(1)})));
    list["checkpoints"][0]["digest"] = digest;
    EXPECT_FALSE(decode_checkpoints(list)) << digest;
  }
}

// Every mutation of a valid line is an error or another valid request; nothing throws.
TEST(ControlHostile, Mutations) {
  std::mt19937_64 random(20260131);
  const std::string valid =
      encode_request(CheckpointRequest{"name", "message", std::chrono::seconds(5)});
  const std::string answer = encode_result(to_json(FakeVolume::default_status()));
  for (int i = 0; i < 20000; ++i) {
    std::string line = i % 2 == 0 ? valid : answer;
    for (uint64_t k = random() % 4 + 1; k > 0; --k) {
      const size_t at = random() % line.size();
      switch (random() % 3) {
        case 0: line[at] = static_cast<char>(random()); break;
        case 1: line.erase(at, random() % 8); break;
        default: line.insert(at, line.substr(random() % line.size(), random() % 8)); break;
      }
      line += line.empty() ? "x" : "";
    }
    (void)decode_request(line);
    if (auto decoded = decode_answer(line);
        decoded && std::holds_alternative<ParsedJson>(*decoded)) {
      (void)decode_volume_status(std::get<ParsedJson>(*decoded));
    }
  }
}

}  // namespace
}  // namespace ckpt
