// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/sim_network.h"

#include <algorithm>

namespace ckpt::sim {
namespace {

using std::chrono::milliseconds;

constexpr SteadyTime kLateMax =
    std::chrono::seconds(2);  // of what a connection that is over delivers

Unexpected lost(const char* why) {
  return fail(ErrorKind::kUnreachable, std::string("the simulated link: ") + why);
}

}  // namespace

SimNetwork::SimNetwork(Scheduler& scheduler, const NetworkOptions& options, SeededRandom random)
    : scheduler_(scheduler), options_(options), random_(random) {
  scheduler_.add_listener(this);
}

SimNetwork::~SimNetwork() { scheduler_.remove_listener(this); }

SteadyTime SimNetwork::draw_delay() {
  return SteadyTime(random_.below(static_cast<uint64_t>(options_.delay_max.count()) + 1));
}

Result<std::unique_ptr<Stream>> SimNetwork::connect(milliseconds patience) {
  scheduler_.yield(YieldKind::kPoint, "connect");
  if (listener_ == kHarness && is_down_) {
    scheduler_.sleep(patience);
  }
  scheduler_.sleep(draw_delay());
  if (listener_ == kHarness) {
    return lost("nobody listens");
  }
  auto wire = std::make_shared<Wire>(options_);
  wire->client = scheduler_.process();
  wire->server = listener_;
  if (is_breaking_ && random_.one_in(options_.break_one_in)) {
    Pipe& pipe = random_.one_in(3) ? wire->to_client : wire->to_server;
    const uint64_t most = options_.bytes_before_break >> random_.below(12);
    pipe.breaks_after = random_.below(std::max<uint64_t>(most, 1));
  }
  std::erase_if(wires_, [](const std::weak_ptr<Wire>& one) { return one.expired(); });
  wires_.push_back(wire);
  unaccepted_.push_back(wire);
  connected_.wake();
  return std::unique_ptr<Stream>(
      std::make_unique<SimStream>(*this, std::move(wire), LinkEnd::kClient, patience));
}

void SimNetwork::wait_for_listener() {
  while (listener_ == kHarness) {
    scheduler_.sleep(milliseconds(1));
  }
}

std::unique_ptr<Stream> SimNetwork::accept(SteadyTime time) {
  if (unaccepted_.empty()) {
    connected_.wait(time);
  }
  if (unaccepted_.empty()) {
    return nullptr;
  }
  auto wire = std::move(unaccepted_.front());
  unaccepted_.pop_front();
  return std::make_unique<SimStream>(*this, std::move(wire), LinkEnd::kServer, milliseconds(1000));
}

// ---- ends

void SimNetwork::on_kill(ProcessId process) {
  for (const std::weak_ptr<Wire>& one : wires_) {
    const std::shared_ptr<Wire> wire = one.lock();
    for (const LinkEnd end : {LinkEnd::kClient, LinkEnd::kServer}) {
      if (wire == nullptr || wire->owner(end) != process) {
        continue;
      }
      if (process == powerless_) {
        cut(wire->to_server);
        cut(wire->to_client);
        wire->owner(end) = kHarness;
      } else {
        close(*wire, end);
      }
    }
  }
  if (process == listener_) {
    listener_ = kHarness;
    is_down_ = process == powerless_;
    unaccepted_.clear();
  }
}

void SimNetwork::end(Pipe& pipe, SteadyTime after) {
  pipe.last_arrives = std::max(pipe.last_arrives, scheduler_.now() + after);
  pipe.end_arrives = pipe.end_arrives.value_or(pipe.last_arrives);
  pipe.readable.wake();
}

// What was sent before still comes, and then the end; what comes is not read any more.
void SimNetwork::close(Wire& wire, LinkEnd closer) {
  wire.owner(closer) = kHarness;
  Pipe& out = wire.out_of(closer);
  Pipe& in = wire.into(closer);
  counts_.late_bytes += out.bytes;
  if (!out.is_cut) {
    end(out, draw_delay());
  }
  in.is_deaf = true;
  in.segments.clear();
  in.bytes = 0;
  in.writable.wake();
  in.readable.wake();
  out.writable.wake();
}

// Nothing more comes out of it, and whoever sends waits for room one day.
void SimNetwork::cut(Pipe& pipe) {
  pipe.is_cut = true;
  pipe.breaks_after.reset();
  pipe.segments.clear();
}

void SimNetwork::break_wire(Wire& wire) {
  const uint64_t kind = random_.below(3);
  if (kind == 0) {
    ++counts_.silences;
    scheduler_.event("link silent");
    cut(wire.to_server);
    cut(wire.to_client);
    return;
  }
  if (kind == 1) {
    ++counts_.one_sided;
    scheduler_.event("link broken for one side");
    break_one_sided(wire, random_.one_in(4) ? LinkEnd::kServer : LinkEnd::kClient);
    return;
  }
  ++counts_.resets;
  scheduler_.event("link reset");
  for (Pipe* const pipe : {&wire.to_server, &wire.to_client}) {
    cut(*pipe);
    end(*pipe, draw_delay());
  }
}

// That side hears of it now; the other one hears what is under way, late, and then the end, or
// nothing.
void SimNetwork::break_one_sided(Wire& wire, LinkEnd hears) {
  Pipe& in = wire.into(hears);
  cut(in);
  in.last_arrives = {};
  end(in, {});
  Pipe& out = wire.out_of(hears);
  const SteadyTime late(random_.below(static_cast<uint64_t>(kLateMax.count())));
  for (Pipe::Segment& segment : out.segments) {
    segment.arrives += late;
  }
  counts_.late_bytes += out.bytes;
  out.is_cut = true;
  out.breaks_after.reset();
  out.last_arrives += late;
  if (random_.one_in(2)) {
    end(out, late);
  }
}

// ---- streams

SteadyTime SimStream::now() const { return network_.scheduler_.now(); }

Result<> SimStream::check_open() const {
  return is_closed_ ? Result<>(lost("it was shut down")) : Result<>();
}

// The end has come, and all before it was taken.
bool SimStream::has_ended() const {
  const Pipe& in = wire_->into(end_);
  return in.segments.empty() && in.end_arrives && *in.end_arrives <= now();
}

bool SimStream::is_over() const {
  const Pipe& in = wire_->into(end_);
  return is_closed_ || (in.end_arrives && *in.end_arrives <= now());
}

bool SimStream::can_write() const {
  const Pipe& out = wire_->out_of(end_);
  return !is_closed_ && out.bytes + 4096 < wire_->options.room_bytes;
}

// Of what has arrived.
size_t SimStream::take(ByteSpan buffer) {
  Pipe& in = wire_->into(end_);
  size_t taken = 0;
  while (taken < buffer.size() && !in.segments.empty() && in.segments.front().arrives <= now()) {
    Pipe::Segment& segment = in.segments.front();
    const size_t count = std::min(buffer.size() - taken, segment.bytes.size() - segment.taken);
    copy_bytes(ConstByteSpan(segment.bytes).subspan(segment.taken, count),
               buffer.subspan(taken, count));
    taken += count;
    segment.taken += count;
    in.bytes -= count;
    if (segment.taken == segment.bytes.size()) {
      in.segments.pop_front();
    }
  }
  return taken;
}

Result<> SimStream::read(ByteSpan buffer) {
  SteadyTime deadline = now() + silence_;
  while (!buffer.empty()) {
    network_.scheduler_.yield(YieldKind::kPoint, "receive");
    CKPT_TRY(check_open());
    Pipe& in = wire_->into(end_);
    if (const size_t count = take(buffer); count > 0) {
      in.writable.wake();
      buffer = buffer.subspan(count);
      deadline = now() + silence_;
      continue;
    }
    if (has_ended() || (!is_reading_ && in.segments.empty())) {
      return lost("it has closed the connection");
    }
    if (now() >= deadline) {
      return lost("nothing was heard of it for so long that it is taken for gone");
    }
    SteadyTime until = deadline;
    if (!in.segments.empty()) {
      until = std::min(until, in.segments.front().arrives);
    } else if (in.end_arrives) {
      until = std::min(until, *in.end_arrives);
    }
    in.readable.wait(until - now());
  }
  return {};
}

// As much of it as there is room for.
size_t SimStream::put(ConstByteSpan bytes) {
  Pipe& out = wire_->out_of(end_);
  const uint64_t room = wire_->options.room_bytes - out.bytes;
  size_t count = std::min<size_t>(bytes.size(), room);
  if (count > 1 && network_.random_.one_in(8)) {
    count = 1 + network_.random_.below(count);
  }
  const bool breaks = out.breaks_after && *out.breaks_after < count;
  if (breaks) {
    count = *out.breaks_after;
  } else if (out.breaks_after) {
    *out.breaks_after -= count;
  }
  out.bytes += out.is_deaf ? 0 : count;
  if (!out.is_cut && !out.is_deaf && count > 0) {
    out.last_arrives = std::max(out.last_arrives, now() + network_.draw_delay());
    out.segments.push_back(
        {out.last_arrives, {bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count)}, 0});
    out.readable.wake();
  }
  if (breaks) {
    network_.break_wire(*wire_);
  }
  return count;
}

Result<> SimStream::write_all(ConstByteSpan bytes) {
  SteadyTime deadline = now() + silence_;
  while (!bytes.empty()) {
    network_.scheduler_.yield(YieldKind::kPoint, "send");
    CKPT_TRY(check_open());
    if (is_over()) {
      return lost("it has closed the connection");
    }
    if (const size_t count = put(bytes); count > 0) {
      bytes = bytes.subspan(count);
      deadline = now() + silence_;
    } else if (now() >= deadline) {
      return lost("it takes nothing any more");
    } else {
      wire_->out_of(end_).writable.wait(deadline - now());
    }
  }
  return {};
}

Result<> SimStream::write(ConstByteSpan head, ConstByteSpan body) {
  CKPT_TRY(write_all(head));
  return write_all(body);
}

// A caller that was killed meanwhile ends here, and not in what it would look at next: its locks may
// have been passed by.
void SimStream::shut_down() {
  close();
  network_.scheduler_.yield(YieldKind::kPoint, "shut down");
}

void SimStream::close() {
  if (!is_closed_ && wire_->owner(end_) != kHarness &&
      network_.scheduler_.alive(wire_->owner(end_))) {
    network_.close(*wire_, end_);
  }
  is_closed_ = true;
}

}  // namespace ckpt::sim
