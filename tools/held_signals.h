// SPDX-License-Identifier: Apache-2.0
// What would end the tool waits.
#pragma once

#include <csignal>

namespace ckpt {

// SIGINT, SIGTERM and SIGHUP of this thread, and of those that it starts meanwhile: they come when
// it is over.
class HeldSignals {
 public:
  HeldSignals() {
    sigset_t ending;
    sigemptyset(&ending);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
      sigaddset(&ending, signal);
    }
    pthread_sigmask(SIG_BLOCK, &ending, &before_);
  }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;
  ~HeldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

}  // namespace ckpt
