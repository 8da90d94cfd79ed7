// SPDX-License-Identifier: Apache-2.0
// The load: worker threads, each with its own connection, that write, zero and trim at random
// places and report every request to the model.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/connection.h"
#include "tests/integration/model.h"

namespace ckpt {

// What a load looks like. Lengths are log-uniform; 9 of 10 requests begin in the hot range.
struct LoadShape {
  uint64_t seed = 1;
  uint64_t min_bytes = 1;
  uint64_t max_bytes = uint64_t{4} << 20;
  uint64_t hot_bytes = uint64_t{1} << 20;
  uint64_t fua_percent = 5;
  uint64_t flush_percent = 1;
  uint64_t pause_us = 0;  // between a worker's requests
  uint64_t operations_per_worker = ~0ULL;
};

struct LoadCounts {
  std::atomic<uint64_t> operations{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> failed{0};   // answered with an error
  std::atomic<uint64_t> unknown{0};  // not answered: the connection broke
};

// The places and kinds of one worker's requests, all drawn from one seed.
class RequestSource {
 public:
  RequestSource(const LoadShape& shape, uint64_t worker, uint64_t disk_bytes);

  Operation next_operation();
  uint32_t next_flags(OperationKind kind);
  bool next_is_flush() { return percent(shape_.flush_percent); }

 private:
  uint64_t below(uint64_t limit) { return random_() % limit; }
  bool percent(uint64_t share) { return below(100) < share; }
  uint64_t next_length();

  LoadShape shape_;
  uint64_t disk_bytes_;
  uint64_t hot_offset_;
  std::mt19937_64 random_;
};

// One connection and the thread that keeps `depth` requests in flight on it. Ends by itself when
// the connection breaks or the server answers ESHUTDOWN. The model and the counts outlive it.
class Worker {
 public:
  Worker(std::unique_ptr<Connection> connection, size_t depth, Model& model, LoadCounts& counts);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker();

  void start(const LoadShape& shape, uint64_t worker);
  void stop();  // waits for the answers
  void wait();  // for a load with an end
  bool usable() const { return connection_->alive() && !shut_down_; }

 private:
  // One request in flight.
  struct Flight final : Connection::Listener {
    explicit Flight(Worker& its_worker) : worker(its_worker) {}
    void completed(int error) override;

    Worker& worker;  // outlives it: a member of it
    bool busy = false;
    bool modelled = false;
    size_t number = 0;
    std::vector<uint8_t> data;
  };

  void run(LoadShape shape, RequestSource source);
  bool issue(Flight& flight, RequestSource& source);
  bool issue_flush(Flight& flight);
  bool issue_operation(Flight& flight, RequestSource& source);
  void account(const Flight& flight, int error);
  void abandon();
  Flight* idle_flight();
  bool any_busy() const;

  std::unique_ptr<Connection> connection_;
  Model& model_;
  LoadCounts& counts_;
  std::vector<std::unique_ptr<Flight>> flights_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> shut_down_{false};
  std::thread thread_;
};

}  // namespace ckpt
