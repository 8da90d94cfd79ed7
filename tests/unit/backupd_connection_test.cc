// SPDX-License-Identifier: Apache-2.0
// A connection at the server, over a real socket and a real store: every request, what is refused,
// and who has the session.
#include "tests/unit/served_talk.h"

namespace ckpt::test {
namespace {

using std::chrono::milliseconds;

class ConnectionTest : public testing::Test, protected FirstCheckpoint {
 protected:
  // What a batch of these extents has, and that it is on its way.
  void ship(Talk& talk, uint64_t epoch, const std::vector<Extent>& extents) {
    const EncodedBatch shipped = batch(epoch, extents);
    ASSERT_DONE(talk.ask(FrameType::kBatch, encode_batch_body(shipped)));
    const auto decoded = decode_batch(shipped.header, shipped.payload, kPeerDiskBytes);
    ASSERT_DONE(decoded);
    uint64_t at = 0;
    for (const Extent& extent : decoded->extents) {
      const bool is_data = extent.kind == ExtentKind::kData;
      for (uint64_t i = 0; i < extent.length; ++i) {
        truth_[extent.offset + i] = is_data ? decoded->data[at++] : std::byte{0};
      }
    }
  }
  Result<> confirm(Talk& talk, uint64_t number) {
    CKPT_TRY(talk.ask(FrameType::kConfirm, encode_confirmation(confirmation(number))));
    return {};
  }
  // A volume with a checkpoint 2, whose session has ended.
  void make_checkpoint() {
    Talk talk(shelf_, 1);
    ASSERT_DONE(talk.begin());
    ship(talk, 1, {data(0, 3), zeroes(3, 1)});
    ship(talk, 2, {data(2, 4), data(15, 1)});
    ASSERT_DONE(confirm(talk, 2));
  }

  OneVolume shelf_;
  Content truth_ = Content(kPeerDiskBytes);
};

TEST_F(ConnectionTest, ShipsAndConfirms) {
  make_checkpoint();
  EXPECT_EQ(shelf_.volume->store().checkpoints()->back().id.number.value, 2U);
  Content now(kPeerDiskBytes);
  ASSERT_DONE(shelf_.volume->store().read_confirmed(0, now));
  EXPECT_EQ(now, truth_);
}

TEST_F(ConnectionTest, TheGreetingSaysWhatThereIs) {
  make_checkpoint();
  Talk talk(shelf_, 2);
  const auto welcome = talk.hello(Role::kSession);
  ASSERT_DONE(welcome);
  EXPECT_EQ(welcome->size_bytes, kPeerDiskBytes);
  EXPECT_EQ(welcome->connection, 2U);
  const auto body = talk.ask(FrameType::kBeginSession, {}, FrameType::kGreeting);
  ASSERT_DONE(body);
  const auto greeting = decode_greeting(*body);
  ASSERT_DONE(greeting);
  EXPECT_EQ(greeting->incarnation, 7U);
  ASSERT_TRUE(greeting->last);
  EXPECT_EQ(greeting->last->name, "cp2");
}

TEST_F(ConnectionTest, AReaderReads) {
  make_checkpoint();
  Talk talk(shelf_, 2);
  ASSERT_DONE(talk.hello(Role::kReader));
  const auto all = talk.ask(
      FrameType::kRead, encode_read({0, static_cast<uint32_t>(kPeerDiskBytes)}), FrameType::kData);
  ASSERT_DONE(all);
  EXPECT_EQ(*all, truth_);
  const auto range = talk.ask(FrameType::kNextData, encode_next_data(0), FrameType::kDataRange);
  ASSERT_DONE(range);
  EXPECT_EQ((*decode_data_range(*range))->offset, 0U);
  const auto list =
      talk.ask(FrameType::kCheckpoints, encode_checkpoints({0}), FrameType::kCheckpointList);
  ASSERT_DONE(list);
  EXPECT_EQ(decode_checkpoint_list(*list)->checkpoints.size(), 1U);
  const auto none =
      talk.ask(FrameType::kCheckpoints, encode_checkpoints({2}), FrameType::kCheckpointList);
  EXPECT_TRUE(decode_checkpoint_list(*none)->checkpoints.empty());
  const auto status = talk.ask(FrameType::kStatus, {}, FrameType::kStoreStatus);
  ASSERT_DONE(status);
  EXPECT_EQ(decode_store_status(*status)->confirmed->id.number.value, 2U);
  ASSERT_DONE(talk.ask(FrameType::kPing, {}));
  EXPECT_KIND(kInvalid,
              talk.ask(FrameType::kRead, encode_read({kPeerDiskBytes, 1}), FrameType::kData));
  EXPECT_KIND(kInvalid,
              talk.ask(FrameType::kRead, encode_read({kPeerDiskBytes - 1, 2}), FrameType::kData));
  ASSERT_DONE(talk.ask(FrameType::kPing, {}));  // what is refused ends nothing
}

TEST_F(ConnectionTest, Exports) {
  make_checkpoint();
  Talk talk(shelf_, 2);
  ASSERT_DONE(talk.hello(Role::kReader));
  talk.send(FrameType::kExport, encode_export({}));
  const auto begins = talk.hear(FrameType::kExportBegins);
  ASSERT_DONE(begins);
  EXPECT_EQ(decode_export_begins(*begins)->checkpoint.id.number.value, 2U);
  Content copy(kPeerDiskBytes, std::byte{0xee});
  while (talk.hear_content(copy)) {
  }
  EXPECT_EQ(copy, truth_);
  EXPECT_KIND(kNotFound,
              talk.ask(FrameType::kExport, encode_export(Epoch{1}), FrameType::kExportBegins));
}

TEST_F(ConnectionTest, ANewSessionFencesTheOneBefore) {
  Talk old(shelf_, 1);
  ASSERT_DONE(old.begin());
  ship(old, 1, {data(0, 1)});
  const Confirmation late = confirmation(1);
  Talk young(shelf_, 2);
  ASSERT_DONE(young.begin());
  EXPECT_KIND(kFenced, old.ask(FrameType::kConfirm, encode_confirmation(late)));
  EXPECT_KIND(kFenced, old.ask(FrameType::kAccept, encode_accept(7)));
  EXPECT_TRUE(shelf_.volume->store().checkpoints()->empty());
  ASSERT_DONE(old.ask(FrameType::kPing, {}));
  // It goes without taking anything along.
  (void)old.end();
  ASSERT_DONE(young.ask(FrameType::kAccept, encode_accept(8)));
}

// It would leave out what is a hole of the disk, and is none there.
TEST_F(ConnectionTest, AFirstCopyThatHasBegunIsNotForWhoCannotGoOnWithIt) {
  Talk first(shelf_, 1);
  ASSERT_DONE(first.begin());
  ship(first, 1, {data(0, 1)});
  Talk older(shelf_, 2);
  older.features = kHasNames;
  ASSERT_DONE(older.hello(Role::kSession));
  EXPECT_KIND(kInvalid, older.ask(FrameType::kBeginSession, {}, FrameType::kGreeting));
  Talk newer(shelf_, 3);
  ASSERT_DONE(newer.hello(Role::kSession));
  const auto body = newer.ask(FrameType::kBeginSession, {}, FrameType::kGreeting);
  ASSERT_DONE(body);
  const auto greeting = decode_greeting(*body);
  ASSERT_DONE(greeting);
  EXPECT_TRUE(greeting->is_begun);
}

PrimaryPlace place_at(uint8_t identity, const std::string& host, const std::string& path) {
  Digest digest;
  digest.bytes.fill(identity);
  return make_place(digest, host, path);
}

// A client that says which primary it is.
Result<> place_session(Talk& talk, const PrimaryPlace& place) {
  CKPT_TRY(talk.hello(Role::kSession));
  CKPT_TRY(talk.ask(FrameType::kBeginSession, encode_place(place), FrameType::kGreeting));
  return {};
}

TEST_F(ConnectionTest, AnotherPrimaryIsRefusedWhileOneIsThere) {
  Talk first(shelf_, 1);
  ASSERT_DONE(place_session(first, place_at(1, "web1", "/srv/disk.img")));
  ASSERT_DONE(first.ask(FrameType::kAccept, encode_accept(7)));
  ship(first, 1, {data(0, 3)});
  Talk second(shelf_, 2);
  const auto refused = place_session(second, place_at(2, "web2", "/srv/copy.img"));
  EXPECT_KIND(kBusy, refused);
  for (const char* const part :
       {"web1:/srv/disk.img", "web2:/srv/copy.img", "volume 11111111-", "from the client"}) {
    EXPECT_NE(refused.error().message().find(part), std::string::npos) << refused.error().message();
  }
  EXPECT_KIND(kFenced, second.ask(FrameType::kAccept, encode_accept(8)));
  const auto again = encode_place(place_at(2, "web2", "/srv/copy.img"));
  EXPECT_KIND(kBusy, second.ask(FrameType::kBeginSession, again, FrameType::kGreeting));
  // What the first has shipped is still pending, and its session goes on.
  ASSERT_DONE(confirm(first, 1));
  Content now(kPeerDiskBytes);
  ASSERT_DONE(shelf_.volume->store().read_confirmed(0, now));
  EXPECT_EQ(now, truth_);
  (void)first.end();
  ASSERT_DONE(second.ask(FrameType::kBeginSession, again, FrameType::kGreeting));
  ASSERT_DONE(second.ask(FrameType::kAccept, encode_accept(8)));
}

// Whatever the image is called by then: the link was lost, or its server was killed.
TEST_F(ConnectionTest, TheSamePrimaryFencesItsSessionBefore) {
  Talk old(shelf_, 1);
  ASSERT_DONE(place_session(old, place_at(1, "web1", "/srv/disk.img")));
  ASSERT_DONE(old.ask(FrameType::kAccept, encode_accept(7)));
  Talk young(shelf_, 2);
  ASSERT_DONE(place_session(young, place_at(1, "web1", "/srv/renamed.img")));
  EXPECT_KIND(kFenced, old.ask(FrameType::kAccept, encode_accept(7)));
  ASSERT_DONE(young.ask(FrameType::kAccept, encode_accept(8)));
  // The name that was said last is what others hear.
  Talk other(shelf_, 3);
  const auto refused = place_session(other, place_at(2, "web2", "/srv/copy.img"));
  EXPECT_KIND(kBusy, refused);
  EXPECT_NE(refused.error().message().find("/srv/renamed.img"), std::string::npos);
}

// It may have found that it has diverged, and stay connected.
TEST_F(ConnectionTest, APrimaryThatWasNotAcceptedKeepsNobodyOut) {
  Talk copy(shelf_, 1);
  ASSERT_DONE(place_session(copy, place_at(2, "web2", "/srv/copy.img")));
  Talk original(shelf_, 2);
  ASSERT_DONE(place_session(original, place_at(1, "web1", "/srv/disk.img")));
  ASSERT_DONE(original.ask(FrameType::kAccept, encode_accept(7)));
  EXPECT_KIND(kFenced, copy.ask(FrameType::kAccept, encode_accept(8)));
}

// A client of before says nothing: it may be the same one.
TEST_F(ConnectionTest, APrimaryThatDoesNotSayWhichItIsMayBeAny) {
  Talk unnamed(shelf_, 1);
  ASSERT_DONE(unnamed.begin());
  Talk named(shelf_, 2);
  ASSERT_DONE(place_session(named, place_at(1, "web1", "/srv/disk.img")));
  ASSERT_DONE(named.ask(FrameType::kAccept, encode_accept(7)));
  Talk again(shelf_, 3);
  ASSERT_DONE(again.begin());
  EXPECT_KIND(kFenced, named.ask(FrameType::kAccept, encode_accept(7)));
}

TEST_F(ConnectionTest, RequestsMayBeSentAhead) {
  Talk talk(shelf_, 1);
  ASSERT_DONE(talk.begin());
  std::vector<uint64_t> blocks{0, 4, 8};
  for (const uint64_t block : blocks) {
    talk.send(FrameType::kBatch, encode_batch_body(batch(1, {data(block, 2)})));
  }
  talk.send(FrameType::kConfirm, encode_confirmation(confirmation(1)));
  for (size_t i = 0; i <= blocks.size(); ++i) {
    ASSERT_DONE(talk.hear(FrameType::kDone));
  }
  EXPECT_EQ(shelf_.volume->store().checkpoints()->size(), 1U);
}

TEST_F(ConnectionTest, ABatchOfAnotherVolumeEndsTheSessionOnly) {
  Talk talk(shelf_, 1);
  ASSERT_DONE(talk.begin());
  EncodedBatch foreign = batch(1, {data(0, 1)});
  foreign.header.volume = test_uuid(0x99);
  EXPECT_FALSE(talk.ask(FrameType::kBatch, encode_batch_body(foreign)));
  EXPECT_FALSE(talk.ask(FrameType::kConfirm, encode_confirmation(confirmation(1))));
  ASSERT_DONE(talk.ask(FrameType::kBeginSession, {}, FrameType::kGreeting));
  ASSERT_DONE(talk.ask(FrameType::kAccept, encode_accept(7)));
}

TEST_F(ConnectionTest, WhoDoesNotKeepToTheProtocolIsToldAndLeft) {
  const std::vector<std::pair<FrameType, std::vector<std::byte>>> wrong{
      {FrameType::kAccept, encode_accept(0)},                                          // not valid
      {FrameType::kHello, encode_hello({.volume = test_uuid(0x11), .software = ""})},  // twice
      {FrameType::kHole, encode_hole({0, 4096})},                                      // an answer
      {FrameType::kRead, {}},                                                          // no body
  };
  for (const auto& [type, body] : wrong) {
    Talk talk(shelf_, 1);
    ASSERT_DONE(talk.hello(Role::kSession));
    EXPECT_KIND(kCorrupt, talk.ask(type, body));
    EXPECT_KIND(kUnreachable, talk.ask(FrameType::kPing, {}));
    EXPECT_FALSE(talk.end()) << frame_name(type);
  }
}

// Nothing is wrong but the connection: the client may ask again over another one.
TEST_F(ConnectionTest, WhoseFrameCameDamagedIsToldThatItIsGivenUp) {
  const std::vector<std::byte> body = encode_read({0, 4096});
  for (size_t bit = 0; bit < (kFrameHeaderBytes + body.size()) * 8; bit += 7) {
    Talk talk(shelf_, 1);
    ASSERT_DONE(talk.hello(Role::kReader));
    talk.send_damaged(FrameType::kRead, body, bit);
    SCOPED_TRACE(bit);
    EXPECT_KIND(kUnreachable, talk.hear(FrameType::kData));
    EXPECT_KIND(kUnreachable, talk.ask(FrameType::kPing, {}));
    EXPECT_FALSE(talk.end());
  }
}

// A frame that comes twice, too early, or before the one that it follows. The connection ends
// there: what stood in its place is taken, once, and nothing after it.
TEST_F(ConnectionTest, FramesOutOfTheirOrderEndTheConnectionAndApplyNothing) {
  constexpr FrameType kBatch = FrameType::kBatch;
  constexpr FrameType kConfirm = FrameType::kConfirm;
  struct Wrong {
    const char* said;
    FrameType first;
    std::pair<uint64_t, uint64_t> requests;  // the last one was 3
  };
  for (const Wrong& wrong : {Wrong{"batch: request 3, where request 4 is due", kBatch, {3, 4}},
                             Wrong{"batch: request 5, where request 4 is due", kBatch, {5, 6}},
                             Wrong{"confirm: request 5, where request 4 is due", kConfirm, {5, 4}},
                             Wrong{"batch: request 1, where request 4 is due", kBatch, {1, 2}}}) {
    SCOPED_TRACE(wrong.said);
    OneVolume shelf;
    FirstCheckpoint peer;
    const auto batch = encode_batch_body(peer.batch(1, {data(5, 1)}));
    const auto confirmed = encode_confirmation(peer.confirmation(1));
    Talk talk(shelf, 1);
    ASSERT_DONE(talk.begin());
    ASSERT_EQ(talk.last_request(), 3U);
    const bool is_batch_first = wrong.first == kBatch;
    talk.send_as(wrong.requests.first, wrong.first, is_batch_first ? batch : confirmed);
    talk.send_as(wrong.requests.second, is_batch_first ? kConfirm : kBatch,
                 is_batch_first ? confirmed : batch);
    const auto refused = talk.hear(FrameType::kDone);
    EXPECT_KIND(kCorrupt, refused);
    EXPECT_NE(refused.error().context.find(wrong.said), std::string::npos)
        << refused.error().message();
    EXPECT_KIND(kUnreachable, talk.hear(FrameType::kDone));
    EXPECT_KIND(kCorrupt, talk.end());
    EXPECT_TRUE(shelf.volume->store().checkpoints()->empty());
    Talk anew(shelf, 2);
    ASSERT_DONE(anew.begin());
    ASSERT_DONE(anew.ask(kBatch, batch));
    ASSERT_DONE(anew.ask(kConfirm, confirmed));
    EXPECT_EQ(shelf.volume->store().checkpoints()->size(), 1U);
  }
}

TEST_F(ConnectionTest, AConfirmationThatComesTwiceCountsOnce) {
  Talk talk(shelf_, 1);
  ASSERT_DONE(talk.begin());
  ship(talk, 1, {data(7, 1)});
  const auto first = encode_confirmation(confirmation(1));
  ASSERT_DONE(talk.ask(FrameType::kConfirm, first));
  talk.send_as(talk.last_request(), FrameType::kConfirm, first);
  EXPECT_KIND(kCorrupt, talk.hear(FrameType::kDone));
  EXPECT_KIND(kCorrupt, talk.end());
  Talk after(shelf_, 2);
  ASSERT_DONE(after.hello(Role::kSession));
  const auto body = after.ask(FrameType::kBeginSession, {}, FrameType::kGreeting);
  ASSERT_DONE(body);
  EXPECT_EQ(decode_greeting(*body)->last->id.number.value, 1U);
  EXPECT_EQ(shelf_.volume->store().checkpoints()->size(), 1U);
  Content now(kPeerDiskBytes);
  ASSERT_DONE(shelf_.volume->store().read_confirmed(0, now));
  EXPECT_EQ(now, truth_);
}

// It is told in the version of this server, whose layout of headers and `failed` all have in
// common.
TEST_F(ConnectionTest, WhoSpeaksAnotherVersionIsToldWhichOnesMet) {
  const auto hello = encode_hello(
      {.version = 7, .volume = test_uuid(0x11), .size_bytes = kPeerDiskBytes, .software = ""});
  Talk talk(shelf_, 1);
  talk.send_of_version(7, FrameType::kHello, hello);
  const auto refused = talk.hear(FrameType::kWelcome);
  EXPECT_KIND(kInvalid, refused);
  EXPECT_EQ(refused.error().context,
            "frame: the other side speaks version 7 of the protocol, and this side version 1: have "
            "the same version of ckpt on both machines");
  EXPECT_KIND(kUnreachable, talk.hear(FrameType::kWelcome));
  EXPECT_FALSE(talk.end());
}

// The highest that a client speaks is no more than that: it hears which one is spoken.
TEST_F(ConnectionTest, WhoSpeaksLaterVersionsTooIsWelcomedInThisOne) {
  Talk talk(shelf_, 1);
  talk.send(FrameType::kHello, encode_hello({.version = 7,
                                             .features = ~uint64_t{0},
                                             .volume = test_uuid(0x11),
                                             .size_bytes = kPeerDiskBytes,
                                             .software = ""}));
  const auto body = talk.hear(FrameType::kWelcome);
  ASSERT_DONE(body);
  const auto welcome = decode_welcome(*body);
  ASSERT_DONE(welcome);
  EXPECT_EQ(welcome->version, kProtocolVersion);
  EXPECT_EQ(welcome->features, kFeatures);
}

// By their headers alone: the server does not wait for the bodies, nor take memory for them.
TEST_F(ConnectionTest, ABodyOutOfItsPlaceIsNotWaitedFor) {
  const auto large = static_cast<uint32_t>(body_bytes_max(FrameType::kBatch));
  Talk hasty(shelf_, 1);
  hasty.announce(FrameType::kBatch, large);
  EXPECT_KIND(kCorrupt, hasty.hear(FrameType::kDone));
  Talk reader(shelf_, 2);
  ASSERT_DONE(reader.hello(Role::kReader));
  reader.announce(FrameType::kBatch, large);
  EXPECT_KIND(kInvalid, reader.hear(FrameType::kDone));
}

TEST_F(ConnectionTest, AReaderChangesNothing) {
  make_checkpoint();
  const Fork fork{{test_uuid(0x22), {2}}, test_uuid(0x33)};
  const std::vector<std::pair<FrameType, std::vector<std::byte>>> requests{
      {FrameType::kBeginSession, {}},
      {FrameType::kAccept, encode_accept(9)},
      {FrameType::kBatch, encode_batch_body(batch(3, {data(0, 1)}))},
      {FrameType::kConfirm, encode_confirmation(confirmation(3))},
      {FrameType::kRollBack, encode_roll_back(fork)}};
  for (const auto& [type, body] : requests) {
    Talk talk(shelf_, 2);
    ASSERT_DONE(talk.hello(Role::kReader));
    EXPECT_KIND(kInvalid, talk.ask(type, body));
  }
  EXPECT_EQ(shelf_.volume->store().checkpoints()->back().id.number.value, 2U);
  EXPECT_TRUE(shelf_.volume->store().record().forks.empty());
}

TEST_F(ConnectionTest, AVolumeThatIsNotThere) {
  Talk talk(shelf_, 1);
  EXPECT_KIND(kNotFound,
              talk.ask(FrameType::kHello, encode_hello({.volume = test_uuid(0x99), .software = ""}),
                       FrameType::kWelcome));
  Talk hasty(shelf_, 2);
  EXPECT_KIND(kCorrupt, hasty.ask(FrameType::kPing, {}));
}

TEST_F(ConnectionTest, AVisitorIsAboutNoVolume) {
  Talk talk(shelf_, 1);
  const auto welcome = talk.visit();
  ASSERT_DONE(welcome);
  EXPECT_EQ(welcome->size_bytes, 0U);
  ASSERT_DONE(talk.ask(FrameType::kPing, {}));
  const auto list = talk.volumes();
  ASSERT_DONE(list);
  ASSERT_EQ(list->volumes.size(), 1U);
  EXPECT_EQ(list->volumes[0].volume, test_uuid(0x11));
  EXPECT_EQ(list->volumes[0].size_bytes, kPeerDiskBytes);
  EXPECT_EQ(list->volumes[0].name, "");
  EXPECT_FALSE(list->more);
  for (const auto type : {FrameType::kStatus, FrameType::kBeginSession}) {
    Talk other(shelf_, 2);
    ASSERT_DONE(other.visit());
    EXPECT_KIND(kInvalid, other.ask(type, {}));
  }
  Talk reader(shelf_, 3);
  ASSERT_DONE(reader.hello(Role::kReader));
  EXPECT_KIND(kInvalid, reader.ask(FrameType::kVolumes, encode_volumes({})));
}

TEST_F(ConnectionTest, AVolumeIsFoundByItsName) {
  Talk primary(shelf_, 1);
  ASSERT_DONE(primary.begin());
  ASSERT_DONE(primary.ask(FrameType::kName, encode_name("accounts")));
  const Uuid volume = test_uuid(0x11);
  const std::vector<std::pair<VolumesRequest, bool>> asked{{{Uuid{}, ""}, true},
                                                           {{Uuid{}, "accounts"}, true},
                                                           {{Uuid{}, "account"}, false},
                                                           {{test_uuid(0x10), "accounts"}, true},
                                                           {{volume, "accounts"}, false}};
  Talk talk(shelf_, 2);
  ASSERT_DONE(talk.visit());
  for (const auto& [request, is_there] : asked) {
    const auto list = talk.volumes(request);
    ASSERT_DONE(list);
    EXPECT_EQ(list->volumes.size(), is_there ? 1U : 0U) << request.name;
  }
  Talk reader(shelf_, 3);
  ASSERT_DONE(reader.hello(Role::kReader));
  EXPECT_KIND(kInvalid, reader.ask(FrameType::kName, encode_name("mine")));
  EXPECT_EQ(shelf_.volume->name(), "accounts");
}

// They come in parts, none of which is too long for a frame.
TEST_F(ConnectionTest, ManyVolumesComeInParts) {
  class ManyVolumes final : public OneVolume {
   public:
    std::vector<NamedVolume> volumes() override {
      std::vector<NamedVolume> many(2 * kVolumesPerAnswer + 7);
      for (size_t i = 0; i < many.size(); ++i) {
        many[i] = {Uuid{}, 4096, std::string(kVolumeNameBytesMax, 'x')};
        many[i].volume.bytes[14] = static_cast<uint8_t>((i + 1) >> 8U);
        many[i].volume.bytes[15] = static_cast<uint8_t>(i + 1);
      }
      return many;
    }
  };
  ManyVolumes shelf;
  Talk talk(shelf, 1);
  ASSERT_DONE(talk.visit());
  size_t count = 0;
  VolumeList part{{}, true};
  while (part.more) {
    const auto heard =
        talk.volumes({part.volumes.empty() ? Uuid{} : part.volumes.back().volume, ""});
    ASSERT_DONE(heard);
    part = *heard;
    count += part.volumes.size();
  }
  EXPECT_EQ(count, 2 * kVolumesPerAnswer + 7);
}

TEST_F(ConnectionTest, APrimaryGivesItsRoleUp) {
  make_checkpoint();
  const CheckpointId last{test_uuid(0x22), {2}};
  {
    Talk talk(shelf_, 2);
    ASSERT_DONE(talk.hello(Role::kSession));
    ASSERT_DONE(talk.ask(FrameType::kBeginSession, {}, FrameType::kGreeting));
    EXPECT_KIND(kInvalid, talk.ask(FrameType::kPromote, encode_promote({last, test_uuid(0x33)})));
  }
  {
    Talk talk(shelf_, 3);
    ASSERT_DONE(talk.begin());
    ship(talk, 3, {data(5, 1)});  // stays pending
    const CheckpointId older{test_uuid(0x22), {1}};
    for (const Fork& fork : {Fork{older, test_uuid(0x33)}, Fork{last, test_uuid(0x22)}}) {
      EXPECT_KIND(kInvalid, talk.ask(FrameType::kPromote, encode_promote(fork)));
    }
    EXPECT_FALSE(shelf_.volume->store().record().promoted);
    ASSERT_DONE(talk.ask(FrameType::kPromote, encode_promote({last, test_uuid(0x33)})));
  }
  const StoreRecord record = shelf_.volume->store().record();
  EXPECT_TRUE(record.promoted);
  EXPECT_EQ(record.last->id.timeline, test_uuid(0x33));
  EXPECT_EQ(record.forks, std::vector<CheckpointId>{last});
  EXPECT_FALSE(shelf_.is_released) << "the shelf has what it has become";
  EXPECT_EQ(shelf_.releases, 1);
}

TEST_F(ConnectionTest, AForkIsRecorded) {
  make_checkpoint();
  Talk talk(shelf_, 2);
  ASSERT_DONE(talk.begin());
  ASSERT_DONE(
      talk.ask(FrameType::kRollBack, encode_roll_back({{test_uuid(0x22), {2}}, test_uuid(0x33)})));
  EXPECT_EQ(shelf_.volume->store().record().forks.size(), 1U);
}

}  // namespace
}  // namespace ckpt::test
