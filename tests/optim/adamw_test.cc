#include "optim/adamw.h"

#include <gtest/gtest.h>

#include <cmath>

#include "optim/optim.pb.h"
#include "tensor/context/random.h"

namespace tessera {
namespace {

// The textbook, in double and one element at a time.
struct NaiveAdamW {
  double w, m = 0, v = 0;
  void step(const AdamWStep& s, double gradient) {
    const double g = s.gradient_scale * gradient;
    m = s.beta1 * m + (1 - s.beta1) * g;
    v = s.beta2 * v + (1 - s.beta2) * g * g;
    const double t = static_cast<double>(s.step);
    w = w - s.learning_rate * s.weight_decay * w -
        s.learning_rate * (m / (1 - std::pow(s.beta1, t))) / (std::sqrt(v / (1 - std::pow(s.beta2, t))) + s.epsilon);
  }
};

TEST(AdamW, MatchesTheTextbookElementByElementWithTheConfigsSettings) {
  OptimizerConfig config;
  config.set_beta1(0.8);
  config.set_beta2(0.99);
  config.set_epsilon(1e-3);
  config.set_weight_decay(0.3);
  constexpr int kSize = 1003, kSteps = 5;
  Context context({.threads = 1});
  const RandomStream random(5, "adamw test");
  for (const bool decay : {true, false}) {
    Parameter parameter;
    parameter.decay = decay;
    std::vector<double> gradient(kSize), w(kSize), m(kSize), v(kSize);
    std::vector<NaiveAdamW> naive(kSize);
    for (int i = 0; i < kSize; ++i) w[i] = naive[i].w = random.normal(i);
    const auto view = [](std::vector<double>& x) { return Tensor(std::span<double>(x), {kSize}); };
    for (int step = 1; step <= kSteps; ++step) {
      const AdamWStep settings = adamw_step(config, parameter, 0.01 / step, 0.5, step);
      for (int i = 0; i < kSize; ++i) gradient[i] = random.normal(kSize * step + i);
      adamw(context, settings, view(gradient), view(w), view(m), view(v), view(w));
      for (int i = 0; i < kSize; ++i) {
        naive[i].step(settings, gradient[i]);
        // At most a dozen roundings a step, of numbers no larger than |w| + 1; none is amplified with this epsilon.
        EXPECT_NEAR(w[i], naive[i].w, 12 * step * 0x1p-53 * (std::abs(naive[i].w) + 1)) << i;
      }
    }
  }
}

TEST(AdamW, ProblemsNameFieldValueAndRule) {
  EXPECT_TRUE(problems(OptimizerConfig()).empty());
  OptimizerConfig config;
  config.set_beta1(1.0);
  config.set_beta2(-0.1);
  config.set_epsilon(0);
  config.set_weight_decay(std::nan(""));
  config.set_max_grad_norm(-2);
  const std::vector<std::string> expected = {
      "optimizer.beta1 = 1: must be at least 0 and below 1", "optimizer.beta2 = -0.1: must be at least 0 and below 1",
      "optimizer.epsilon = 0: must be finite and above 0",
      "optimizer.weight_decay = nan: must be finite and at least 0",
      "optimizer.max_grad_norm = -2: must be finite and at least 0 (0: no clipping)"};
  EXPECT_EQ(problems(config), expected);
}

}  // namespace
}  // namespace tessera
