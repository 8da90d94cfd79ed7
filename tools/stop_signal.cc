// SPDX-License-Identifier: Apache-2.0
#include "tools/stop_signal.h"

#include <csignal>
#include <initializer_list>

namespace ckpt {
namespace {

volatile sig_atomic_t last_stop = 0;

void note_stop(int signal) { last_stop = signal; }

}  // namespace

void listen_for_stop() {
  struct sigaction action {};
  action.sa_handler = note_stop;
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) {
    sigaction(signal, &action, nullptr);
  }
}

int stop_signal() { return last_stop; }

}  // namespace ckpt
