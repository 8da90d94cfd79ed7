// SPDX-License-Identifier: Apache-2.0
// Precompiled: every unit test needs it.
#include <gtest/gtest.h>
