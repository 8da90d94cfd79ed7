// SPDX-License-Identifier: Apache-2.0
// One NBD connection with several requests in flight. Used by one thread.
#pragma once

#include <libnbd.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tests/integration/operation.h"

namespace ckpt {

class Connection {
 public:
  // Told the errno of a request: 0, the server's error, or ENOTCONN when the connection broke
  // first.
  class Listener {
   public:
    virtual void completed(int error) = 0;

   protected:
    ~Listener() = default;
  };

  // Null when it cannot connect; last_error() has the reason.
  static std::unique_ptr<Connection> open(const std::string& uri);
  static std::string last_error();

  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  uint64_t size_bytes() const;
  bool alive() const;

  // Reads the disk from 0 on. False: see last_error().
  bool read_all(std::span<uint8_t> out);

  // Sends `operation`, whose content is `data`. The listener and the data live until it is
  // completed, or this connection destroyed. False: it was not sent.
  bool send(const Operation& operation, std::span<const uint8_t> data, uint32_t flags,
            Listener& listener);
  bool send_flush(Listener& listener);

  // Moves bytes and completes requests; waits at most `timeout_ms`. False: the connection broke.
  bool pump(int timeout_ms);

 private:
  explicit Connection(nbd_handle* handle) : handle_(handle) {}

  nbd_handle* handle_;
};

}  // namespace ckpt
