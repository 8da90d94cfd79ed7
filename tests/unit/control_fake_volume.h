// SPDX-License-Identifier: Apache-2.0
// A volume that says what a test tells it to, and remembers what it was asked.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "plugin/volume_api.h"

namespace ckpt {

// A checkpoint with every field set, none to a default.
inline CheckpointInfo sample_checkpoint(uint64_t number) {
  CheckpointInfo checkpoint;
  checkpoint.id = {*Uuid::parse("11111111-2222-4333-8444-555555555555"), Epoch{number}};
  checkpoint.parent = {*Uuid::parse("66666666-7777-4888-9999-aaaaaaaaaaaa"), Epoch{number - 1}};
  checkpoint.digest.bytes = {0xde, 0xad, 0xbe, 0xef};
  checkpoint.time = std::chrono::milliseconds(1'769'860'800'123);
  checkpoint.name = "before-" + std::to_string(number);
  checkpoint.message = "line one\nline \"two\"";
  checkpoint.changed_bytes = 12 * kBlockBytes;
  checkpoint.shipped_bytes = 4321;
  return checkpoint;
}

// Threads: as a VolumeApi; tests set the functions before anybody asks.
class FakeVolume : public VolumeApi {
 public:
  std::function<Result<CheckpointOutcome>(const CheckpointRequest&)> on_checkpoint =
      [](const CheckpointRequest&) {
        return CheckpointOutcome{sample_checkpoint(7), {}, {}};
      };
  std::function<Result<RollbackOutcome>(const RollbackRequest&, const Progress&)> on_rollback =
      [](const RollbackRequest&, const Progress&) {
        return RollbackOutcome{sample_checkpoint(7), 8192, std::chrono::milliseconds(5), false};
      };
  std::function<Result<VerifyOutcome>(const Progress&)> on_verify = [](const Progress&) {
    return VerifyOutcome{sample_checkpoint(7), 1U << 20U, 4096, 0, {}};
  };
  std::function<Result<>()> on_accept = [] { return Result<>(); };
  std::function<Result<>(const std::string&, ExportSink&)> on_export =
      [](const std::string&, ExportSink& sink) { return sink.begin(sample_checkpoint(7), 0); };
  std::function<Result<>(const std::string&, const std::string&, PieceSink&)> on_read_attachment =
      [](const std::string&, const std::string&, PieceSink&) { return Result<>(); };
  VolumeStatus told_status = default_status();
  std::vector<CheckpointInfo> told_checkpoints{sample_checkpoint(6), sample_checkpoint(7)};
  std::atomic<int> calls{0};

  VolumeStatus status() override {
    ++calls;
    return told_status;
  }
  Result<std::vector<CheckpointInfo>> checkpoints() override {
    ++calls;
    return told_checkpoints;
  }
  Result<CheckpointOutcome> checkpoint(const CheckpointRequest& request) override {
    ++calls;
    return on_checkpoint(request);
  }
  Result<RollbackOutcome> roll_back(const RollbackRequest& request,
                                    const Progress& progress) override {
    ++calls;
    return on_rollback(request, progress);
  }
  Result<VerifyOutcome> verify(const Progress& progress) override {
    ++calls;
    return on_verify(progress);
  }
  Result<> export_checkpoint(const std::string& id, ExportSink& sink) override {
    ++calls;
    return on_export(id, sink);
  }
  Result<> read_attachment(const std::string& id, const std::string& name,
                           PieceSink& sink) override {
    ++calls;
    return on_read_attachment(id, name, sink);
  }
  Result<> accept() override {
    ++calls;
    return on_accept();
  }

  static VolumeStatus default_status() {
    VolumeStatus status;
    status.state = "running";
    status.role = "primary";
    status.image = "/srv/disk.img";
    status.attachments_folder = "/run/copies";
    status.name = "accounts";
    status.uris = {"nbd+unix:///?socket=/run/disk.sock"};
    status.volume = *Uuid::parse("01234567-89ab-4cde-8f01-23456789abcd");
    status.timeline = sample_checkpoint(7).id.timeline;
    status.lineage = {{*Uuid::parse("66666666-7777-4888-9999-aaaaaaaaaaaa"), Epoch{3}},
                      {*Uuid::parse("bbbbbbbb-7777-4888-9999-cccccccccccc"), Epoch{6}}};
    status.size_bytes = uint64_t{1} << 30U;
    status.io = "sync (buffered writes would block in io_uring)";
    status.protection = true;
    status.epoch = Epoch{8};
    status.last_checkpoint = sample_checkpoint(7);
    status.changed_bytes = 5 * kBlockBytes;
    status.unshipped_bytes = 2 * kBlockBytes;
    status.preserved_blocks = 3;
    status.stall_max = std::chrono::microseconds(1500);
    status.connections = 2;
    status.checkpoint_interval = std::chrono::seconds(5);
    status.counts = {41, 2, 3, 4, 5000, std::chrono::milliseconds(12)};
    status.store.emplace();
    status.store->address = "embedded:/srv/disk.img.ckpt/store";
    status.store->state = "connected";
    status.store->confirmed.emplace().id = sample_checkpoint(7).id;
    status.store->applied = Epoch{6};
    status.store->pending_bytes = 100;
    status.store->confirmed_bytes = 200;
    status.store->free_bytes = 300;
    return status;
  }
};

}  // namespace ckpt
