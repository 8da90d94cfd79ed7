// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/plugin_fakes.h"

#include <algorithm>

namespace ckpt::test {
namespace {

constexpr uint64_t kDiskPageBytes = 4096;

// What is pending in the order of (epoch, sequence), and the chain of each epoch.
std::vector<CoveredEpoch> chains_of(const std::map<std::pair<Epoch, uint64_t>, Batch>& pending,
                                    Epoch n) {
  std::vector<CoveredEpoch> covered;
  for (const auto& [key, batch] : pending) {
    if (key.first > n) {
      break;
    }
    if (covered.empty() || covered.back().epoch != key.first) {
      covered.push_back({key.first, {}});
    }
    covered.back().chain = chain(covered.back().chain, batch.header);
  }
  return covered;
}

}  // namespace

Content block_of(uint64_t value, uint64_t bytes) {
  Content content(bytes);
  for (uint64_t i = 0; i < bytes && value != 0; ++i) {
    content[i] = static_cast<std::byte>((value * 31 + i / 64) % 255 + 1);
  }
  return content;
}

Result<> FakeMemory::allocate(ByteRange range) {
  for (uint64_t page = range.offset / kDiskPageBytes; page * kDiskPageBytes < range.end(); ++page) {
    if (full_ && !pages_.contains(page)) {
      return fail(ErrorKind::kNoSpace, "the tmpfs is full");
    }
    pages_.insert(page);
  }
  return {};
}

Result<std::optional<ByteRange>> FakeMemory::next_allocated(uint64_t offset) {
  const auto page = pages_.lower_bound(offset / kDiskPageBytes);
  if (page == pages_.end()) {
    return std::optional<ByteRange>();
  }
  const uint64_t begin = std::max(offset, *page * kDiskPageBytes);
  return std::optional(ByteRange{begin, (*page + 1) * kDiskPageBytes - begin});
}

Result<std::unique_ptr<SharedMemory>> FakeMemoryStore::create(const std::string& name,
                                                              uint64_t bytes) {
  kept_[name].words.assign(bytes / 8, 0);
  return open(name, bytes);
}

Result<std::unique_ptr<SharedMemory>> FakeMemoryStore::open(const std::string& name,
                                                            uint64_t bytes) {
  const auto kept = kept_.find(name);
  if (kept == kept_.end()) {
    return fail(ErrorKind::kNotFound, "no memory " + name);
  }
  if (kept->second.words.size() * 8 != bytes) {
    return fail(ErrorKind::kCorrupt, "not of the right size: " + name);
  }
  return std::unique_ptr<SharedMemory>(
      std::make_unique<FakeMemory>(kept->second.words, kept->second.pages, full));
}

Result<> FakeMemoryStore::remove(const std::string& name) {
  return kept_.erase(name) > 0 ? Result<>() : Result<>(fail(ErrorKind::kNotFound, name));
}

Result<StoreGreeting> FakeStore::begin_session() {
  if (fail_begin) {
    return Unexpected(*fail_begin);
  }
  pending_.clear();
  return greeting;
}

Result<std::vector<BlockRange>> FakeStore::stale(uint64_t from) {
  std::vector<BlockRange> page;
  for (const BlockRange& run : stale_runs) {
    if (run.first >= from && page.size() < 2) {
      page.push_back(run);
    }
  }
  return page;
}

Result<> FakeStore::accept(uint64_t incarnation) {
  if (fail_accept) {
    return Unexpected(*fail_accept);
  }
  greeting.incarnation = incarnation;
  return {};
}

Result<> FakeStore::receive(const EncodedBatch& batch) {
  if (on_receive) {
    on_receive();
  }
  if (fail_receive) {
    return Unexpected(*fail_receive);
  }
  CKPT_ASSIGN(Batch decoded, decode_batch(batch.header, batch.payload, size_bytes_));
  EXPECT_EQ(batch.header.incarnation, greeting.incarnation);
  EXPECT_TRUE(received.empty() || batch.header.sequence > received.back().header.sequence);
  received.push_back(decoded);
  pending_[{batch.header.epoch, batch.header.sequence}] = std::move(decoded);
  return {};
}

Result<> FakeStore::attach(Epoch epoch, uint32_t index, ConstByteSpan piece) {
  if (fail_attach) {
    return Unexpected(*fail_attach);
  }
  EXPECT_TRUE(check_piece(piece));
  attached[{epoch, index}].emplace_back(piece.begin(), piece.end());
  return {};
}

Result<> FakeStore::read_attachment(Epoch number, const std::string& name, PieceSink& sink) {
  for (uint32_t i = 0; greeting.last && i < greeting.last->attachments.size(); ++i) {
    if (greeting.last->attachments[i].name == name) {
      for (const auto& piece : attached[{number, i}]) {
        CKPT_ASSIGN(const PieceHeader header, check_piece(piece));
        CKPT_TRY(sink.take(header, piece));
      }
      return {};
    }
  }
  return fail(ErrorKind::kNotFound, "no attachment " + name);
}

Result<> FakeStore::confirm(const Confirmation& confirmation) {
  if (on_confirm) {
    on_confirm(confirmation);
  }
  if (fail_confirm) {
    return Unexpected(*fail_confirm);
  }
  const CheckpointInfo& checkpoint = confirmation.checkpoint;
  const Epoch n = checkpoint.id.number;
  EXPECT_EQ(confirmation.covered, chains_of(pending_, n));
  const Digest parent = greeting.last ? greeting.last->digest : Digest{};
  const CheckpointId none{checkpoint.id.timeline, {0}};
  EXPECT_EQ(checkpoint.parent, greeting.last ? greeting.last->id : none);
  EXPECT_EQ(checkpoint.digest,
            checkpoint_digest(parent, checkpoint.id.timeline, n, confirmation.covered));
  while (!pending_.empty() && pending_.begin()->first.first <= n) {
    apply(pending_.begin()->second);
    pending_.erase(pending_.begin());
  }
  greeting.last = checkpoint;
  return lose_answer ? Result<>(Unexpected(*lose_answer)) : Result<>();
}

void FakeStore::apply(const Batch& batch) {
  size_t at = 0;
  for (const Extent& extent : batch.extents) {
    const auto begin = content.begin() + static_cast<ptrdiff_t>(extent.offset);
    if (extent.kind == ExtentKind::kZero) {
      std::fill_n(begin, extent.length, std::byte{0});
    } else {
      std::copy_n(batch.data.begin() + static_cast<ptrdiff_t>(at), extent.length, begin);
      at += extent.length;
    }
  }
}

Result<> FakeStore::roll_back(const CheckpointId& from, const Uuid& to) {
  if (fail_roll_back) {
    return Unexpected(*fail_roll_back);
  }
  pending_.clear();
  rollbacks.push_back(from);
  greeting.last->id = {to, from.number};
  return {};
}

Result<> FakeStore::read_confirmed(uint64_t offset, ByteSpan buffer) {
  if (on_read) {
    on_read();
  }
  if (fail_read) {
    return Unexpected(*fail_read);
  }
  std::copy_n(content.begin() + static_cast<ptrdiff_t>(offset), buffer.size(), buffer.begin());
  return {};
}

// Blocks of zeroes are its holes.
Result<std::optional<ByteRange>> FakeStore::next_confirmed_data(uint64_t offset) {
  for (uint64_t block = offset / kBlockBytes; block < block_count(size_bytes_); ++block) {
    const ByteRange range = bytes_of({block, block + 1}, size_bytes_);
    if (!is_zero(ConstByteSpan(content).subspan(range.offset, range.length))) {
      const uint64_t begin = std::max(offset, range.offset);
      return std::optional(ByteRange{begin, range.end() - begin});
    }
  }
  return std::optional<ByteRange>();
}

Result<> FakeStore::export_checkpoint(std::optional<Epoch> /*number*/, ExportSink& sink) {
  CKPT_TRY(sink.begin(*greeting.last, size_bytes_));
  return sink.write(0, content);
}

Result<std::vector<CheckpointInfo>> FakeStore::checkpoints() {
  std::vector<CheckpointInfo> kept;
  if (greeting.last) {
    kept.push_back(*greeting.last);
  }
  return kept;
}

StoreStatus FakeStore::status() {
  StoreStatus status;
  status.state = "connected";
  status.confirmed = greeting.last;
  return status;
}

uint64_t FakeStore::times_received(uint64_t block, size_t from) const {
  uint64_t times = 0;
  for (size_t i = from; i < received.size(); ++i) {
    for (const Extent& extent : received[i].extents) {
      times += blocks_of({extent.offset, extent.length}).overlaps({block, block + 1}) ? 1 : 0;
    }
  }
  return times;
}

Primary::Primary(ShipOptions ship, PreserveLimits limits) {
  state = machine.root();
  make_files();
  make_parts(ship, limits);
}

void Primary::make_files() {
  image = std::make_unique<HookedFile>(std::move(*state->open("image", OpenMode::kCreate)));
  EXPECT_TRUE(image->resize(kGeometry.size_bytes));
  VolumeRecord fresh;
  fresh.volume = uuid_of(1);
  fresh.timeline = uuid_of(2);
  fresh.size_bytes = kGeometry.size_bytes;
  fresh.region_bytes = kGeometry.region_bytes;
  maps = std::move(*WrittenMaps::create(memory, "maps", fresh.volume, kGeometry));
  EXPECT_TRUE(maps->allocate({0, kGeometry.regions()}));
  regions = std::move(*RegionMap::create(*state, fresh.volume, kGeometry, RegionMap::Marks::kNone));
  record = std::move(*VolumeRecordFile::create(*state, fresh, random));
}

void Primary::make_parts(ShipOptions ship, PreserveLimits limits) {
  disk = std::make_unique<Disk>(kGeometry, *image, *maps, *regions, *state, clock, limits);
  disk->epochs.set_number({1});
  regions->set_hooks(
      {.prepare = [](BlockRange) { return Result<>(); },
       .on_failure =
           [this](const Error&) {
             return record->change([](VolumeRecord& r) { r.everything = true; });
           },
       .has_changes =
           [this](uint64_t region) { return disk->is_changed(kGeometry.region_blocks(region)); }});
  path = std::make_unique<WritePath>(*disk, [] { return false; });
  shipper = std::make_unique<Shipper>(*disk, store, ship);
  session = std::make_unique<Session>(*disk, store, *record, *shipper, 77);
  maker = std::make_unique<CheckpointMaker>(*disk, store, *record, *shipper, *session);
}

Result<> Primary::write(BlockRange blocks, uint64_t value) {
  const ByteRange range = bytes_of(blocks, kGeometry.size_bytes);
  return path->write(range.offset, block_of(value, range.length), false);
}

Content Primary::image_content() {
  Content content(kGeometry.size_bytes);
  EXPECT_TRUE(image->read(0, content));
  return content;
}

Result<HandshakeRow> Primary::open_session() {
  auto row = session->open();
  if (row) {
    maker->settle(*row);
  }
  return row;
}

void Primary::run() {
  for (int step = 0; step < 10000; ++step) {
    const bool did = maker->step();
    if (const Epoch wanted = maker->wants_sync(); wanted.value != 0 && disk->sync_image()) {
      maker->synced(wanted);
    } else if (!did) {
      return;
    }
  }
  ADD_FAILURE() << "the checkpoint maker does not come to an end";
}

Content Primary::block(uint64_t block) {
  const ByteRange range = bytes_of({block, block + 1}, kGeometry.size_bytes);
  Content content(range.length);
  EXPECT_TRUE(image->read(range.offset, content));
  return content;
}

Result<CheckpointOutcome> Primary::checkpoint(const CheckpointRequest& request) {
  Caller caller(*this, request);
  run();
  return caller.outcome();
}

Result<CheckpointOutcome> Primary::start() {
  CKPT_TRY(open_session());
  return checkpoint();
}

Caller::Caller(Primary& primary, const CheckpointRequest& request)
    : primary_(primary), asked_before_(primary.maker->asked()), thread_([this, request] {
        // While the clock stands still it waits until it is answered.
        outcome_ = primary_.maker->take(request);
        answered_.store(true);
      }) {
  while (primary.maker->asked() == asked_before_ && !is_answered()) {
    std::this_thread::yield();
  }
}

}  // namespace ckpt::test
