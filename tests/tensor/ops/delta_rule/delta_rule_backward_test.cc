#include <gtest/gtest.h>

#include "tests/support/central_difference.h"
#include "tests/tensor/ops/delta_rule/delta_rule_case.h"

namespace tessera {
namespace {

using testing::DeltaRuleCase;
using testing::Operand;
using testing::random_lengths;

int64_t workspace(const DeltaRuleCase& c) { return delta_rule_workspace({testing::kDevice, 2}, c.sizes); }

DeltaRuleSizes sizes(int64_t chunk, DType dtype = DType::F64) {
  return {.key_heads = 2, .value_heads = 4, .key_dim = 3, .value_dim = 5, .chunk = chunk, .compute = dtype};
}

TEST(DeltaRuleBackward, GradientsMatchCentralDifferences) {
  // The scalar is computed four times for each element of each operand, which an emulated device is slow at.
  const uint64_t seeds = testing::kDevice == Device::Cpu ? 3 : 1;
  for (uint64_t seed = 0; seed < seeds; ++seed) {
    const std::vector<int32_t> lengths = random_lengths(seed, 3, 8);
    DeltaRuleCase c(sizes(3 + static_cast<int64_t>(seed)), lengths, {-1, 0, 1});
    Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(c)}));
    c.forward(context);
    c.backward(context);
    const auto loss = [&] {
      c.forward(context);
      // Any number goes through a chain of roundings for each token before it.
      testing::Scalar sum = testing::dot(c.out, c.dout) + testing::dot(c.final, c.dfinal);
      sum.roundings += static_cast<int64_t>(testing::delta_rule_roundings(c.sizes));
      return sum;
    };
    testing::expect_gradient(c.q, c.dq, loss, "dq");
    testing::expect_gradient(c.k, c.dk, loss, "dk");
    testing::expect_gradient(c.v, c.dv, loss, "dv");
    testing::expect_gradient(c.log_decay, c.dlog_decay, loss, "dlog_decay");
    testing::expect_gradient(c.beta, c.dbeta, loss, "dbeta");
    testing::expect_gradient(c.initial, c.dinitial, loss, "dinitial");
  }
}

void expect_close(const DeltaRuleCase& result, const DeltaRuleCase& expected, double relative) {
  const auto others = expected.results();
  for (size_t n = 0; n < others.size(); ++n) {
    const Operand &x = *result.results()[n].second, &y = *others[n].second;
    const double most = testing::largest(y);
    for (int64_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], relative * most) << others[n].first << " " << i;
  }
}

TEST(DeltaRuleBackward, DoesNotDependOnTheChunk) {
  DeltaRuleCase expected(sizes(1), {1, 150, 64, 17}, {-1, 0, 1, -1});
  Context context(testing::on_device({.threads = 2, .workspace_bytes = 8 << 20}));
  expected.forward(context);
  expected.backward(context);
  for (const int64_t chunk : {16, 64}) {
    DeltaRuleCase c(sizes(chunk), {1, 150, 64, 17}, {-1, 0, 1, -1});
    c.forward(context);
    c.backward(context);
    expect_close(c, expected, 1e-12);
  }
}

// Gradients in F32 and BF16 against those in F64 of the same numbers. Backwards as forwards errors of a token add up over
// the tokens that it reaches, so the bound is gamma times the reach of the recurrence, and one rounding to the dtype.
TEST(DeltaRuleBackward, LowPrecisionMatchesF64) {
  for (const DType dtype : {DType::F32, DType::BF16}) {
    for (const int64_t chunk : {16, 64}) {
      DeltaRuleCase low(sizes(chunk, dtype), {90, 33}, {0, 1});
      DeltaRuleCase exact(low, DType::F64);
      Context context(testing::on_device({.threads = 2, .workspace_bytes = 8 << 20}));
      for (DeltaRuleCase* c : {&low, &exact}) {
        c->forward(context);
        c->backward(context);
      }
      const double reach = testing::Recurrence(exact).largest_error;
      const double computing = testing::gamma(testing::delta_rule_roundings(low.sizes), DType::F32) * reach;
      expect_close(low, exact, computing + unit_roundoff(dtype) * (1 + computing));
    }
  }
}

// Parts of one document on several ranks: each makes its map, folds what comes before, and runs from there; backwards it
// folds what comes after.
TEST(DeltaRuleBackward, PiecesWithPassedStatesEqualTheWhole) {
  const std::vector<int32_t> lengths = {37, 20, 1, 50};
  DeltaRuleCase whole(sizes(16), {108}, {-1});
  DeltaRuleCase parts(sizes(16), lengths, {0, 1, 2, 3});
  Context context(testing::on_device({.threads = 2, .workspace_bytes = 8 << 20}));
  whole.forward(context);
  whole.backward(context);

  const DeltaRuleSizes& s = parts.sizes;
  const int64_t count = 4, state = s.value_heads * s.key_dim * s.value_dim;
  const Shape state_shape = {s.value_heads, s.key_dim, s.value_dim};
  Operand& transfer = parts.transfer;
  Operand added({count, s.value_heads, s.key_dim, s.value_dim}, DType::F64), dadded = added;
  delta_rule_map(context, parts.problem(context), parts.input(), added.tensor(), transfer.tensor());
  const auto row = [&](Operand& x, int64_t i) { return x.tensor().rows(i, i + 1).reshape(state_shape); };
  parts.initial = Operand::filled(parts.initial.tensor().shape(), DType::F64, 0);
  for (int64_t i = 1; i < count; ++i)
    fold_delta_states(context, added.tensor().rows(0, i), transfer.tensor().rows(0, i), row(parts.initial, i));
  parts.forward(context);

  delta_rule_map_backward(context, parts.problem(context), parts.input(), parts.dout.tensor(), dadded.tensor());
  parts.dfinal = Operand::filled(parts.dfinal.tensor().shape(), DType::F64, 0);
  for (int64_t i = 0; i + 1 < count; ++i)
    fold_delta_states_backward(context, dadded.tensor().rows(i + 1, count), transfer.tensor().rows(i + 1, count),
                               row(parts.dfinal, i));
  parts.backward(context);

  // The states between parts, and their gradients, pass from one to the next.
  for (int64_t i = 0; i + 1 < count; ++i) {
    for (int64_t e = 0; e < state; ++e) {
      ASSERT_NEAR(parts.final[i * state + e], parts.initial[(i + 1) * state + e], 1e-12);
      ASSERT_NEAR(parts.dfinal[i * state + e], parts.dinitial[(i + 1) * state + e],
                  1e-12 * testing::largest(parts.dinitial));
    }
  }
  whole.final = parts.final;
  whole.dinitial = parts.dinitial;
  expect_close(parts, whole, 1e-12);
}

TEST(DeltaRuleBackward, FoldingTakesTheWorkspaceThatItStates) {
  const DeltaRuleSizes s = sizes(16);
  const int64_t stated = delta_rule_fold_workspace({testing::kDevice, 2}, s);
  Context context(testing::on_device({.threads = 2, .workspace_bytes = stated}));
  Operand added = Operand::random({2, 4, 3, 5}, DType::F64, "added");
  Operand transfer = Operand::random({2, 4, 3, 3}, DType::F64, "transfer");
  Operand state = Operand::random({4, 3, 5}, DType::F64, "state");
  fold_delta_states(context, added.tensor(), transfer.tensor(), state.tensor());
  fold_delta_states_backward(context, added.tensor(), transfer.tensor(), state.tensor());
  EXPECT_EQ(context.workspace().high_water(), stated);
}

}  // namespace
}  // namespace tessera
