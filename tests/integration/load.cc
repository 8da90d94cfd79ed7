// SPDX-License-Identifier: Apache-2.0
// A request is in the model before it is sent, and ends there when its answer is seen: the model's
// times enclose the real ones.

#include "tests/integration/load.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>

#include "tests/integration/content.h"

namespace ckpt {

namespace {

constexpr int kPollMs = 100;  // how soon a stop is seen while nothing moves

}  // namespace

RequestSource::RequestSource(const LoadShape& shape, uint64_t worker, uint64_t disk_bytes)
    : shape_(shape), disk_bytes_(disk_bytes), random_(shape.seed * 1000003 + worker) {
  shape_.hot_bytes = std::clamp<uint64_t>(shape.hot_bytes, 1, disk_bytes);
  shape_.max_bytes = std::clamp<uint64_t>(shape.max_bytes, 1, disk_bytes);
  shape_.min_bytes = std::clamp<uint64_t>(shape.min_bytes, 1, shape_.max_bytes);
  std::mt19937_64 common(shape.seed);  // the workers share the hot range
  hot_offset_ = common() % (disk_bytes - shape_.hot_bytes + 1);
}

uint64_t RequestSource::next_length() {
  const double share = std::uniform_real_distribution<double>(0, 1)(random_);
  const double low = std::log(static_cast<double>(shape_.min_bytes));
  const double high = std::log(static_cast<double>(shape_.max_bytes + 1));
  const auto length = static_cast<uint64_t>(std::exp(low + share * (high - low)));
  return std::clamp(length, shape_.min_bytes, shape_.max_bytes);
}

Operation RequestSource::next_operation() {
  Operation operation;
  const bool hot = percent(90);
  operation.offset = hot ? hot_offset_ + below(shape_.hot_bytes) : below(disk_bytes_);
  operation.length = std::min(next_length(), disk_bytes_ - operation.offset);
  operation.seed = random_();
  const uint64_t kind = below(100);
  if (kind >= 70) operation.kind = kind < 85 ? OperationKind::kZero : OperationKind::kTrim;
  return operation;
}

uint32_t RequestSource::next_flags(OperationKind kind) {
  const uint32_t fua = percent(shape_.fua_percent) ? LIBNBD_CMD_FLAG_FUA : 0;
  const bool no_hole = kind == OperationKind::kZero && percent(50);
  return no_hole ? fua | LIBNBD_CMD_FLAG_NO_HOLE : fua;
}

Worker::Worker(std::unique_ptr<Connection> connection, size_t depth, Model& model,
               LoadCounts& counts)
    : connection_(std::move(connection)), model_(model), counts_(counts) {
  for (size_t i = 0; i < depth; ++i) flights_.push_back(std::make_unique<Flight>(*this));
}

Worker::~Worker() { stop(); }

void Worker::start(const LoadShape& shape, uint64_t worker) {
  stop();
  stop_ = false;
  thread_ =
      std::thread(&Worker::run, this, shape, RequestSource(shape, worker, model_.size_bytes()));
}

void Worker::stop() {
  stop_ = true;
  wait();
}

void Worker::wait() {
  if (thread_.joinable()) thread_.join();
}

void Worker::run(LoadShape shape, RequestSource source) {
  uint64_t issued = 0;
  for (bool more = true; more || any_busy();) {
    more = more && !stop_ && !shut_down_ && issued < shape.operations_per_worker;
    Flight* flight = more ? idle_flight() : nullptr;
    if (flight != nullptr) {
      ++issued;
      if (!issue(*flight, source)) break;
      if (shape.pause_us != 0)
        std::this_thread::sleep_for(std::chrono::microseconds(shape.pause_us));
    } else if (!connection_->pump(kPollMs)) {
      break;
    }
  }
  abandon();
}

bool Worker::issue(Flight& flight, RequestSource& source) {
  return source.next_is_flush() ? issue_flush(flight) : issue_operation(flight, source);
}

bool Worker::issue_flush(Flight& flight) {
  flight.busy = true;
  flight.modelled = false;
  return connection_->send_flush(flight);
}

bool Worker::issue_operation(Flight& flight, RequestSource& source) {
  const Operation operation = source.next_operation();
  const uint32_t flags = source.next_flags(operation.kind);
  if (operation.kind == OperationKind::kWrite) {
    flight.data.resize(operation.length);
    fill_content(operation.seed, operation.offset, flight.data);
  }
  flight.busy = true;
  flight.modelled = true;
  flight.number = model_.begin(operation);
  ++counts_.operations;
  counts_.bytes += operation.length;
  return connection_->send(operation, flight.data, flags, flight);
}

void Worker::Flight::completed(int error) {
  if (!busy) return;  // abandoned already
  busy = false;
  worker.account(*this, error);
}

void Worker::account(const Flight& flight, int error) {
  if (error == ESHUTDOWN) shut_down_ = true;
  if (error != 0) ++(error == ENOTCONN ? counts_.unknown : counts_.failed);
  if (!flight.modelled) return;
  const Outcome failure = error == ENOTCONN ? Outcome::kUnknown : Outcome::kFailed;
  model_.end(flight.number, error == 0 ? Outcome::kDone : failure);
}

// What is still in flight when the connection broke stays open in the model.
void Worker::abandon() {
  for (auto& flight : flights_) {
    if (flight->busy) ++counts_.unknown;
    flight->busy = false;
  }
}

Worker::Flight* Worker::idle_flight() {
  const auto idle =
      std::find_if(flights_.begin(), flights_.end(), [](const auto& f) { return !f->busy; });
  return idle == flights_.end() ? nullptr : idle->get();
}

bool Worker::any_busy() const {
  return std::any_of(flights_.begin(), flights_.end(), [](const auto& f) { return f->busy; });
}

}  // namespace ckpt
