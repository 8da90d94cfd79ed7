// SPDX-License-Identifier: Apache-2.0
// The store of a volume behind backupd: what a primary asks of it goes over a connection.
#pragma once

#include "common/clock.h"
#include "common/store_dialer.h"
#include "common/waker.h"

namespace ckpt {

// One connection has the session, another reads; each is made when it is needed. Exports and
// read_ranges() have their own.
//
// Threads:  as StoreLink says; look_after() by a pump. status() and check_link() wait for
//           nothing that the back-up does but a moment, kStatusPatience.
// Failure:  kUnreachable: nobody answers; the connection is given up, and a later call tries anew.
//           A batch's error may come with a later batch or with the confirmation.
class RemoteStore final : public StoreLink {
 public:
  RemoteStore(RemoteOptions options, Clock& clock, ConnectStream connect = connect_by_socket);

  Result<StoreGreeting> begin_session() override CKPT_EXCLUDES(session_mutex_);
  Result<std::vector<BlockRange>> stale(uint64_t from) override;
  Result<> accept(uint64_t incarnation) override CKPT_EXCLUDES(session_mutex_);
  Result<> tell_forks(const std::vector<CheckpointId>& forks) override
      CKPT_EXCLUDES(session_mutex_);
  Result<> receive(const EncodedBatch& batch) override CKPT_EXCLUDES(session_mutex_);
  Result<> attach(Epoch epoch, uint32_t index, ConstByteSpan piece) override
      CKPT_EXCLUDES(session_mutex_);
  Result<> confirm(const Confirmation& confirmation) override CKPT_EXCLUDES(session_mutex_);
  Result<> check_takes_copies() override CKPT_EXCLUDES(session_mutex_);
  Result<> confirm_copy(const CheckpointCopy& copy) override CKPT_EXCLUDES(session_mutex_);
  Result<> check_promotes() override CKPT_EXCLUDES(session_mutex_);
  Result<> promote(const CheckpointId& from, const Uuid& to) override CKPT_EXCLUDES(session_mutex_);
  Result<> roll_back(const CheckpointId& from, const Uuid& to) override
      CKPT_EXCLUDES(session_mutex_);
  Result<> read_confirmed(uint64_t offset, ByteSpan buffer) override;
  Result<std::optional<ByteRange>> next_confirmed_data(uint64_t offset) override;
  Result<> read_ranges(std::span<const ByteRange> ranges, ContentSink& sink) override;
  Result<std::vector<Digest>> digests(const DigestQuery& query) override;
  Result<> export_checkpoint(std::optional<Epoch> number, ExportSink& sink) override;
  Result<> read_attachment(Epoch number, const std::string& name, PieceSink& sink) override;
  Result<std::vector<CheckpointInfo>> checkpoints() override;
  StoreStatus status() override CKPT_EXCLUDES(status_mutex_);
  [[nodiscard]] Result<> check_link() override CKPT_EXCLUDES(session_mutex_, status_mutex_);

  // What the back-up itself says of the volume, now; for who has no session.
  Result<StoreStatus> ask() override;
  // Of the disk: as in the options, else as the last reader was told; 0: not known yet.
  [[nodiscard]] uint64_t size_bytes() const { return size_bytes_.load(); }
  [[nodiscard]] const std::string& address() const { return address_; }
  // Keeps connections that have nothing to do alive, notices that one is gone, asks for the status.
  void look();
  // The same, and returns when it is worth calling again, or somebody waits for the status.
  void look_after();
  // How long a connection may stay without a word.
  [[nodiscard]] std::chrono::milliseconds silence() const { return silence_.load(); }
  // Tells the back-up, in the session if there is one, that the server is about to stop: else it
  // takes it for one that died.
  Result<> say_stop() CKPT_EXCLUDES(session_mutex_);
  // The server stops: whoever waits in here returns soon, with an error.
  void stop();

 private:
  using CallPtr = std::unique_ptr<StoreDialer::Call>;

  template <typename Act>
  auto in_session(const Act& act) -> decltype(act(std::declval<StoreClient&>()));
  template <typename Act>
  auto reading(const Act& act) -> decltype(act(std::declval<StoreClient&>()));
  template <typename Act>
  auto read_over(CallPtr& reader, const Act& act) -> decltype(act(std::declval<StoreClient&>()));
  // Its connection: made if there is none, given up if it breaks.
  template <typename Act>
  auto read_once(CallPtr& reader, const Act& act) -> decltype(act(std::declval<StoreClient&>()));
  Result<> ask_to_confirm(FrameType type, ConstByteSpan body, const CheckpointInfo& checkpoint)
      CKPT_EXCLUDES(session_mutex_, status_mutex_);
  Result<StoreGreeting> greet() CKPT_REQUIRES(session_mutex_);
  // Tells a back-up that knows names what the volume is called.
  Result<> tell_name(StoreClient& client) const;
  [[nodiscard]] Unexpected said(const Error& error) const;
  void keep_session(bool is_in_doubt);
  Result<> ping(bool is_in_doubt) CKPT_REQUIRES(session_mutex_);
  bool refresh_status() CKPT_EXCLUDES(status_mutex_);
  void tell_status() CKPT_EXCLUDES(status_mutex_);
  void session_began(const StoreGreeting& greeting) CKPT_EXCLUDES(status_mutex_);
  void session_ended(const Error& error) CKPT_EXCLUDES(status_mutex_);

  StoreDialer dialer_;
  Clock& clock_;
  const std::string address_;
  SteadyTime ask_status_after_{};  // the pump's
  std::atomic<uint64_t> size_bytes_;
  Waker keeper_;
  std::atomic<std::chrono::milliseconds> silence_{std::chrono::seconds(4)};  // as was agreed on

  // Order of locks: one of these two, then the status's.
  Mutex session_mutex_;
  CallPtr session_ CKPT_GUARDED_BY(session_mutex_);       // nothing: not connected
  SteadyTime said_at_ CKPT_GUARDED_BY(session_mutex_){};  // anything, on its connection
  Mutex reader_mutex_;
  CallPtr reader_ CKPT_GUARDED_BY(reader_mutex_);

  Mutex status_mutex_;
  CondVar refreshed_;
  StoreStatus status_ CKPT_GUARDED_BY(status_mutex_);
  SteadyTime status_at_ CKPT_GUARDED_BY(status_mutex_){};  // when it was heard
  bool is_looked_after_ CKPT_GUARDED_BY(status_mutex_) = false;
  bool is_late_ CKPT_GUARDED_BY(status_mutex_) = false;  // one who waited for it has given up
  std::optional<Error> session_error_ CKPT_GUARDED_BY(status_mutex_);  // nothing: it stands
};

}  // namespace ckpt
