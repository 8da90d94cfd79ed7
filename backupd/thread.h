// SPDX-License-Identifier: Apache-2.0
// Starting a thread, which may fail.
#pragma once

#include <pthread.h>

#include <system_error>
#include <thread>

#include "common/result.h"

namespace ckpt {

// A named thread that does the work. kBusy: the system has no more.
template <typename Work>
Result<std::thread> start_thread(const char* name, Work work) {
  try {
    std::thread thread(std::move(work));
    pthread_setname_np(thread.native_handle(), name);
    return thread;
  } catch (const std::system_error& error) {
    return fail(ErrorKind::kBusy, std::string("no thread more: ") + error.what());
  }
}

}  // namespace ckpt
