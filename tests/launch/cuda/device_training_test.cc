// Whole training steps with the model on the emulated device (support/grid), whose memory the host cannot touch,
// against the same steps on the CPU: one rank, and several that share the device, over both transports.
#include <gtest/gtest.h>

#include <cmath>

#include "launch/config/resolve.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "launch/run/gpu.h"
#include "launch/run/host_state.h"
#include "parallel/comm/comm_threads.h"
#include "tensor/ops/attention/attention.h"
#include "tests/launch/cuda/device_run.h"

namespace tessera {
namespace {

using namespace testing_device;

void expect_near(const std::vector<double>& a, const std::vector<double>& b, double relative) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], relative * std::abs(b[i])) << i;
}

void expect_same_curve(const Curve& a, const Curve& b, double relative) {
  expect_near(a.losses, b.losses, relative);
  expect_near(a.norms, b.norms, relative);
  expect_near({a.evaluation}, {b.evaluation}, relative);
}

constexpr double kF64 = 1e-9;

class DeviceTraining : public ::testing::TestWithParam<ModelConfig::Family> {};
INSTANTIATE_TEST_SUITE_P(Families, DeviceTraining, ::testing::Values(ModelConfig::LLAMA, ModelConfig::GPT2),
                         [](const auto& family) { return ModelConfig::Family_Name(family.param); });

TEST_P(DeviceTraining, IsThatOfTheCpuInF64) {
  const RunConfig config = small_config(GetParam(), RunSection::F64);
  const Curve device = train(config), cpu = on_cpu(config);
  expect_same_curve(device, cpu, kF64);
  EXPECT_EQ(device.gradients.size(), cpu.gradients.size());
  for (const auto& [name, gradient] : device.gradients)
    EXPECT_LT(distance(gradient, cpu.gradients.at(name)), kF64) << name;
  EXPECT_EQ(device.state.size(), cpu.state.size());
  for (const auto& [name, values] : device.state) EXPECT_LT(distance(values, cpu.state.at(name)), 1e-7) << name;
}

// Tensor cores: products and attention in BF16. Each number is rounded at other places, so the first step's gradients
// differ by a few roundings (2^-9 each) relative to their norm.
TEST_P(DeviceTraining, IsNearTheCpuInBf16) {
  const RunConfig config = small_config(GetParam(), RunSection::BF16);
  const Curve device = train(config), cpu = on_cpu(config);
  EXPECT_NEAR(device.losses[0], cpu.losses[0], std::ldexp(cpu.losses[0], -9));
  for (const auto& [name, gradient] : device.gradients)
    EXPECT_LT(distance(gradient, cpu.gradients.at(name)), std::ldexp(8.0, -9)) << name;
}

TEST_P(DeviceTraining, RecomputesOffloadsAndFollowsOtherSchedules) {
  RunConfig config = small_config(GetParam(), RunSection::F64);
  const Curve cpu = on_cpu(config);
  config.mutable_parallel()->set_recompute("full");
  expect_same_curve(train(config), cpu, kF64);
  config.mutable_parallel()->set_recompute("selective");
  config.mutable_parallel()->set_schedule("gpipe");
  expect_same_curve(train(config), cpu, kF64);
}

struct Layout {
  const char* name;
  MeshShape mesh;
  const char* schedule = "1f1b";
  const char* exchange = "gather";
  int zero_stage = 0;
};

class DeviceLayouts : public ::testing::TestWithParam<std::tuple<Layout, DeviceTransport>> {
 protected:
  static void set(const Layout& layout, RunConfig& config) {
    ParallelConfig& parallel = *config.mutable_parallel();
    parallel.set_tp(layout.mesh.tp);
    parallel.set_cp(layout.mesh.cp);
    parallel.set_dp(layout.mesh.dp);
    parallel.set_pp(layout.mesh.pp);
    parallel.set_schedule(layout.schedule);
    parallel.set_context_exchange(layout.exchange);
    parallel.set_zero_stage(layout.zero_stage);
  }
};
const Layout kLayouts[] = {
    {.name = "tp2", .mesh = {.tp = 2}},
    {.name = "dp2", .mesh = {.dp = 2}},
    {.name = "pp2", .mesh = {.pp = 2}},
    {.name = "pp2_zbv", .mesh = {.pp = 2}, .schedule = "zb-v"},
    {.name = "cp2_gather", .mesh = {.cp = 2}},
    {.name = "cp2_ring", .mesh = {.cp = 2}, .exchange = "ring"},
    {.name = "cp2_ulysses", .mesh = {.cp = 2}, .exchange = "ulysses"},
    {.name = "cp4_ulysses_ring", .mesh = {.cp = 4}, .exchange = "ulysses-ring:2"},
    {.name = "cp2_tp2", .mesh = {.cp = 2, .tp = 2}},
    {.name = "dp2_zero1", .mesh = {.dp = 2}, .zero_stage = 1},
    {.name = "dp2_zero2", .mesh = {.dp = 2}, .zero_stage = 2},
    {.name = "dp2_zero3", .mesh = {.dp = 2}, .zero_stage = 3},
    {.name = "cp2_tp2_zero3", .mesh = {.cp = 2, .tp = 2}, .exchange = "ring", .zero_stage = 3},
    {.name = "pp2_dp2_zero3", .mesh = {.pp = 2, .dp = 2}, .zero_stage = 3},
};
INSTANTIATE_TEST_SUITE_P(Layouts, DeviceLayouts,
                         ::testing::Combine(::testing::ValuesIn(kLayouts),
                                            ::testing::Values(DeviceTransport::Staged, DeviceTransport::Nccl)),
                         [](const auto& at) {
                           return std::string(std::get<0>(at.param).name) +
                                  (std::get<1>(at.param) == DeviceTransport::Nccl ? "_nccl" : "_staged");
                         });

TEST_P(DeviceLayouts, AreOneCpu) {
  const auto& [layout, transport] = GetParam();
  RunConfig config = small_config(ModelConfig::GPT2, RunSection::F64);
  if (layout.mesh.pp > 1) config.mutable_model()->set_num_hidden_layers(4);
  if (layout.mesh.cp > 1) {  // an attention tile for each rank, and documents that lie on several
    const int64_t tokens = kAttentionTile * layout.mesh.cp * layout.mesh.tp;
    config.mutable_data()->set_sequence_length(tokens);
    config.mutable_model()->set_max_position_embeddings(tokens);
  }
  const Curve cpu = on_cpu(config);
  set(layout, config);
  expect_same_curve(train(config, layout.mesh.size(), transport), cpu, kF64);
}

// Four ranks' sums have the bits of the host's: those that the staged transport makes, over NCCL too when it is asked
// to. Left to itself it adds in another order.
TEST(DeviceSums, InRankOrderAreThoseOfTheHost) {
  for (const auto& [tp, dp, zero_stage] : {std::tuple{1, 4, 0}, {4, 1, 0}, {1, 4, 2}}) {
    RunConfig config = small_config(ModelConfig::LLAMA, RunSection::BF16);
    config.mutable_model()->set_num_key_value_heads(4);
    config.mutable_data()->set_global_batch_size(4);
    config.mutable_parallel()->set_tp(tp);
    config.mutable_parallel()->set_dp(dp);
    config.mutable_parallel()->set_zero_stage(zero_stage);
    const Curve host = train(config, 4), fast = train(config, 4, DeviceTransport::Nccl);
    const Curve same = train(config, 4, DeviceTransport::Nccl, DeviceSums::RankOrder);
    EXPECT_EQ(same.losses, host.losses) << "tp " << tp << ", ZeRO " << zero_stage;
    EXPECT_EQ(same.norms, host.norms);
    EXPECT_EQ(same.evaluation, host.evaluation);
    EXPECT_NE(fast.norms, host.norms);
  }
}

TEST(DeviceSums, AreInRankOrderWhereThatIsAskedForAndNowhereElse) {
  run_ranks(1, [](Comm& world) {
    const Session session{world, 1, {}, {}};
    RunConfig config;
    config.mutable_run()->set_device(RunSection::CUDA);
    EXPECT_EQ(choose_gpu(config, session).sums, DeviceSums::Fast);
    config.mutable_parallel()->set_overlap(false);
    EXPECT_EQ(choose_gpu(config, session).sums, DeviceSums::Fast);
    config.mutable_parallel()->set_overlap(true);
    config.mutable_parallel()->set_sums(ParallelConfig::RANK_ORDER);
    EXPECT_EQ(choose_gpu(config, session).sums, DeviceSums::RankOrder);
  });
}

// Gradients rounded to BF16 on their way, each to within 2^-9 of it: tests/optim/gradient_wire_test.cc has the bits.
// Here that a run on a device takes that way, and what it does to the norm: with two ranks' gradients of like size, at
// most 2^-8 of it.
TEST(DeviceWire, RoundsGradients) {
  for (const int zero_stage : {1, 2, 3}) {
    RunConfig config = small_config(ModelConfig::LLAMA, RunSection::F32);
    config.mutable_parallel()->set_dp(2);
    config.mutable_parallel()->set_zero_stage(zero_stage);
    const Curve whole = train(config, 2);
    config.mutable_parallel()->set_gradient_wire("bf16");
    const Curve rounded = train(config, 2);
    EXPECT_EQ(rounded.losses[0], whole.losses[0]);
    EXPECT_NE(rounded.norms[0], whole.norms[0]);
    EXPECT_NEAR(rounded.norms[0], whole.norms[0], std::ldexp(whole.norms[0], -8));
  }
}

// State goes from the device to the host and back as a checkpoint does.
TEST(DeviceState, GoesThroughHostMemory) {
  RunConfig config = small_config(ModelConfig::LLAMA, RunSection::BF16);
  resolve(config, {}, {.data = Surroundings::Data::NotNeeded, .cuda = Surroundings::Cuda::Present});
  run_ranks(1, [&](Comm& world) {
    Assembly parts(config, plan_layout(config), world, 1);
    State state;
    state.slices = parts.optimizer().state();
    const StateSlice first = state.slices.front();
    const std::vector<double> before = on_host(parts.context(), first.data);
    std::vector<std::byte> bytes(first.data.bytes());
    host_copy(parts.context())(first.data, 0, bytes);
    EXPECT_EQ(static_cast<double>(reinterpret_cast<const float*>(bytes.data())[5]), before[5]);

    HostState host(parts.context(), state);
    for (StateSlice& slice : host.state().slices) {
      ASSERT_EQ(slice.data.device(), Device::Cpu);
      std::fill_n(slice.data.as<float>(), slice.data.size(), 0.25F);
    }
    host.send(parts.context());
    parts.optimizer().state_loaded(parts.context());
    EXPECT_EQ(on_host(parts.context(), first.data), std::vector<double>(before.size(), 0.25));
    EXPECT_EQ(on_host(parts.context(), parts.parameters().front()->value)[0], 0.25);
  });
}

TEST(DeviceMemory, IsClosedToTheHost) {
  const Context context({.device = Device::Cuda});
  const Buffer memory(Device::Cuda, 4096);
  EXPECT_DEATH(static_cast<char*>(memory.data())[17] = 1, "host code touches device memory");
}

}  // namespace
}  // namespace tessera
