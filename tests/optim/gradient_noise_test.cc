#include "optim/gradient_noise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tensor/context/random.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

constexpr int64_t kElements = 40;

// Two microbatches on each rank, of 3 and 5 targets, or 4 and 4.
class TwoMicrobatches : public Source {
 public:
  explicit TwoMicrobatches(int first) : targets_(8, -1) { std::fill(targets_.begin(), targets_.begin() + first, 0); }
  void load(int64_t) override {}
  int microbatches() const override { return 2; }
  const Batch& batch(int) const override {
    batch_ = {.tokens = {}, .targets = targets_, .position = {}, .document = {}, .segments = {}};
    return batch_;
  }
  int64_t targets() const override { return 8; }

 private:
  std::vector<int32_t> targets_;  // of the first microbatch
  mutable Batch batch_;
};

// Gradients of tokens: G_i + a normal number for each token, element and step; sums over the group as a reducer makes.
class NoisyGradients : public Reducer {
 public:
  NoisyGradients(Mesh& mesh, double deviation) : mesh_(mesh), deviation_(deviation), gradient_(kElements) {
    parameter.global_shape = {kElements};
    parameter.rows = {0, kElements};
    parameter.replicas = {Axis::Dp, Axis::Cp};
    parameter.gradient = Tensor(std::span<double>(gradient_), Shape{kElements});
    mesh.make_groups({{parameter.replicas}});
  }
  void begin_step(Context&) override { std::fill(gradient_.begin(), gradient_.end(), 0.0); }
  void add_tokens(int64_t step, int rank, int first, int last, double all) {
    const RandomStream random(static_cast<uint64_t>(step), "noise");
    for (int token = first; token < last; ++token)
      for (int64_t i = 0; i < kElements; ++i)
        gradient_[i] += (truth(i) + deviation_ * random.normal((rank * 8 + token) * kElements + i)) / all;
  }
  static double truth(int64_t i) { return 0.1 * static_cast<double>(i % 7) - 0.2; }
  void gather(Context&, int, BlockRange, GatherFor) override {}
  void weights_needed(Context&, int, BlockRange) override {}
  void release(Context&, int, BlockRange) override {}
  void gradients_needed(Context&, int, BlockRange) override {}
  void reduce(Context&, int, BlockRange, ReduceTurn) override {
    mesh_.group(parameter.replicas).all_reduce_sum(parameter.gradient);
  }
  double norm(Context&) override { return 1; }
  void step(Context&, double, int64_t) override {}
  std::vector<StateSlice> state() override { return {}; }
  std::vector<StateSlice> gradients() override { return {}; }
  void state_loaded(Context&) override {}

  Parameter parameter;

 private:
  Mesh& mesh_;
  double deviation_;
  std::vector<double> gradient_;
};

// The means over many steps are |G|^2 and the trace that was put in, whatever the microbatches' sizes and the ranks.
TEST(GradientNoise, IsUnbiased) {
  constexpr double kDeviation = 0.5;
  constexpr int kSteps = 4000;
  double square = 0;
  for (int64_t i = 0; i < kElements; ++i) square += std::pow(NoisyGradients::truth(i), 2);
  const double trace = kElements * kDeviation * kDeviation;
  for (const int ranks : {1, 2}) {
    for (const int first : {3, 4}) {
      run_ranks(ranks, [&](Comm& world) {
        Mesh mesh(world, {.dp = ranks});
        Context context({.threads = 1});
        NoisyGradients gradients(mesh, kDeviation);
        TwoMicrobatches source(first);
        GradientNoise noise(gradients, mesh, {&gradients.parameter}, source, 1, 1);
        double squares = 0, noises = 0, noise_squares = 0;
        for (int step = 1; step <= kSteps; ++step) {
          noise.begin_step(context);
          gradients.add_tokens(step, world.rank(), 0, first, 8.0 * ranks);
          noise.weight_done(context, 0, 0);
          gradients.add_tokens(step, world.rank(), first, 8, 8.0 * ranks);
          noise.weight_done(context, 0, 1);
          noise.reduce(context, 0, {}, ReduceTurn::Last);
          noise.norm(context);
          ASSERT_TRUE(noise.measured().has_value());
          squares += noise.measured()->square / kSteps;
          noises += noise.measured()->noise / kSteps;
          noise_squares += std::pow(noise.measured()->noise, 2) / kSteps;
          noise.step(context, 1, step);
        }
        const double error = std::sqrt((noise_squares - noises * noises) / kSteps);
        EXPECT_NEAR(noises, trace, 4 * error) << ranks << " ranks, first " << first;
        EXPECT_LT(error, 0.05 * trace) << "the test would see a fault";
        EXPECT_NEAR(squares, square, 4 * error / 8) << "its error is the noise's over the batch, and less";
      });
    }
  }
}

TEST(GradientNoise, MeasuresOnlyWhenItIsDue) {
  run_ranks(1, [&](Comm& world) {
    Mesh mesh(world, {});
    Context context({.threads = 1});
    NoisyGradients gradients(mesh, 1);
    TwoMicrobatches source(4);
    GradientNoise noise(gradients, mesh, {&gradients.parameter}, source, 4, 7);  // goes on after step 6
    for (int64_t step = 7; step <= 12; ++step) {
      noise.begin_step(context);
      gradients.add_tokens(step, 0, 0, 4, 8);
      noise.weight_done(context, 0, 0);
      gradients.add_tokens(step, 0, 4, 8, 8);
      noise.weight_done(context, 0, 1);
      noise.norm(context);
      EXPECT_EQ(noise.measured().has_value(), step % 4 == 0) << step;
      noise.step(context, 1, step);
    }
  });
}

TEST(GradientNoise, IsPossibleWhereTheFirstMicrobatchStandsAlone) {
  run_ranks(1, [&](Comm& world) {
    const Mesh mesh(world, {});
    const auto action = [](ActionKind kind, int m) { return Action{.kind = kind, .stage = 0, .microbatch = m}; };
    const Schedule one_by_one = {action(ActionKind::Forward, 0), action(ActionKind::BackwardInput, 0),
                                 action(ActionKind::BackwardWeight, 0), action(ActionKind::Forward, 1)};
    Schedule forward_first = one_by_one;
    std::rotate(forward_first.begin(), forward_first.end() - 1, forward_first.end());
    Schedule reduced = one_by_one;  // block by block, while backward goes on
    reduced.insert(reduced.begin() + 2, action(ActionKind::Reduce, 0));
    EXPECT_TRUE(GradientNoise::possible(mesh, one_by_one, 2));
    EXPECT_FALSE(GradientNoise::possible(mesh, reduced, 2)) << "other ranks' gradients are in it";
    EXPECT_FALSE(GradientNoise::possible(mesh, forward_first, 2)) << "the head's gradients are of both";
    EXPECT_FALSE(GradientNoise::possible(mesh, one_by_one, 1)) << "nothing to compare with";
  });
}

}  // namespace
}  // namespace tessera::testing
