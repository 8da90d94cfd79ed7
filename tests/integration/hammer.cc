// SPDX-License-Identifier: Apache-2.0
// The load generator with its oracle. Reads one command a line from stdin and answers each with one
// line on stdout: "ok …", "mismatch …" or "error …"; a mismatch's particulars go to stderr.
//
//   connect URI THREADS multi|single   multi: a connection a thread, one request in flight on each;
//                                      single: one connection, 8 in flight, THREADS is ignored.
//                                      The first one reads the disk: it is the model's base
//   reconnect URI                      the same number of connections again
//   disconnect                         closes them in good order
//   start SEED [KEY=VALUE…]            load until stop. Keys: min max hot (bytes) fua flush
//                                      (per cent) pause (µs between a thread's requests)
//   ops N SEED [KEY=VALUE…]            N requests a thread, then answers
//   stop                               ends the load, waits for its answers
//   mark NAME begin|end|drop           a checkpoint is requested | has answered | is void
//   rolled NAME begin|end              a rollback to NAME, with requests in flight, runs between
//   check now|NAME                     reads the whole disk and judges it
//   check-file PATH now|NAME           the same for a file
//   adopt now|NAME                     check; then the disk's content is the base, requests are
//                                      forgotten. adopt NAME: the disk was rolled back to NAME
//   lost                               the server is dead: requests without an answer end here
//   stats, quit
//
// "now" needs a stopped load. A mark that was begun but never ended is closed by lost.

#include <csignal>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tests/integration/connection.h"
#include "tests/integration/load.h"
#include "tests/integration/model.h"

namespace ckpt {

namespace {

constexpr size_t kSingleDepth = 8;

// What one session of commands works on.
class Hammer {
 public:
  // The answer to one command line, without the newline.
  std::string answer(const std::string& line);

 private:
  using Words = std::istringstream;
  using Command = std::string (Hammer::*)(Words&);

  std::string connect(Words& words);
  std::string reconnect(Words& words);
  std::string disconnect(Words&);
  std::string start(Words& words);
  std::string ops(Words& words);
  std::string stop(Words&);
  std::string mark(Words& words);
  std::string rolled(Words& words);
  std::string check(Words& words);
  std::string check_file(Words& words);
  std::string adopt(Words& words);
  std::string lost(Words&);
  std::string stats(Words&);

  std::string open_all(const std::string& uri);
  std::string launch(Words& words, uint64_t operations);
  std::string judge(std::span<const uint8_t> observed, const std::string& name);
  std::string read_disk(std::vector<uint8_t>& disk);
  std::string counts_line() const;

  size_t threads_ = 1;
  bool single_ = false;
  bool running_ = false;
  LoadCounts counts_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Connection> reader_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

std::string report_mismatch(const Report& report) {
  for (const Mismatch& m : report.mismatches) {
    std::cerr << "mismatch at " << m.offset << '+' << m.length << ": " << m.detail << '\n';
  }
  if (!report.cut_conflict.empty()) return "mismatch " + report.cut_conflict;
  const Mismatch& first = report.mismatches.front();
  return "mismatch bytes=" + std::to_string(report.mismatched_bytes) +
         " offset=" + std::to_string(first.offset) + " length=" + std::to_string(first.length) +
         ' ' + first.detail;
}

// False: not a known KEY=VALUE.
bool set_shape(LoadShape& shape, const std::string& word) {
  static const std::map<std::string, uint64_t LoadShape::*> kKeys{
      {"min", &LoadShape::min_bytes},       {"max", &LoadShape::max_bytes},
      {"hot", &LoadShape::hot_bytes},       {"fua", &LoadShape::fua_percent},
      {"flush", &LoadShape::flush_percent}, {"pause", &LoadShape::pause_us}};
  const size_t equals = word.find('=');
  const auto key = kKeys.find(word.substr(0, equals));
  if (equals == std::string::npos || key == kKeys.end()) return false;
  return static_cast<bool>(std::istringstream(word.substr(equals + 1)) >> shape.*(key->second));
}

std::string Hammer::open_all(const std::string& uri) {
  workers_.clear();
  reader_ = Connection::open(uri);
  if (!reader_) return "error connect: " + Connection::last_error();
  while (workers_.size() < (single_ ? 1 : threads_)) {
    auto connection = Connection::open(uri);
    if (!connection) return "error connect: " + Connection::last_error();
    if (!model_) {
      std::vector<uint8_t> base(reader_->size_bytes());
      if (!reader_->read_all(base)) return "error read: " + Connection::last_error();
      model_ = std::make_unique<Model>(std::move(base));
    }
    const size_t depth = single_ ? kSingleDepth : 1;
    workers_.push_back(std::make_unique<Worker>(std::move(connection), depth, *model_, counts_));
  }
  if (reader_->size_bytes() != model_->size_bytes()) return "error the disk's size has changed";
  return "ok size=" + std::to_string(model_->size_bytes());
}

std::string Hammer::connect(Words& words) {
  std::string uri, mode;
  if (!(words >> uri >> threads_ >> mode) || threads_ == 0) return "error usage";
  single_ = mode == "single";
  return open_all(uri);
}

std::string Hammer::reconnect(Words& words) {
  std::string uri;
  if (!(words >> uri)) return "error usage";
  running_ = false;
  return open_all(uri);
}

std::string Hammer::disconnect(Words&) {
  running_ = false;
  workers_.clear();
  reader_.reset();
  return "ok";
}

std::string Hammer::launch(Words& words, uint64_t operations) {
  LoadShape shape{.operations_per_worker = operations};
  if (!(words >> shape.seed)) return "error usage";
  for (std::string word; words >> word;) {
    if (!set_shape(shape, word)) return "error unknown key " + word;
  }
  if (workers_.empty()) return "error not connected";
  for (size_t i = 0; i < workers_.size(); ++i) workers_[i]->start(shape, i);
  running_ = true;
  return "ok";
}

std::string Hammer::start(Words& words) { return launch(words, ~0ULL); }

std::string Hammer::ops(Words& words) {
  uint64_t operations = 0;
  if (!(words >> operations)) return "error usage";
  std::string launched = launch(words, operations);
  if (launched != "ok") return launched;
  for (auto& worker : workers_) worker->wait();
  running_ = false;
  return counts_line();
}

std::string Hammer::stop(Words&) {
  for (auto& worker : workers_) worker->stop();
  running_ = false;
  return counts_line();
}

std::string Hammer::mark(Words& words) {
  std::string name, what;
  if (!(words >> name >> what) || name == "now" || !model_) return "error usage";
  if (what == "begin") return model_->begin_mark(name), "ok";
  if (what == "drop") return model_->drop_mark(name), "ok";
  if (what != "end") return "error usage";
  return model_->end_mark(name) ? "ok" : "error no open mark " + name;
}

std::string Hammer::rolled(Words& words) {
  std::string name, what;
  if (!(words >> name >> what) || !model_) return "error usage";
  if (what == "begin") return model_->begin_rollback(), "ok";
  if (what != "end") return "error usage";
  return model_->end_rollback(name) ? "ok" : "error no mark " + name;
}

std::string Hammer::judge(std::span<const uint8_t> observed, const std::string& name) {
  if (name == "now" && running_) return "error the load is running";
  if (observed.size() != model_->size_bytes()) {
    return "mismatch size=" + std::to_string(observed.size()) + " not " +
           std::to_string(model_->size_bytes());
  }
  const auto window = model_->window(name);
  if (!window) return "error no mark " + name;
  const Report report = model_->check(observed, *window);
  return report.clean() ? "ok" : report_mismatch(report);
}

std::string Hammer::read_disk(std::vector<uint8_t>& disk) {
  if (!model_ || !reader_) return "error not connected";
  disk.resize(model_->size_bytes());
  return reader_->read_all(disk) ? "ok" : "error read: " + Connection::last_error();
}

std::string Hammer::check(Words& words) {
  std::string name;
  std::vector<uint8_t> disk;
  if (!(words >> name)) return "error usage";
  std::string read = read_disk(disk);
  return read == "ok" ? judge(disk, name) : read;
}

std::string Hammer::check_file(Words& words) {
  std::string path, name;
  if (!(words >> path >> name) || !model_) return "error usage";
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "error cannot open " + path;
  std::string content(static_cast<size_t>(file.tellg()), '\0');
  file.seekg(0);
  if (!file.read(content.data(), static_cast<std::streamsize>(content.size())))
    return "error cannot read " + path;
  return judge(std::vector<uint8_t>(content.begin(), content.end()), name);
}

std::string Hammer::adopt(Words& words) {
  std::string name;
  std::vector<uint8_t> disk;
  if (!(words >> name)) return "error usage";
  if (running_) return "error the load is running";
  std::string read = read_disk(disk);
  if (read != "ok") return read;
  std::string judged = judge(disk, name);
  if (judged != "ok") return judged;
  return model_->adopt(std::move(disk), name)
             ? "ok"
             : "error requests without an answer: lost comes first";
}

std::string Hammer::lost(Words&) {
  workers_.clear();
  reader_.reset();
  running_ = false;
  if (model_) model_->lost();
  return "ok";
}

std::string Hammer::counts_line() const {
  std::ostringstream text;
  text << "ok operations=" << counts_.operations << " bytes=" << counts_.bytes
       << " failed=" << counts_.failed << " unknown=" << counts_.unknown;
  return text.str();
}

std::string Hammer::stats(Words&) {
  std::string line = counts_line();
  if (!model_) return line;
  size_t usable = 0;
  for (const auto& worker : workers_) usable += worker->usable() ? 1 : 0;
  return line + " modelled=" + std::to_string(model_->operation_count()) +
         " uncertain=" + std::to_string(model_->uncertain_count()) +
         " usable=" + std::to_string(usable);
}

std::string Hammer::answer(const std::string& line) {
  static const std::map<std::string, Command> kCommands{{"connect", &Hammer::connect},
                                                        {"reconnect", &Hammer::reconnect},
                                                        {"disconnect", &Hammer::disconnect},
                                                        {"start", &Hammer::start},
                                                        {"ops", &Hammer::ops},
                                                        {"stop", &Hammer::stop},
                                                        {"mark", &Hammer::mark},
                                                        {"rolled", &Hammer::rolled},
                                                        {"check", &Hammer::check},
                                                        {"check-file", &Hammer::check_file},
                                                        {"adopt", &Hammer::adopt},
                                                        {"lost", &Hammer::lost},
                                                        {"stats", &Hammer::stats}};
  Words words(line);
  std::string name;
  words >> name;
  const auto command = kCommands.find(name);
  return command == kCommands.end() ? "error unknown command" : (this->*command->second)(words);
}

}  // namespace

}  // namespace ckpt

int main() {
  std::signal(SIGPIPE, SIG_IGN);
  ckpt::Hammer hammer;
  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    std::cout << hammer.answer(line) << std::endl;
  }
  return 0;
}
