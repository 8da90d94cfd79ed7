// SPDX-License-Identifier: Apache-2.0
// Two primaries of one volume, at the same server.
#include "tests/unit/served_remote.h"

namespace ckpt::test {
namespace {

class RemotePlaceTest : public RemoteStoreTest {};

TEST_F(RemotePlaceTest, ASecondPrimaryIsRefusedUntilTheFirstHasGone) {
  const auto placed = [this](uint8_t identity, const std::string& path) {
    RemoteOptions chosen = options();
    Digest digest;
    digest.bytes.fill(identity);
    chosen.place = make_place(digest, "web" + std::to_string(identity), path);
    return chosen;
  };
  auto first = std::make_unique<RemoteStore>(placed(1, "/srv/disk.img"), system_clock());
  ASSERT_DONE(first->begin_session());
  ASSERT_DONE(first->accept(peer_.incarnation));
  RemoteStore second(placed(2, "/srv/copy.img"), system_clock());
  for (int tries = 0; tries < 2; ++tries) {
    EXPECT_KIND(kBusy, second.begin_session());
    const StoreStatus status = second.status();
    EXPECT_EQ(status.state, "failed");
    for (const std::string& part : {address_.to_string(), std::string("web1:/srv/disk.img"),
                                    std::string("web2:/srv/copy.img")}) {
      EXPECT_NE(status.error.find(part), std::string::npos) << status.error;
    }
    EXPECT_KIND(kBusy, second.check_link());
  }
  ASSERT_DONE(first->receive(batch(1, {data(0, 2)})));
  ASSERT_DONE(first->confirm(confirmation(1)));
  // The same one in another process, while nobody knows that the one before is gone.
  RemoteStore again(placed(1, "/srv/disk.img"), system_clock());
  ASSERT_DONE(again.begin_session());
  ASSERT_DONE(again.accept(peer_.incarnation));
  first.reset();
  EXPECT_KIND(kBusy, second.begin_session());
  // Nobody looks after its connection: the silence ends it.
  const auto deadline = system_clock().steady() + std::chrono::seconds(20);
  auto begun = second.begin_session();
  while (!begun && system_clock().steady() < deadline) {
    std::this_thread::sleep_for(milliseconds(20));
    begun = second.begin_session();
  }
  ASSERT_DONE(begun);
  EXPECT_EQ(begun->last->id.number.value, 1U);
}

}  // namespace
}  // namespace ckpt::test
