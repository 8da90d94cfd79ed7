// SPDX-License-Identifier: Apache-2.0
// A volume that is being served, over its control socket.
#pragma once

#include <string>

#include "plugin/control_codec.h"
#include "plugin/control_socket.h"

namespace ckpt {

// Every call is one connection: it can be used from any thread, and a server that was restarted in
// between does not matter.
//
// Failure: an answer that breaks off is kTimeout for a checkpoint (it may exist), kHalfway for a
// rollback
//          (it may have begun), else kIo.
class RemoteVolume : public VolumeApi {
 public:
  explicit RemoteVolume(std::string state_path) : state_path_(std::move(state_path)) {}

  // With an empty state the server did not answer, and problem says why.
  VolumeStatus status() override;
  Result<std::vector<CheckpointInfo>> checkpoints() override;
  Result<CheckpointOutcome> checkpoint(const CheckpointRequest& request) override;
  Result<RollbackOutcome> roll_back(const RollbackRequest& request,
                                    const Progress& progress) override;
  Result<VerifyOutcome> verify(const Progress& progress) override;
  Result<> accept() override;
  Result<> export_checkpoint(const std::string& id, ExportSink& sink) override;
  Result<> read_attachment(const std::string& id, const std::string& name,
                           PieceSink& sink) override;

 private:
  // What it means when the server takes a request and then says nothing more.
  struct Silence {
    ErrorKind kind = ErrorKind::kIo;
    const char* advice = "";
  };
  struct Call {
    ControlRequest request;
    ControlConnection::Timeout timeout;  // for each line of the answer
    Silence silence;
    AttachmentFeed* attachments = nullptr;  // sent after the request
    std::function<void(Epoch)> on_cut{};    // the first line of the answer
  };
  // The first line, where the cut is to be told: it is, or the call has failed.
  [[nodiscard]] Result<> hear_cut(ControlConnection& connection, const Call& call) const;
  [[nodiscard]] Result<ParsedJson> hear(ControlConnection& connection, const Call& call,
                                        const Progress& progress) const;
  [[nodiscard]] Unexpected silent(const Call& call, const std::string& what) const;
  [[nodiscard]] Result<ParsedJson> ask(const Call& call, const Progress& progress) const;
  [[nodiscard]] Result<> receive_export(ControlConnection& connection, ExportSink& sink) const;

  const std::string state_path_;
};

}  // namespace ckpt
