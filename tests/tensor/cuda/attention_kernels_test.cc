// Which kernels attention starts, as the emulator counts them: results alone do not tell, since the plain ones compute
// the same, many times slower.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/support/grid/grid.h"
#include "tests/tensor/ops/attention/attention_case.h"

namespace tessera {
namespace {

using namespace testing_attention;

// The kernels that one forward and one backward start.
std::map<std::string, int64_t> started(DType dtype, int64_t head_dim) {
  Case c;
  c.queries.add(0, 70);
  c.keys = c.queries;
  c.q_heads = 2;
  c.head_dim = head_dim;
  c.dtype = dtype;
  Operands x(c);
  const std::map<std::string, int64_t> before = grid::starts();
  x.forward();
  x.backward();
  std::map<std::string, int64_t> kernels = grid::starts();
  for (const auto& [name, count] : before) {
    if ((kernels[name] -= count) == 0) kernels.erase(name);
  }
  return kernels;
}

const std::map<std::string, int64_t> kTensorCores = {{"attention", 1},
                                                     {"attention_backward: delta", 1},
                                                     {"attention_backward: dk and dv", 1},
                                                     {"attention_backward: dq", 1}};
const std::map<std::string, int64_t> kPlain = {{"attention (plain)", 1},
                                               {"attention_backward: delta", 1},
                                               {"attention_backward (plain): dk and dv", 1},
                                               {"attention_backward (plain): dq", 1}};

TEST(AttentionKernels, TensorCoresMultiplyBF16) {
  for (const int64_t head_dim : {8, 64, 80, 96, 128, 192, 256}) {
    EXPECT_EQ(started(DType::BF16, head_dim), kTensorCores) << head_dim;
  }
}

TEST(AttentionKernels, WhatTheyCannotIsPlain) {
  EXPECT_EQ(started(DType::BF16, 20), kPlain);  // no multiple of 8
  EXPECT_EQ(started(DType::BF16, 264), kPlain);
  EXPECT_EQ(started(DType::F32, 64), kPlain);
  EXPECT_EQ(started(DType::F64, 64), kPlain);
}

}  // namespace
}  // namespace tessera
