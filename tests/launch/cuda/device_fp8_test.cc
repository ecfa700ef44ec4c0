// Training in 8 bits on the emulated device, beside BF16.
#include <gtest/gtest.h>

#include <cmath>

#include "launch/run.pb.h"
#include "tests/launch/cuda/device_run.h"

namespace tessera {
namespace {

using namespace testing_device;

RunConfig deep_config(ModelConfig::Family family, RunSection::ComputeDtype dtype) {
  RunConfig config = small_config(family, dtype);
  config.mutable_model()->set_num_hidden_layers(4);
  return config;
}

bool in_8_bits(const std::string& parameter) {
  const bool inner = parameter.starts_with("blocks.1.") || parameter.starts_with("blocks.2.");
  return inner && parameter.find("norm") == std::string::npos && !parameter.ends_with(".bias");
}

double norm(const std::vector<double>& x) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  return std::sqrt(squares);
}

// Bounds on what 8 bits may change.
//
// First loss. It changes by g dW to first order when W becomes W + dW, and a product reads its other operand in the
// same way, with as large a part in the loss: sum (g_W W) = sum (dy y) = sum (g_x x). Rounding to E4M3 moves an element
// by at most 2^-4 of itself, so an operand changes the loss by at most 2^-4 |g_W| |W| (Cauchy and Schwarz), and all of
// them by twice the sum over the matrices of inner blocks.
// That is the worst case, a quarter of the loss here; the gradients tell more.
//
// First gradients. A product's relative error is that of its operands, which are rounded element by element as if at
// random: evenly up to u, so by u / sqrt(3) in the mean square. Forward adds 2 (2^-4)^2 / 3 to the squares, backward
// (2^-4)^2 / 3 + (2^-3)^2 / 3, and the weight gradient of the last product once more as much; eight matrices lie in a
// row at most, each with a forward and a backward product. Residual connections lead around them, so this is an upper
// estimate; it is 0.28.
//
// Later losses. Steps go where the gradients point, so what they gain differs by no more than the gradients do.
double first_loss_bound(const Curve& bf16) {
  double bound = 0;
  for (const auto& [name, gradient] : bf16.gradients) {
    if (in_8_bits(name)) bound += 2 * std::ldexp(norm(gradient) * norm(bf16.weights.at(name)), -4);
  }
  return bound;
}
double first_gradient_bound() {
  const double u = unit_roundoff(DType::E4M3), v = unit_roundoff(DType::E5M2);
  return std::sqrt((8 * (2 * u * u + u * u + v * v) + u * u + v * v) / 3);
}

class DeviceFp8 : public ::testing::TestWithParam<ModelConfig::Family> {};
INSTANTIATE_TEST_SUITE_P(Families, DeviceFp8, ::testing::Values(ModelConfig::LLAMA, ModelConfig::GPT2),
                         [](const auto& family) { return ModelConfig::Family_Name(family.param); });

TEST_P(DeviceFp8, IsNearBf16) {
  const auto learn = [](RunSection::ComputeDtype dtype) {
    return train(deep_config(GetParam(), dtype), 1, DeviceTransport::Staged, DeviceSums::Fast, Samples::TheSame);
  };
  const Curve fp8 = learn(RunSection::FP8), bf16 = learn(RunSection::BF16);

  const double loss_bound = first_loss_bound(bf16), gradient_bound = first_gradient_bound();
  EXPECT_NE(fp8.losses[0], bf16.losses[0]);
  EXPECT_NEAR(fp8.losses[0], bf16.losses[0], loss_bound);

  EXPECT_EQ(fp8.gradients.size(), bf16.gradients.size());
  for (const auto& [name, gradient] : fp8.gradients) {
    const double far = distance(gradient, bf16.gradients.at(name));
    EXPECT_LT(far, gradient_bound) << name;
    if (in_8_bits(name)) {
      EXPECT_GT(far, std::ldexp(8.0, -9)) << name << " is as near as in BF16";
    }
  }

  for (size_t i = 1; i < fp8.losses.size(); ++i) {
    EXPECT_LT(fp8.losses[i], fp8.losses[i - 1]);
    EXPECT_NEAR(fp8.losses[i], bf16.losses[i], loss_bound + gradient_bound * (bf16.losses[0] - bf16.losses[i])) << i;
  }
}

// Parts of a tensor that is split over tp have scales of their own: as near BF16, so within two bounds of each other.
TEST(DeviceFp8Layouts, RunsOverTensorParallelRanksWithRecomputation) {
  RunConfig config = deep_config(ModelConfig::GPT2, RunSection::FP8);
  const Curve alone = train(config), again = train(config);
  EXPECT_EQ(again.losses, alone.losses);
  config.mutable_parallel()->set_recompute("full");
  const Curve recomputed = train(config);
  EXPECT_EQ(recomputed.losses, alone.losses);
  EXPECT_EQ(recomputed.norms, alone.norms);
  config.mutable_parallel()->set_tp(2);
  const Curve split = train(config, 2);
  const double bound = first_loss_bound(train(deep_config(ModelConfig::GPT2, RunSection::BF16)));
  EXPECT_NEAR(split.losses[0], alone.losses[0], 2 * bound);
}

}  // namespace
}  // namespace tessera
