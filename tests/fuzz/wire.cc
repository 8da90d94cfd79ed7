// SPDX-License-Identifier: Apache-2.0
// docs/wire-protocol.md, docs/batch-format.md, docs/attachment-format.md
#include <array>

#include "common/attachment.h"
#include "common/checksum.h"
#include "common/copy_message.h"
#include "common/message.h"
#include "common/stale_message.h"
#include "common/volume_message.h"
#include "tests/fuzz/target.h"

namespace ckpt::fuzz {
namespace {

// Of batches: the last block is a short one.
constexpr uint64_t kBatchDiskBytes = 2 * kBlockBytes + 16;
constexpr size_t kPieceDigestAt = 24;  // in the header of a piece

using Body = bool (*)(ConstByteSpan);

// The bodies of all frames that have one.
constexpr std::array<Body, 34> kBodies{
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_hello, encode_hello); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_welcome, encode_welcome); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_greeting, encode_greeting); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_accept, encode_accept); },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_batch_body, encode_batch_body);
    },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_confirmation, encode_confirmation);
    },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_roll_back, encode_roll_back); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_read, encode_read); },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_read_ranges, encode_read_ranges);
    },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_digests, encode_digests); },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_digest_list, encode_digest_list);
    },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_attach, encode_attach); },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_read_attachment, encode_read_attachment);
    },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_next_data, encode_next_data); },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_data_range, encode_data_range);
    },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_export, [](const std::optional<Epoch>& number) {
        return encode_export(number);
      });
    },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_export_begins, encode_export_begins);
    },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_content, encode_content); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_hole, encode_hole); },
    [](ConstByteSpan body) {
      return expect_same_bytes(
          body, [](ConstByteSpan bytes) { return decode_checkpoints(bytes); }, encode_checkpoints);
    },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_checkpoint_list, encode_checkpoint_list);
    },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_store_status, encode_store_status);
    },
    // An error's text is made safe for a terminal, so it need not come back as it was.
    [](ConstByteSpan body) { return decode_failed(body).has_value(); },
    [](ConstByteSpan body) { return check_piece(body).has_value(); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_name, encode_name); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_volumes, encode_volumes); },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_volume_list, encode_volume_list);
    },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_place, encode_place); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_stale, encode_stale); },
    [](ConstByteSpan body) {
      return expect_same_bytes(body, decode_stale_list, encode_stale_list);
    },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_copy, encode_copy); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_forks, encode_forks); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_release, encode_release); },
    [](ConstByteSpan body) { return expect_same_bytes(body, decode_promote, encode_promote); },
};

// The first byte says which.
bool run_message(ConstByteSpan input) {
  return !input.empty() &&
         kBodies[std::to_integer<size_t>(input[0]) % kBodies.size()](input.subspan(1));
}

bool run_frame(ConstByteSpan input) {
  const auto header = sealed(input.first(std::min(input.size(), kFrameHeaderBytes)));
  const auto frame = decode_frame_header(header);
  CKPT_CHECK(!frame || frame->body_bytes <= body_bytes_max(frame->type));
  return expect_same_bytes(header, decode_frame_header, encode_frame_header) &&
         check_body(*frame, input.subspan(kFrameHeaderBytes));
}

// What a batch is found to say is on the disk, and no more than its header said.
void check_batch(const Batch& batch) {
  uint64_t data_bytes = 0;
  for (const Extent& extent : batch.extents) {
    CKPT_CHECK(extent.length > 0 && extent.length <= kBatchDiskBytes &&
               extent.offset <= kBatchDiskBytes - extent.length);
    data_bytes += extent.kind == ExtentKind::kData ? extent.length : 0;
  }
  CKPT_CHECK(data_bytes == batch.data.size() && data_bytes == batch.header.data_bytes);
}

// With a header that fits its payload, as one has who wants to do harm.
bool run_batch(ConstByteSpan input) {
  const size_t header_bytes = std::min(input.size(), kBatchHeaderBytes);
  const auto bytes = sealed(input.first(header_bytes));
  expect_same_bytes(bytes, decode_batch_header, encode_batch_header);
  auto header = decode_batch_header(bytes);
  if (!header) {
    return false;
  }
  const ConstByteSpan payload = input.subspan(header_bytes);
  header->payload_digest = digest_of(payload);
  header->stored_bytes = payload.size();
  const auto extents = decode_extents(*header, payload, kBatchDiskBytes);
  const auto batch = decode_batch(*header, payload, kBatchDiskBytes);
  if (batch) {
    CKPT_CHECK(extents && *extents == batch->extents);
    check_batch(*batch);
  }
  return batch.has_value();
}

bool run_piece(ConstByteSpan input) {
  if (input.size() < kPieceHeaderBytes) {
    return false;
  }
  std::vector<std::byte> piece(input.begin(), input.end());
  const ConstByteSpan payload = input.subspan(kPieceHeaderBytes);
  const Digest digest = digest_of(payload);
  copy_bytes(std::as_bytes(std::span(digest.bytes)), ByteSpan(piece).subspan(kPieceDigestAt));
  copy_bytes(sealed(ConstByteSpan(piece).first(kPieceHeaderBytes)), piece);
  std::vector<std::byte> raw;
  const auto header = check_piece(piece);
  const bool is_whole = header && decode_piece(*header, piece, raw);
  CKPT_CHECK(!is_whole || raw.size() == header->raw_bytes);
  return is_whole;
}

}  // namespace

std::vector<Target> wire_targets() {
  return {
      {"message", run_message}, {"frame", run_frame}, {"batch", run_batch}, {"piece", run_piece}};
}

}  // namespace ckpt::fuzz
