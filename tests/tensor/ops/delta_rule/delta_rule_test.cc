#include "tensor/ops/delta_rule/delta_rule.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/same_bits.h"
#include "tests/tensor/ops/delta_rule/delta_rule_case.h"

namespace tessera {
namespace {

using testing::DeltaRuleCase;
using testing::joined;
using testing::kFloatDTypes;
using testing::Operand;
using testing::random_lengths;

int64_t workspace(const DeltaRuleCase& c, int threads = 2) {
  return delta_rule_workspace({testing::kDevice, threads}, c.sizes);
}

constexpr DeltaRuleSizes kOdd = {.key_heads = 2, .value_heads = 4, .key_dim = 5, .value_dim = 7};
constexpr DeltaRuleSizes kEven = {.key_heads = 1, .value_heads = 1, .key_dim = 32, .value_dim = 16};

DeltaRuleSizes with(DeltaRuleSizes sizes, int64_t chunk, DType dtype) {
  sizes.chunk = chunk;
  sizes.compute = dtype;
  return sizes;
}

TEST(DeltaRule, MatchesTheRecurrence) {
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t chunk : {1, 16, 64}) {
      for (const DeltaRuleSizes& sizes : {kOdd, kEven}) {
        SCOPED_TRACE(std::string(name(dtype)) + " chunk " + std::to_string(chunk));
        DeltaRuleCase c(with(sizes, chunk, dtype), {1, 70, 16, 3, 64, 33}, {-1, 1, -1, -1, 0, 2});
        Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(c)}));
        c.forward(context);
        testing::expect_recurrence(c);
      }
    }
  }
}

TEST(DeltaRule, RandomPackingsMatchTheRecurrence) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const std::vector<int32_t> lengths = random_lengths(seed, 7, 40);
    DeltaRuleCase c(with(kOdd, 16, DType::F64), lengths, std::vector<int32_t>(lengths.size(), -1));
    Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(c)}));
    c.forward(context);
    testing::expect_recurrence(c);
  }
}

// Gates that forget everything, nothing, or more than a number can say; tokens that write nothing or write fully.
TEST(DeltaRule, GatesAtTheirLimits) {
  const double kDecays[] = {0, -std::numeric_limits<double>::infinity(), -1e30, -200, -20, -1e-9};
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t chunk : {1, 16, 64}) {
      DeltaRuleCase c(with(kOdd, chunk, dtype), {50, 80}, {0, 1});
      for (int64_t i = 0; i < c.log_decay.size(); ++i) {
        c.log_decay.set(i, kDecays[(i * 7 / 3) % 6]);
        c.beta.set(i, i % 3 == 0 ? 0 : i % 5 == 0 ? 1 : c.beta[i]);
      }
      Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(c)}));
      c.forward(context);
      testing::expect_recurrence(c);
      c.backward(context);
      for (const auto& [what, x] : c.results()) {
        for (int64_t i = 0; i < x->size(); ++i) ASSERT_TRUE(std::isfinite((*x)[i])) << what << " " << i;
      }
    }
  }
}

// What one segment holds changes no bit of another, and what comes later none of what came before.
TEST(DeltaRule, SegmentsAndThePastAreIsolated) {
  for (const DType dtype : kFloatDTypes) {
    DeltaRuleCase a(with(kOdd, 16, dtype), {30, 41, 20}, {0, 1, 2});
    Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(a)}));
    DeltaRuleCase b = a;
    const int64_t changed = 50;  // of the second segment
    for (int64_t head = 0; head < kOdd.value_heads; ++head) {
      for (int64_t e = 0; e < kOdd.value_dim; ++e) b.v.set((head * a.sizes.tokens + changed) * kOdd.value_dim + e, 9);
      b.log_decay.set(head * a.sizes.tokens + changed, -3);
    }
    for (int64_t d = 0; d < kOdd.key_dim; ++d) b.k.set(changed * kOdd.key_dim + d, -0.4);
    for (DeltaRuleCase* c : {&a, &b}) {
      c->forward(context);
      c->backward(context);
    }
    for (int64_t t = 0; t < a.sizes.tokens; ++t) {
      const bool outside = t < 30 || t >= 71;
      for (int64_t i = 0; i < kOdd.value_heads * kOdd.value_dim; ++i) {
        const int64_t at = t * kOdd.value_heads * kOdd.value_dim + i;
        if (outside || t < changed) {
          ASSERT_EQ(a.out[at], b.out[at]) << t;
        }
      }
      for (int64_t i = 0; outside && i < kOdd.key_heads * kOdd.key_dim; ++i) {
        const int64_t at = (i / kOdd.key_dim * a.sizes.tokens + t) * kOdd.key_dim + i % kOdd.key_dim;
        ASSERT_EQ(a.dq[at], b.dq[at]);
        ASSERT_EQ(a.dk[at], b.dk[at]);
      }
      for (int64_t head = 0; outside && head < kOdd.value_heads; ++head) {
        ASSERT_EQ(a.dbeta[head * a.sizes.tokens + t], b.dbeta[head * a.sizes.tokens + t]);
        ASSERT_EQ(a.dlog_decay[head * a.sizes.tokens + t], b.dlog_decay[head * a.sizes.tokens + t]);
      }
    }
  }
}

TEST(DeltaRule, StatesCanBeMadeAgain) {
  DeltaRuleCase c(with(kOdd, 8, DType::F32), {30, 9, 1}, {-1, 0, -1});
  Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(c)}));
  c.forward(context);
  const Operand kept = c.states;
  c.states = Operand(c.states.tensor().shape(), c.states.dtype());
  delta_rule(context, c.problem(context), c.input(), {}, c.states.tensor(), {});
  EXPECT_EQ(kept.bytes(), c.states.bytes());
}

TEST(DeltaRule, TakesTheWorkspaceThatItStates) {
  for (const DType dtype : kFloatDTypes) {
    DeltaRuleCase c(with(kOdd, 16, dtype), {30, 41}, {0, 1});
    Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(c)}));
    c.forward(context);
    c.backward(context);
    EXPECT_EQ(context.workspace().high_water(), workspace(c));
  }
}

TEST(DeltaRule, ThreadsChangeNoBit) {
  for (const DType dtype : kFloatDTypes) {
    DeltaRuleCase sized(with(kOdd, 16, dtype), {30, 41, 5, 17}, {0, -1, -1, 1});
    testing::expect_same_bits(name(dtype), workspace(sized, 1), [&](Context& context) {
      DeltaRuleCase c = sized;
      c.forward(context);
      c.backward(context);
      return joined({&c.out, &c.final, &c.dq, &c.dk, &c.dv, &c.dlog_decay, &c.dbeta, &c.dinitial});
    });
  }
}

TEST(DeltaRule, WrongOperandsThrow) {
  DeltaRuleCase c(with(kOdd, 16, DType::F32), {10, 20}, {-1, 0});
  Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(c)}));
  const auto run = [&](DeltaRuleProblem problem) {
    delta_rule(context, problem, c.input(), c.out.tensor(), c.states.tensor(), c.final.tensor());
  };
  DeltaRuleProblem problem = c.problem(context);
  problem.chunk = 65;
  EXPECT_THROW(run(problem), InternalError);
  problem = c.problem(context);
  const std::vector<int32_t> back = {0, 20, 10, 30}, shorter = {0, 10}, wrong = {0, 7};
  problem.segments.begin = back;
  EXPECT_THROW(run(problem), InternalError);
  problem.segments.begin = shorter;
  EXPECT_THROW(run(problem), InternalError);
  problem = c.problem(context);
  problem.segments.initial = wrong;
  EXPECT_THROW(run(problem), InternalError);
  EXPECT_THROW(delta_rule(context, c.problem(context), c.input(), c.v.tensor(), {}, {}), InternalError);
}

}  // namespace
}  // namespace tessera
