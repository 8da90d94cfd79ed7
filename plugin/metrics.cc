// SPDX-License-Identifier: Apache-2.0
#include "plugin/metrics.h"

#include <array>
#include <cstdio>
#include <initializer_list>
#include <vector>

#include "common/text.h"

namespace ckpt {
namespace {

// Of a label: Prometheus' exposition formats, "Comments, help text, and type information".
std::string escaped(const std::string& value) {
  const bool is_text = is_utf8(value);
  std::string safe;
  for (const char byte : value) {
    if (byte == '\n') {
      safe += "\\n";
    } else if (byte == '\\' || byte == '"') {
      safe += {'\\', byte};
    } else {
      safe += is_text || (static_cast<unsigned char>(byte) < 0x80U) ? byte : '?';
    }
  }
  return safe;
}

std::string seconds(std::chrono::nanoseconds time) {
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%.6f", std::chrono::duration<double>(time).count());
  return text.data();
}

std::string number(uint64_t value) { return std::to_string(value); }
std::string flag(bool value) { return value ? "1" : "0"; }

struct Label {
  const char* name;
  std::string value;
};

// Lines of metrics, all with the volume's own labels.
class Exposition {
 public:
  explicit Exposition(const std::string& image) : image_(escaped(image)) {}

  void gauge(const char* name, const char* help, const std::string& value) {
    begin(name, "gauge", help);
    sample(name, {}, value);
  }
  void counter(const char* name, const char* help, uint64_t value) {
    begin(name, "counter", help);
    sample(name, {}, number(value));
  }
  // One of a set of states is 1, the others are 0.
  void states(const char* name, const char* help, const std::string& now,
              std::initializer_list<const char*> all) {
    begin(name, "gauge", help);
    for (const char* const state : all) {
      sample(name, {{"state", state}}, flag(now == state));
    }
  }
  void info(const char* name, const char* help, const std::vector<Label>& labels) {
    begin(name, "gauge", help);
    sample(name, labels, "1");
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  void begin(const std::string& name, const std::string& type, const std::string& help) {
    text_ += "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
  }
  void sample(const std::string& name, const std::vector<Label>& labels, const std::string& value) {
    text_ += name + "{image=\"" + image_ + "\"";
    for (const Label& label : labels) {
      text_ += "," + std::string(label.name) + "=\"" + escaped(label.value) + "\"";
    }
    text_ += "} " + value + "\n";
  }

  const std::string image_;
  std::string text_;
};

void add_identity(Exposition& to, const VolumeStatus& status, bool served) {
  to.gauge("ckpt_up", "Whether a server runs for the volume.", flag(served));
  to.info("ckpt_volume_info", "Identity of the volume; always 1.",
          {{"volume", status.volume.to_string()},
           {"timeline", status.timeline.to_string()},
           {"role", status.role},
           {"version", CKPT_VERSION}});
  to.states("ckpt_volume_state", "State of the volume: 1 for the one that it is in.", status.state,
            {"running", "stopped", "rolling-back", "fenced", "diverged", "promoted"});
  to.gauge("ckpt_protected", "Whether a checkpoint exists and the back-up takes more.",
           flag(status.protection));
  to.gauge("ckpt_size_bytes", "Size of the disk.", number(status.size_bytes));
  to.gauge("ckpt_epoch", "Number that the next checkpoint will have.", number(status.epoch.value));
}

void add_last_checkpoint(Exposition& to, const VolumeStatus& status) {
  if (!status.last_checkpoint) {
    return;
  }
  const CheckpointInfo& last = *status.last_checkpoint;
  to.gauge("ckpt_last_checkpoint_number", "Number of the last checkpoint.",
           number(last.id.number.value));
  to.gauge("ckpt_last_checkpoint_timestamp_seconds", "Unix time of the last checkpoint's cut.",
           seconds(last.time));
  to.gauge("ckpt_last_checkpoint_changed_bytes", "Changed between its parent and it.",
           number(last.changed_bytes));
  to.gauge("ckpt_last_checkpoint_shipped_bytes", "Sent to the back-up for it, compressed.",
           number(last.shipped_bytes));
}

void add_load(Exposition& to, const VolumeStatus& status) {
  to.gauge("ckpt_changed_bytes", "Changed since the last checkpoint: lost by a rollback.",
           number(status.changed_bytes));
  to.gauge("ckpt_unshipped_bytes", "Changed and not yet sent to the back-up.",
           number(status.unshipped_bytes));
  to.gauge("ckpt_connections", "Connected clients.", number(status.connections));
  to.gauge("ckpt_write_stall_max_seconds", "Longest that a write waited because of a checkpoint.",
           seconds(status.stall_max));
  to.counter("ckpt_preserved_blocks_total",
             "Blocks of 4096 bytes read before they were overwritten, for a checkpoint.",
             status.preserved_blocks);
}

void add_counts(Exposition& to, const VolumeStatus& status) {
  const EventCounts& counts = status.counts;
  to.counter("ckpt_checkpoints_total", "Checkpoints made.", counts.checkpoints);
  to.counter("ckpt_void_checkpoints_total", "Checkpoints asked for that will never exist.",
             counts.void_checkpoints);
  to.counter("ckpt_missed_checkpoints_total",
             "Planned times of the interval for which no checkpoint was made.",
             counts.missed_checkpoints);
  to.counter("ckpt_rollbacks_total", "Rollbacks done.", counts.rollbacks);
  to.counter("ckpt_shipped_bytes_total", "Sent to the back-up for the checkpoints made.",
             counts.shipped_bytes);
  to.gauge("ckpt_checkpoint_interval_seconds", "Planned time between checkpoints; 0: on request.",
           number(static_cast<uint64_t>(status.checkpoint_interval.count())));
  if (counts.checkpoints > 0) {
    to.gauge("ckpt_last_checkpoint_confirm_seconds", "From its cut to its confirmation.",
             seconds(counts.confirm_last));
  }
}

void add_store(Exposition& to, const StoreStatus& store, bool served) {
  to.states("ckpt_backup_state", "State of the back-up: 1 for the one that it is in.", store.state,
            {"connected", "syncing", "detached", "failed"});
  if (store.confirmed) {
    to.gauge("ckpt_backup_confirmed_checkpoint", "Number of the last checkpoint confirmed.",
             number(store.confirmed->id.number.value));
  }
  to.gauge("ckpt_backup_applied_checkpoint", "Number of the last one in the back-up image.",
           number(store.applied.value));
  if (served) {
    to.gauge("ckpt_backup_pending_bytes", "Received, of no checkpoint yet.",
             number(store.pending_bytes));
    to.gauge("ckpt_backup_confirmed_bytes", "Confirmed and not yet applied.",
             number(store.confirmed_bytes));
    to.gauge("ckpt_backup_free_bytes", "Free on the back-up's file system.",
             number(store.free_bytes));
  }
}

}  // namespace

std::string encode_metrics(const VolumeStatus& status, bool served) {
  Exposition exposition(status.image);
  add_identity(exposition, status, served);
  add_last_checkpoint(exposition, status);
  if (served) {
    add_load(exposition, status);
    add_counts(exposition, status);
  }
  if (status.store) {
    add_store(exposition, *status.store, served);
  }
  return exposition.take();
}

}  // namespace ckpt
