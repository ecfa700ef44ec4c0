#include "tensor/ops/adamw.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::kFloatDTypes;
using testing::Operand;

// Parameters with their state, in the accumulation dtype of `compute`.
struct State {
  State(int64_t size, DType dtype)
      : gradient(Operand::random({size}, accumulation_dtype(dtype), "gradient", 3)),
        master(Operand::random({size}, accumulation_dtype(dtype), "master")),
        exp_avg(Operand::random({size}, accumulation_dtype(dtype), "exp_avg", 0.1)),
        exp_avg_sq(Operand::random({size}, accumulation_dtype(dtype), "exp_avg_sq", 0.1)),
        compute({size}, dtype) {
    for (int64_t i = 0; i < size; ++i) exp_avg_sq.set(i, std::abs(exp_avg_sq[i]));
  }
  void step(Context& context, const AdamWStep& options) {
    adamw(context, options, gradient.tensor(), master.tensor(), exp_avg.tensor(), exp_avg_sq.tensor(),
          compute.tensor());
  }
  Operand gradient, master, exp_avg, exp_avg_sq, compute;
};

void check_step(const State& before, const State& after, const AdamWStep& o) {
  const DType dtype = before.master.dtype();
  // Constants are rounded once; 1 - beta^t, computed in double, loses log2(1 / (1 - beta)) bits at t = 1, which leaves
  // far more than F32 needs.
  const double t = static_cast<double>(o.step);
  const double correction1 = -std::expm1(t * std::log(o.beta1)), correction2 = -std::expm1(t * std::log(o.beta2));
  const double constant_error = 4 * unit_roundoff(DType::F64) / std::min(correction1, correction2);
  for (int64_t i = 0; i < before.master.size(); ++i) {
    const double g = o.gradient_scale * before.gradient[i];
    const double m = o.beta1 * before.exp_avg[i] + (1 - o.beta1) * g;
    const double m_size = std::abs(o.beta1 * before.exp_avg[i]) + std::abs((1 - o.beta1) * g);
    const double v = o.beta2 * before.exp_avg_sq[i] + (1 - o.beta2) * g * g;
    ASSERT_NEAR(after.exp_avg[i], m, testing::tolerance(dtype, 5, m_size));
    ASSERT_NEAR(after.exp_avg_sq[i], v, testing::tolerance(dtype, 7, v));
    const double w = before.master[i], denominator = std::sqrt(v / correction2) + o.epsilon;
    const double exact = w - o.learning_rate * o.weight_decay * w - o.learning_rate * (m / correction1) / denominator;
    const double moved = o.learning_rate * (m_size / correction1) / denominator;
    const double magnitude = std::abs(w) * (1 + o.learning_rate * o.weight_decay) + moved;
    ASSERT_NEAR(after.master[i], exact, testing::tolerance(dtype, 20, magnitude) + constant_error * moved) << i;
    Operand rounded({1}, after.compute.dtype());
    rounded.set(0, after.master[i]);
    ASSERT_EQ(after.compute[i], rounded[0]);
  }
}

TEST(AdamW, OneStepMatchesTheFormula) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t size : {0, 1, 19, 20001}) {
      for (const int64_t step : {1, 2, 5000}) {
        for (const double decay : {0.0, 0.1}) {
          SCOPED_TRACE(std::string(name(dtype)) + " size " + std::to_string(size) + " step " + std::to_string(step));
          const AdamWStep options = {
              .learning_rate = 0.01, .weight_decay = decay, .gradient_scale = 0.25, .step = step};
          const State before(size, dtype);
          State after = before;
          after.step(context, options);
          check_step(before, after, options);
        }
      }
    }
  }
}

TEST(AdamW, TheFirstStepFromZeroMovesByTheLearningRate) {
  Context context(testing::on_device({}));
  State state(4, DType::F64);
  for (int i = 0; i < 4; ++i) {
    state.exp_avg.set(i, 0);
    state.exp_avg_sq.set(i, 0);
  }
  const State before = state;
  state.step(context, {.learning_rate = 0.01});
  for (int i = 0; i < 4; ++i) {
    const double sign = before.gradient[i] > 0 ? 1 : -1;
    // The root of g^2 is |g| but for epsilon.
    EXPECT_NEAR(before.master[i] - state.master[i], 0.01 * sign,
                0.01 * 1e-8 / std::abs(before.gradient[i]) + testing::tolerance(DType::F64, 40, 1));
  }
}

TEST(AdamW, AZeroGradientMovesNothing) {
  Context context(testing::on_device({}));
  for (const DType dtype : kFloatDTypes) {
    State state(3, dtype);
    for (int i = 0; i < 3; ++i) {
      for (Operand* zero : {&state.gradient, &state.exp_avg, &state.exp_avg_sq}) zero->set(i, 0);
    }
    const State before = state;
    state.step(context, {.learning_rate = 0.01});
    EXPECT_EQ(state.master.bytes(), before.master.bytes());
  }
}

TEST(AdamW, ComputeMayBeTheMasterItself) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : {DType::F64, DType::F32}) {
    State apart(1003, dtype), together(1003, dtype);
    const AdamWStep options = {.learning_rate = 0.01, .weight_decay = 0.1, .step = 3};
    apart.step(context, options);
    adamw(context, options, together.gradient.tensor(), together.master.tensor(), together.exp_avg.tensor(),
          together.exp_avg_sq.tensor(), together.master.tensor());
    EXPECT_EQ(together.master.bytes(), apart.master.bytes());
    EXPECT_EQ(apart.compute.bytes(), apart.master.bytes());
  }
}

TEST(AdamW, ThreadsAndShardsChangeNoBit) {
  const AdamWStep options = {.learning_rate = 0.01, .weight_decay = 0.1, .step = 3};
  for (const DType dtype : kFloatDTypes) {
    State whole(50021, dtype);
    Context one(testing::on_device({}));
    whole.step(one, options);
    testing::expect_same_bits(name(dtype), 0, [&](Context& context) {
      State state(50021, dtype);
      state.step(context, options);
      return testing::joined({&state.master, &state.exp_avg, &state.exp_avg_sq, &state.compute});
    });
    // ZeRO updates a range at a time.
    State shards(50021, dtype);
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 17}, {17, 30001}, {30001, 50021}}) {
      adamw(one, options, shards.gradient.tensor().rows(begin, end), shards.master.tensor().rows(begin, end),
            shards.exp_avg.tensor().rows(begin, end), shards.exp_avg_sq.tensor().rows(begin, end),
            shards.compute.tensor().rows(begin, end));
    }
    EXPECT_EQ(shards.master.bytes(), whole.master.bytes());
    EXPECT_EQ(shards.compute.bytes(), whole.compute.bytes());
  }
}

TEST(AdamW, WrongOperandsThrow) {
  Context context(testing::on_device({}));
  State state(4, DType::BF16), longer(5, DType::BF16);
  EXPECT_THROW(state.step(context, {.step = 0}), InternalError);
  EXPECT_THROW(adamw(context, {}, longer.gradient.tensor(), state.master.tensor(), state.exp_avg.tensor(),
                     state.exp_avg_sq.tensor(), state.compute.tensor()),
               InternalError);
  EXPECT_THROW(adamw(context, {}, state.gradient.tensor(), state.compute.tensor(), state.exp_avg.tensor(),
                     state.exp_avg_sq.tensor(), state.compute.tensor()),
               InternalError);
}

}  // namespace
}  // namespace tessera
