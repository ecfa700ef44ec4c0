// No operation allocates: what they need they take from the workspace.
#include <gtest/gtest.h>

#include "tensor/ops/activation.h"
#include "tensor/ops/adamw.h"
#include "tensor/ops/attention/attention_merge.h"
#include "tensor/ops/columns.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/rope.h"
#include "tests/support/allocations.h"
#include "tests/support/operand.h"

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

TEST(Allocation, TheCounterCounts) {
  const int64_t before = testing::allocations();
  const std::vector<int> allocated(1000);
  EXPECT_EQ(testing::allocations(), before + 1);
  EXPECT_EQ(allocated.size(), 1000u);
}

}  // namespace
}  // namespace tessera
