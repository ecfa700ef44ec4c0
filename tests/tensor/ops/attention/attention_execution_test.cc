// How attention runs: the same bits for any number of threads, in the workspace that it states, without allocating.
#include <gtest/gtest.h>

#include "tests/support/allocations.h"
#include "tests/tensor/ops/attention/attention_case.h"

namespace tessera {
namespace {

using namespace testing_attention;

class AttentionExecution : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(All, AttentionExecution, ::testing::Values(DType::F64, DType::F32, DType::BF16),
                         [](const auto& dtype) { return name(dtype.param); });

// With more and with fewer tasks than threads: documents that end with their tiles are tasks of their own backwards.
TEST_P(AttentionExecution, ThreadsDoNotChangeABit) {
  Tokens aligned;
  for (const int32_t id : {0, 1, 2}) aligned.add(id, 128);
  Tokens joined;
  joined.add(0, 150);
  for (const auto& [tokens, kv_heads] : {std::pair{mixed(), 3}, {aligned, 2}, {joined, 1}}) {
    Case c = {
        .queries = tokens, .keys = tokens, .q_heads = 6, .kv_heads = kv_heads, .head_dim = 24, .dtype = GetParam()};
    Operands one(c);
    one.forward();
    one.backward();
    for (const int threads : {2, 3}) {
      c.threads = threads;
      Operands many(c);
      many.forward();
      many.backward();
      EXPECT_EQ(one.out.bytes, many.out.bytes);
      EXPECT_EQ(one.lse.bytes, many.lse.bytes);
      EXPECT_EQ(one.dq.bytes, many.dq.bytes);
      EXPECT_EQ(one.dk.bytes, many.dk.bytes);
      EXPECT_EQ(one.dv.bytes, many.dv.bytes);
    }
  }
}

// The same tokens with other documents around them, as long as tiles fall alike.
TEST_P(AttentionExecution, OtherDocumentsDoNotChangeABit) {
  Tokens alone;
  alone.add(0, 128);
  Tokens among;
  among.add(0, 128);
  among.add(1, 100);
  Operands a({.queries = alone, .keys = alone, .head_dim = 16, .dtype = GetParam()});
  Operands b({.queries = among, .keys = among, .head_dim = 16, .dtype = GetParam()});
  a.forward();
  b.forward();
  EXPECT_TRUE(std::equal(a.out.bytes.begin(), a.out.bytes.end(), b.out.bytes.begin()));
}

TEST_P(AttentionExecution, StatesItsWorkspaceExactly) {
  for (const int threads : {1, 3}) {
    for (const int64_t head_dim : {20, 64}) {
      Operands x({.queries = mixed(),
                  .keys = mixed(),
                  .q_heads = 4,
                  .kv_heads = 2,
                  .head_dim = head_dim,
                  .dtype = GetParam(),
                  .threads = threads});
      x.forward();
      x.backward();
      EXPECT_EQ(x.context.workspace().high_water(),
                attention_workspace(x.context.target(), 200, 200, 4, 2, head_dim, GetParam()));
      EXPECT_EQ(x.context.workspace().used(), 0);
    }
  }
}

TEST_P(AttentionExecution, AllocatesNothing) {
  Operands x({.queries = mixed(),
              .keys = mixed(),
              .q_heads = 4,
              .kv_heads = 2,
              .head_dim = 20,
              .dtype = GetParam(),
              .threads = 2});
  const Tensor q = x.q.tensor(x.q_shape());
  const Tensor k = x.k.tensor(x.kv_shape());
  const Tensor v = x.v.tensor(x.kv_shape());
  const Tensor out = x.out.tensor(x.out_shape());
  const Tensor lse = x.lse.tensor(x.lse_shape());
  const auto step = [&] {
    make_attention_tiles(x.problem.queries, x.problem.keys, x.problem.window, x.list.offset, x.list.key_tile,
                         x.list.full);
    attention(x.context, x.problem, q, k, v, out, lse);
    attention_backward(x.context, x.problem, q, k, v, out, lse, x.dout.tensor(x.out_shape()), x.dq.tensor(x.q_shape()),
                       x.dk.tensor(x.kv_shape()), x.dv.tensor(x.kv_shape()));
  };
  step();  // starts the threads
  const int64_t before = testing::allocations();
  step();
  EXPECT_EQ(testing::allocations(), before);
}

}  // namespace
}  // namespace tessera
