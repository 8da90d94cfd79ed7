// SPDX-License-Identifier: Apache-2.0
// Where a back-up is, as a volume's record has it, and what a later start may change of it.
#include <gtest/gtest.h>

#include "plugin/backup_place.h"

namespace ckpt {
namespace {

const Address kHost{"", "host", "7000"};

TEST(BackupPlace, IsReadAsItWasWritten) {
  const std::vector<TlsOptions> all{
      {},
      {.use = TlsUse::kOff},
      {.certificates = "/etc/a b"},
      {.certificates = "/etc/tls", .verify_peer = false},
      {.psk = "/etc/a tls=off"},
  };
  for (const TlsOptions& tls : all) {
    const std::string place = remote_place(kHost, tls);
    EXPECT_TRUE(is_remote_place(place));
    const auto read = parse_remote_place(place);
    ASSERT_TRUE(read) << place << ": " << read.error().message();
    EXPECT_EQ(read->address, kHost);
    EXPECT_EQ(read->tls, tls) << place;
    EXPECT_EQ(describe_place(place, "/s"), "host:7000");
  }
  const Address socket{"/a tls=off", "", ""};
  EXPECT_EQ(parse_remote_place(remote_place(socket, {}))->address, socket);
}

TEST(BackupPlace, WhatIsNotKnownIsRefused) {
  for (const char* place : {"host:7000 tls=maybe", "host:7000 tls-psk=", "host:7000  tls=off",
                            "host:7000 tls-verify-peer=off", "host:7000 x", "host"}) {
    EXPECT_FALSE(parse_remote_place(place)) << place;
  }
}

// What is left out about the same address is as it was; another address inherits nothing.
TEST(BackupPlace, ALaterStartSaysWhatChanges) {
  const std::string psk = " tls-psk=/k";
  const TlsOptions certificates{.certificates = "/c"};
  const struct {
    const char* named;
    TlsOptions said;
    std::string recorded;
    std::string chosen;
  } rows[] = {
      {"host:7000", {}, "host:7000" + psk, "host:7000" + psk},
      {"host:7000", certificates, "host:7000" + psk, "host:7000 tls-certificates=/c"},
      {"host:7000", {.use = TlsUse::kOff}, "host:7000" + psk, "host:7000 tls=off"},
      {"host:7000", {}, "host:7000 tls=off", "host:7000 tls=off"},
      {"host:7000",
       {.verify_peer = true},
       "host:7000 tls-verify-peer=off tls-certificates=/c",
       "host:7000 tls-certificates=/c"},
      {"host:7000",
       {.verify_peer = false},
       "host:7000 tls-certificates=/c",
       "host:7000 tls-verify-peer=off tls-certificates=/c"},
      {"other:7000", {}, "host:7000" + psk, "other:7000"},
      {"other:7000", {}, "host:7000 tls=off", "other:7000"},
      {"other:7000", certificates, "host:7000 tls=off", "other:7000 tls-certificates=/c"},
      {"host:7000", certificates, "", "host:7000 tls-certificates=/c"},
      {"unix:/s", {}, "host:7000" + psk, "unix:/s"},
      {"unix:/s", {.use = TlsUse::kOff}, "", "unix:/s"},
  };
  for (const auto& row : rows) {
    const auto chosen = choose_remote_place(row.named, row.said, row.recorded);
    ASSERT_TRUE(chosen) << chosen.error().message();
    EXPECT_EQ(remote_place(chosen->address, chosen->tls), row.chosen);
  }
  EXPECT_FALSE(choose_remote_place("unix:/s", certificates, "")) << "TLS to a Unix socket";
}

// Nothing leaves this machine in the clear unless that was said.
TEST(BackupPlace, WithoutTlsItReachesThisMachineOnly) {
  EXPECT_EQ(TlsOptions{}.reach(), Reach::kMachine);
  EXPECT_EQ(TlsOptions{.use = TlsUse::kRequire}.reach(), Reach::kMachine);
  EXPECT_EQ(TlsOptions{.use = TlsUse::kOff}.reach(), Reach::kAnywhere);
  EXPECT_EQ(TlsOptions{.psk = "/k"}.reach(), Reach::kAnywhere);
  EXPECT_EQ(TlsOptions{.certificates = "/c"}.reach(), Reach::kAnywhere);
}

TEST(BackupPlace, ContradictionsAreNamed) {
  const auto refusal = [](const TlsOptions& options) {
    const auto checked = check_tls(options);
    return checked ? "right" : checked.error().message();
  };
  EXPECT_EQ(refusal({}), "right");
  EXPECT_EQ(refusal({.psk = "/k", .use = TlsUse::kRequire}), "right");
  EXPECT_EQ(refusal({.certificates = "/c", .verify_peer = false}), "right");
  EXPECT_NE(refusal({.certificates = "/c", .psk = "/k"}).find("one of them"), std::string::npos);
  EXPECT_NE(refusal({.psk = "/k", .use = TlsUse::kOff}).find("leave out"), std::string::npos);
  EXPECT_NE(refusal({.use = TlsUse::kRequire}).find("needs tls-certificates"), std::string::npos);
  EXPECT_NE(refusal({.psk = "/k", .verify_peer = false}).find("about certificates"),
            std::string::npos);
  EXPECT_NE(refusal({.verify_peer = false}).find("about certificates"), std::string::npos);
  EXPECT_TRUE(check_said_tls({.verify_peer = false})) << "the record may name certificates";
  EXPECT_FALSE(check_said_tls({.psk = "/k", .verify_peer = false}));
  EXPECT_FALSE(choose_remote_place("host:7000", {.verify_peer = false}, "host:7000 tls-psk=/k"));
}

}  // namespace
}  // namespace ckpt
