// SPDX-License-Identifier: Apache-2.0
// One connection of a primary or a tool, at the server: a step takes a request and answers it.
//
// Format: docs/wire-protocol.md
#pragma once

#include <memory>
#include <string>

#include "backupd/access_list.h"
#include "backupd/served_volume.h"
#include "common/clock.h"
#include "common/frame_channel.h"
#include "common/message.h"

namespace ckpt {

struct ConnectionOptions {
  uint64_t number = 0;                  // never used before, and hard to guess
  std::chrono::milliseconds silence{};  // told to the client
  uint64_t window_bytes = 0;            // told to the client
  std::string software;
  std::string peer{};                        // for people: where the client is; may be empty
  std::shared_ptr<const AccessList> access;  // nothing: whoever connects may do all
  bool is_local = false;                     // root, or the daemon's own user, on this machine
};

// Threads:  one that calls greet() and then step(); it waits there for the client, and for disks.
//           herald() by another.
// Failure:  an error of either is the end of the connection. What the store refuses is an answer.
// Lifetime: stream and shelf outlive it.
class Connection {
 public:
  Connection(Stream& stream, VolumeShelf& shelf, ConnectionOptions options)
      : stream_(stream), channel_(stream), shelf_(shelf), options_(std::move(options)) {}
  ~Connection() { leave(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Whom the client has proved to be, for the access list; before greet().
  void set_identity(std::string identity) { identity_ = std::move(identity); }
  [[nodiscard]] const std::string& identity() const { return identity_; }
  // Takes hello, and says welcome. An error was said to the client, if it could be.
  Result<> greet();
  // Takes the next request, and answers it.
  Result<> step();
  // What of the last step is worth a line in the log, once: a request that the access list does not
  // allow, a name that could not be kept.
  std::optional<Error> take_remark() { return std::exchange(remark_, std::nullopt); }
  // Says `working` if a request has been in hand for a third of the silence. Called more often than
  // that; waits for nothing.
  void herald(SteadyTime now) CKPT_EXCLUDES(hand_mutex_);
  // It has ended: what it had of the volume is free for the next.
  void leave();
  // For people: what it is about, once it was greeted.
  [[nodiscard]] const Hello& hello() const { return hello_; }

 private:
  struct Answer {
    FrameType type = FrameType::kDone;
    std::vector<std::byte> body{};
  };

  // The next request. What is not one, or not the next, is an error, and the client is told.
  Result<> receive();
  // is_damaged: the frame itself was, on its way.
  Result<> receive_next(bool& is_damaged);
  // From the header of a request until its last answer is about to be sent it is in hand.
  void take_in_hand(uint64_t request) CKPT_EXCLUDES(hand_mutex_);
  [[nodiscard]] Result<> check_place(const FrameHeader& header) const;
  Result<> welcome();
  [[nodiscard]] std::string who() const;
  [[nodiscard]] bool may(const Uuid& volume, Operation operation) const;
  // The same, with the connection's own volume.
  [[nodiscard]] bool may(Operation operation) const;
  // kDenied names who may not do what.
  [[nodiscard]] Result<> check_right(Operation operation) const;
  [[nodiscard]] Result<> check_role() const;
  [[nodiscard]] Result<> check_visitor() const;
  Result<Answer> handle();
  Answer rest();
  Result<Answer> tell_status();
  Result<Answer> handle_session();
  [[nodiscard]] Result<> check_understood(const StoreGreeting& greeting) const;
  Result<Answer> handle_read();
  Result<Answer> read_ranges();
  Result<Answer> digest_blocks();
  Result<Answer> list_stale();
  Result<Answer> read_attachment();
  Result<Answer> list();
  Result<Answer> hand_over();
  Result<Answer> list_volumes();
  Result<Answer> name_volume();
  Result<Answer> release();
  Result<Answer> promote();
  Result<Answer> begin_session();
  // The act's content, frame by frame, and how it ends.
  template <typename Act>
  Result<Answer> pass_on(const Act& act);
  [[nodiscard]] Result<> check_range(const ByteRange& range) const;
  // The body of the request; one that is not valid is the client's fault.
  template <typename T>
  Result<T> body_as(Result<T> (*decode)(ConstByteSpan));
  Result<> fail_request(const Error& error);

  Stream& stream_;
  FrameChannel channel_;
  VolumeShelf& shelf_;
  const ConnectionOptions options_;
  std::string identity_;
  std::optional<Error> remark_;
  Hello hello_;
  bool was_refused_ = false;              // since another primary has the volume; the log has it
  std::shared_ptr<ServedVolume> volume_;  // the shelf has it too; nothing: a visitor's
  std::optional<Uuid> released_;          // that the shelf does not have until this one has ended
  bool is_promoted_ = false;              // by it; the shelf opens what that leaves anew
  ReceivedFrame request_;
  uint64_t last_request_ = 0;
  bool is_greeted_ = false;
  Mutex hand_mutex_;                                        // before the channel's
  uint64_t in_hand_ CKPT_GUARDED_BY(hand_mutex_) = 0;       // a request; 0: none
  uint64_t seen_in_hand_ CKPT_GUARDED_BY(hand_mutex_) = 0;  // by herald(), since:
  SteadyTime seen_at_ CKPT_GUARDED_BY(hand_mutex_){};
  bool is_broken_ = false;  // the client does not keep to the protocol
  bool is_deaf_ = false;    // it takes nothing any more
};

}  // namespace ckpt
