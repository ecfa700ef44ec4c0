// Results that must not depend on the number of threads.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tensor/context/context.h"
#include "tests/support/device.h"
#include "tests/support/operand.h"

namespace tessera::testing {

// Runs with contexts of 1, 2, 3 and 7 threads and expects the same bytes from each.
inline void expect_same_bits(const std::string& what, int64_t workspace_bytes,
                             const std::function<std::vector<std::byte>(Context&)>& run) {
  std::vector<std::byte> first;
  for (const int threads : {1, 2, 3, 7}) {
    Context context(on_device({.threads = threads, .workspace_bytes = workspace_bytes * threads}));
    const std::vector<std::byte> bytes = run(context);
    if (threads == 1) first = bytes;
    EXPECT_TRUE(bytes == first) << what << ": " << threads << " threads differ from one";
  }
}

inline std::vector<std::byte> joined(std::initializer_list<const Operand*> operands) {
  std::vector<std::byte> bytes;
  for (const Operand* operand : operands) bytes.insert(bytes.end(), operand->bytes().begin(), operand->bytes().end());
  return bytes;
}

}  // namespace tessera::testing
