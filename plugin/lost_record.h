// SPDX-License-Identifier: Apache-2.0
// What to do where nothing says any more whose a back-up is.
#pragma once

#include <string>

namespace ckpt {

// For a message: store is the back-up's folder, moved is what is to go out of the way.
inline std::string advice_on_lost_record(const std::string& store, const std::string& moved) {
  return "take its checkpoint out (ckpt-tool export " + store + " last NEW.img), then move " +
         moved + " away to begin anew";
}

}  // namespace ckpt
