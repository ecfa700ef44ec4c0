// No operation allocates: what they need they take from the workspace.
#include <gtest/gtest.h>

#include "tensor/ops/activation.h"
#include "tensor/ops/adamw.h"
#include "tensor/ops/attention/attention_merge.h"
#include "tensor/ops/columns.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/gated_norm.h"
#include "tensor/ops/l2_norm.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/rope.h"
#include "tensor/ops/short_convolution.h"
#include "tests/support/allocations.h"
#include "tests/support/operand.h"
#include "tests/tensor/ops/delta_rule/delta_rule_case.h"

namespace tessera {
namespace {

using testing::Operand;

constexpr int64_t kTokens = 300, kHidden = 512;

struct Operands {
  explicit Operands(DType d) : dtype(d) {}
  Operand make(const Shape& shape, const char* what) const { return Operand::random(shape, dtype, what); }
  Operand sums(const Shape& shape, const char* what) const {
    return Operand::random(shape, accumulation_dtype(dtype), what);
  }

  DType dtype;
  HeadLayout layout = {.kv_heads = 2, .q_per_kv = 2, .head_dim = 64};
  std::vector<int32_t> index = std::vector<int32_t>(kTokens, 3);
  Operand x = make({kTokens, kHidden}, "x"), y = make({kTokens, kHidden}, "y");
  Operand weight = make({kHidden}, "weight"), bias = make({kHidden}, "bias");
  Operand mean = sums({kTokens}, "mean"), rstd = sums({kTokens}, "rstd");
  Operand dweight = sums({kHidden}, "dweight"), dbias = sums({kHidden}, "dbias");
  Operand pairs = make({kTokens, kHidden / 2, 2}, "pairs"), half = make({kTokens, kHidden / 2}, "half");
  Operand q = make({4, kTokens, 64}, "q"), k = make({2, kTokens, 64}, "k"), v = make({2, kTokens, 64}, "v");
  Operand angles = sums({kTokens, 64}, "angles"), table = sums({8, kHidden}, "table");
  Operand logits = sums({kTokens, kHidden}, "logits"), maximum = sums({kTokens}, "maximum"),
          statistics = sums({2, kTokens}, "statistics");
  Operand merged = sums({kTokens, 4, 64}, "merged"), lse = sums({4, kTokens}, "lse"),
          part_lse = sums({4, kTokens}, "part_lse");
  Operand number = Operand::filled({1}, DType::F64, 0);
  Operand m = sums({kTokens, kHidden}, "m"), s = sums({kTokens, kHidden}, "s"), w = sums({kTokens, kHidden}, "w");
};

void run_everything(Context& context, Operands& o) {
  add(context, o.x.tensor(), o.y.tensor(), o.y.tensor());
  cast(context, o.logits.tensor(), o.y.tensor());
  accumulate(context, o.x.tensor(), o.logits.tensor());
  add_bias(context, o.bias.tensor(), o.y.tensor());
  zero(context, o.dbias.tensor());
  copy_columns(context, o.x.tensor(), 3, 200, o.logits.tensor(), 5);
  attention_merge_start(context, o.merged.tensor(), o.lse.tensor());
  attention_merge(context, o.q.tensor().reshape({kTokens, 4, 64}), o.part_lse.tensor(), o.merged.tensor(),
                  o.lse.tensor());
  sum_of_squares(context, o.x.tensor(), o.number.tensor());
  all_finite(context, o.x.tensor());
  add_column_sums(context, o.x.tensor(), o.dbias.tensor());
  rms_norm(context, o.x.tensor(), o.weight.tensor(), 1e-5, o.y.tensor(), o.rstd.tensor());
  rms_norm_backward(context, o.y.tensor(), o.x.tensor(), o.weight.tensor(), o.rstd.tensor(), {}, o.y.tensor(),
                    o.dweight.tensor());
  layer_norm(context, o.x.tensor(), o.weight.tensor(), o.bias.tensor(), 1e-5, o.y.tensor(), o.mean.tensor(),
             o.rstd.tensor());
  layer_norm_backward(context, o.y.tensor(), o.x.tensor(), o.weight.tensor(), o.mean.tensor(), o.rstd.tensor(),
                      o.x.tensor(), o.y.tensor(), o.dweight.tensor(), o.dbias.tensor());
  swiglu(context, o.pairs.tensor(), o.half.tensor());
  swiglu_backward(context, o.half.tensor(), o.pairs.tensor(), o.pairs.tensor());
  gelu(context, o.x.tensor(), o.y.tensor());
  gelu_backward(context, o.y.tensor(), o.x.tensor(), o.y.tensor());
  embedding(context, o.index, o.q.tensor().reshape({kTokens / 2, kHidden}), 0, o.y.tensor());
  embedding_add(context, o.index, o.q.tensor().reshape({kTokens / 2, kHidden}), 0, o.y.tensor());
  embedding_backward(context, o.index, o.x.tensor(), 0, o.table.tensor());
  rope_table(context, o.index, 10000, o.angles.tensor());
  split_heads(context, o.x.tensor(), o.layout, o.angles.tensor(), o.q.tensor(), o.k.tensor(), o.v.tensor());
  split_heads_backward(context, o.q.tensor(), o.k.tensor(), o.v.tensor(), o.layout, o.angles.tensor(), o.y.tensor());
  cross_entropy_maximum(context, o.logits.tensor(), o.maximum.tensor());
  cross_entropy_sums(context, o.logits.tensor(), o.index, 0, o.maximum.tensor(), o.statistics.tensor());
  cross_entropy_loss(context, o.index, o.statistics.tensor(), o.number.tensor());
  cross_entropy_backward(context, o.logits.tensor(), o.index, 0, o.maximum.tensor(), o.statistics.tensor(), 1,
                         o.x.tensor());
  adamw(context, {.learning_rate = 0.1}, o.logits.tensor(), o.w.tensor(), o.m.tensor(), o.s.tensor(), o.y.tensor());
}

TEST(Allocation, NoOperationAllocates) {
  for (const DType dtype : testing::kFloatDTypes) {
    Context context(testing::on_device({.threads = 3, .workspace_bytes = 1 << 20}));
    Operands operands(dtype);
    operands.layout = {.kv_heads = 2, .q_per_kv = 2, .head_dim = 64};
    run_everything(context, operands);  // the thread pool starts
    const int64_t before = testing::allocations();
    run_everything(context, operands);
    EXPECT_EQ(testing::allocations(), before) << name(dtype);
  }
}

// What a recurrent mixer is made of, over packed segments.
void run_recurrence(Context& context, Operands& o, testing::DeltaRuleCase& c) {
  const DeltaRuleProblem problem = c.problem(context);
  const Tensor wide = o.x.tensor().rows(0, c.sizes.tokens);
  const Tensor filtered = o.y.tensor().rows(0, c.sizes.tokens);
  const Tensor filter = o.q.tensor().reshape({4 * kTokens * 64}).rows(0, kHidden * 4).reshape({kHidden, 4});
  const Tensor dfilter = o.m.tensor().reshape({kTokens * kHidden}).rows(0, kHidden * 4).reshape({kHidden, 4});
  TokenSegments segments = problem.segments;
  segments.initial = {};
  short_convolution(context, segments, wide, filter, {}, filtered);
  short_convolution_backward(context, segments, filtered, wide, filter, {},
                             o.half.tensor().reshape({kTokens / 2, kHidden}).rows(0, c.sizes.tokens), {}, dfilter);
  const Tensor rstd = o.part_lse.tensor()
                          .reshape({4 * kTokens})
                          .rows(0, c.sizes.key_heads * c.sizes.tokens)
                          .reshape({c.sizes.key_heads, c.sizes.tokens});
  l2_norm_heads(context, wide, 0, 1e-6, c.q.tensor(), rstd);
  l2_norm_heads_backward(context, c.q.tensor(), wide, 0, rstd, filtered);
  split_columns(context, wide, 0, c.v.tensor());
  split_columns_backward(context, c.v.tensor(), 0, filtered);
  c.forward(context);
  c.backward(context);
  delta_rule_map(context, problem, c.input(), c.final.tensor(), c.transfer.tensor());
  delta_rule_map_backward(context, problem, c.input(), c.dout.tensor(), c.dinitial.tensor());
  const Shape one = {c.sizes.value_heads, c.sizes.key_dim, c.sizes.value_dim};
  fold_delta_states(context, c.final.tensor(), c.transfer.tensor(), c.dfinal.tensor().rows(0, 1).reshape(one));
  fold_delta_states_backward(context, c.final.tensor(), c.transfer.tensor(), c.dfinal.tensor().rows(0, 1).reshape(one));
  const Shape heads = {c.sizes.tokens, 4, kHidden / 4};
  const Tensor head_rstd =
      o.lse.tensor().reshape({4 * kTokens}).rows(0, 4 * c.sizes.tokens).reshape({c.sizes.tokens, 4});
  const Tensor weight = o.weight.tensor().rows(0, kHidden / 4), dweight = o.dweight.tensor().rows(0, kHidden / 4);
  gated_rms_norm(context, wide.reshape(heads), filtered.reshape(heads), weight, 1e-6, filtered.reshape(heads),
                 head_rstd);
  gated_rms_norm_backward(context, wide.reshape(heads), wide.reshape(heads), filtered.reshape(heads), weight, head_rstd,
                          wide.reshape(heads), filtered.reshape(heads), dweight);
}

TEST(Allocation, NoOperationOfARecurrentMixerAllocates) {
  for (const DType dtype : testing::kFloatDTypes) {
    Context context(testing::on_device({.threads = 3, .workspace_bytes = 8 << 20}));
    Operands operands(dtype);
    testing::DeltaRuleCase c({.key_heads = 2, .value_heads = 4, .key_dim = 16, .value_dim = 32, .compute = dtype},
                             {20, 100}, {0, 1});
    run_recurrence(context, operands, c);
    const int64_t before = testing::allocations();
    run_recurrence(context, operands, c);
    EXPECT_EQ(testing::allocations(), before) << name(dtype);
  }
}

TEST(Allocation, TheCounterCounts) {
  const int64_t before = testing::allocations();
  const std::vector<int> allocated(1000);
  EXPECT_EQ(testing::allocations(), before + 1);
  EXPECT_EQ(allocated.size(), 1000u);
}

}  // namespace
}  // namespace tessera
