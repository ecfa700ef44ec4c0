#include "optim/zero.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "optim/adamw.h"
#include "optim/optim.pb.h"
#include "parallel/comm/comm_threads.h"
#include "tests/optim/adamw_golden.h"
#include "tests/optim/small_model.h"
#include "tests/support/allocations.h"

namespace tessera {
namespace {

constexpr BlockRange kAllBlocks{0, 1};

using Values = std::map<std::string, std::vector<double>>;  // by name, whole tensors

std::vector<double> as_doubles(const ConstTensor& x) {
  std::vector<double> values;
  dispatch_float(x.dtype(), [&]<class T>(T) {
    for (const T value : x.span<T>()) values.push_back(static_cast<double>(value));
  });
  return values;
}

// What the ranks of a run leave behind for the test to look at, each under its own lock of one moment.
struct Collected {
  std::mutex mutex;
  Values weights;
  std::map<std::string, std::vector<std::vector<double>>> per_rank;  // name and rows -> one a holder
  std::vector<double> norms;

  void add(const Parameter& parameter) {
    const std::lock_guard lock(mutex);
    const std::vector<double> values = as_doubles(parameter.value);
    auto& whole = weights[parameter.name];
    whole.resize(parameter.global_shape.size());
    std::copy(values.begin(), values.end(), whole.begin() + parameter.rows.begin * parameter.global_shape.row_size());
    per_rank[parameter.name + parameter.rows.str()].push_back(values);
  }
};

struct Run {
  MeshShape shape;
  DType compute = DType::F64;
  int64_t steps = 3;
  double max_grad_norm = 1.0;
};

OptimizerConfig config_of(double max_grad_norm) {
  OptimizerConfig config;
  config.set_max_grad_norm(max_grad_norm);
  return config;
}

void train(Context& context, Mesh& mesh, SmallModel& model, Reducer& optimizer, int64_t first, int64_t last,
           std::vector<double>* norms = nullptr) {
  for (int64_t step = first; step <= last; ++step) {
    optimizer.begin_step(context);
    model.accumulate_gradients(mesh, step);
    optimizer.reduce(context, 0, kAllBlocks, ReduceTurn::Last);
    const double norm = optimizer.norm(context);
    if (norms != nullptr) norms->push_back(norm);
    optimizer.step(context, 0.01, step);
  }
}

void run(const Run& options, Collected& collected) {
  run_ranks(options.shape.size(), [&](Comm& world) {
    Context context({.threads = 1});
    Mesh mesh(world, options.shape);
    SmallModel model(mesh, options.compute);
    ZeroOptimizer optimizer(context, mesh, model.parameters, config_of(options.max_grad_norm),
                            {.seed = 11, .compute = options.compute});
    std::vector<double> norms;
    train(context, mesh, model, optimizer, 1, options.steps, &norms);
    for (const Parameter* parameter : model.parameters) collected.add(*parameter);
    const std::lock_guard lock(collected.mutex);
    collected.norms.insert(collected.norms.end(), norms.begin(), norms.end());
  });
}

const MeshShape kLayouts[] = {{.dp = 2}, {.tp = 2}, {.dp = 2, .tp = 2}, {.dp = 3}, {.dp = 2, .cp = 2, .tp = 2}};

TEST(ZeroOptimizer, InitialWeightsAreTheSameForEveryMesh) {
  Collected one;
  run({.shape = {}, .steps = 0}, one);
  EXPECT_EQ(one.weights.at("blocks.0.norm"), std::vector<double>(7, 1.0));
  EXPECT_EQ(one.weights.at("blocks.0.mlp.bias"), std::vector<double>(6, 0.0));
  EXPECT_NE(one.weights.at("attention")[0], one.weights.at("attention")[1]);
  for (const MeshShape& shape : kLayouts) {
    Collected many;
    run({.shape = shape, .steps = 0}, many);
    EXPECT_EQ(many.weights, one.weights) << shape.size();
  }
}

TEST(ZeroOptimizer, TheNormCountsEachElementOnceOnEveryMesh) {
  // Integer gradients: the sum of squares is exact, and so is its comparison.
  int64_t squares = 0;
  run_ranks(1, [&](Comm& world) {
    Mesh mesh(world, {});
    for (const Parameter* parameter : SmallModel(mesh, DType::F64).parameters) {
      for (int64_t i = 0; i < parameter->global_shape.size(); ++i) {
        const int64_t g = SmallModel::global_gradient(parameter->name, i, 1);
        squares += g * g;
      }
    }
  });
  ASSERT_GT(squares, 0);
  for (DType compute : {DType::F64, DType::F32, DType::BF16}) {
    for (const MeshShape& shape : kLayouts) {
      Collected many;
      run({.shape = shape, .compute = compute, .steps = 1}, many);
      EXPECT_EQ(many.norms, std::vector<double>(shape.size(), std::sqrt(static_cast<double>(squares))));
    }
  }
}

TEST(ZeroOptimizer, EveryMeshMakesTheSameStepsAndReplicasStayEqual) {
  // Exact gradients and norms make the whole update exact across layouts, with and without clipping.
  for (double max_grad_norm : {0.0, 1.0}) {
    Collected one;
    run({.shape = {}, .max_grad_norm = max_grad_norm}, one);
    for (const MeshShape& shape : kLayouts) {
      Collected many;
      run({.shape = shape, .max_grad_norm = max_grad_norm}, many);
      EXPECT_EQ(many.weights, one.weights);
      for (const auto& [piece, holders] : many.per_rank) {
        for (const auto& values : holders) EXPECT_EQ(values, holders[0]) << piece;
      }
      EXPECT_EQ(many.per_rank.at("blocks.0.norm[0, 7)").size(), static_cast<size_t>(shape.size()));
    }
  }
}

TEST(ZeroOptimizer, MatchesTorch) {
  using namespace adamw_golden;
  for (DType compute : {DType::F64, DType::F32}) {
    run_ranks(1, [&](Comm& world) {
      Context context({.threads = 1});
      Mesh mesh(world, {});
      Parameter matrix, bias;
      matrix.name = "matrix";
      matrix.global_shape = {kMatrix / 4, 4};
      matrix.rows = {0, kMatrix / 4};
      bias.name = "bias";
      bias.global_shape = {kBias};
      bias.rows = {0, kBias};
      bias.decay = false;
      const Parameters parameters{&matrix, &bias};
      Arena arena("test", Device::Cpu, 1 << 16);
      for (Parameter* p : parameters) p->value = arena.take(p->local_shape(), compute);
      ZeroOptimizer optimizer(context, mesh, parameters, config_of(0), {.compute = compute});

      const auto set = [&](const Tensor& x, const double* values) {
        dispatch_float(x.dtype(), [&]<class T>(T) {
          if constexpr (!std::is_same_v<T, bf16>) std::copy(values, values + x.size(), x.as<T>());
        });
      };
      for (const StateSlice& slice : optimizer.state()) {
        if (slice.name == "master/matrix") set(slice.data, kInitial);
        if (slice.name == "master/bias") set(slice.data, kInitial + kMatrix);
      }
      optimizer.state_loaded(context);

      // Each step rounds w, the decay term and the update: under 16 roundings of numbers no larger than |w| + 1 between
      // them. 1 - beta2 in the working dtype adds a relative error of u / 0.05, the square root halves it.
      const double u = unit_roundoff(compute);
      double moved = 0;
      for (int step = 1; step <= kSteps; ++step) {
        const double lr = kLearningRates[step - 1];
        moved += lr;
        optimizer.begin_step(context);
        set(matrix.gradient, kGradients + (step - 1) * (kMatrix + kBias));
        set(bias.gradient, kGradients + (step - 1) * (kMatrix + kBias) + kMatrix);
        optimizer.reduce(context, 0, kAllBlocks, ReduceTurn::Last);
        optimizer.step(context, lr, step);
        std::vector<double> weights = as_doubles(matrix.value);
        for (double w : as_doubles(bias.value)) weights.push_back(w);
        for (int i = 0; i < kMatrix + kBias; ++i) {
          const double expected = kWeights[(step - 1) * (kMatrix + kBias) + i];
          EXPECT_NEAR(weights[i], expected, step * 4 * u * (std::abs(expected) + 1) + moved * 32 * u)
              << name(compute) << " step " << step << " element " << i;
        }
      }
    });
  }
}

TEST(ZeroOptimizer, WeightDecayLeavesOutNormsAndBiases) {
  run_ranks(1, [](Comm& world) {
    Context context({.threads = 1});
    Mesh mesh(world, {});
    SmallModel model(mesh, DType::F64);
    ZeroOptimizer optimizer(context, mesh, model.parameters, config_of(1), {.compute = DType::F64});
    std::map<const Parameter*, std::vector<double>> before;
    for (const Parameter* parameter : model.parameters) before[parameter] = as_doubles(parameter->value);
    optimizer.begin_step(context);  // no gradient: only decay moves a weight
    optimizer.reduce(context, 0, kAllBlocks, ReduceTurn::Last);
    EXPECT_EQ(optimizer.norm(context), 0.0);
    optimizer.step(context, 0.5, 1);
    for (const Parameter* parameter : model.parameters) {
      const std::vector<double> after = as_doubles(parameter->value);
      for (size_t i = 0; i < after.size(); ++i) {
        const double w = before[parameter][i];
        EXPECT_NEAR(after[i], parameter->decay ? w - 0.5 * 0.1 * w : w, 4 * 0x1p-53 * std::abs(w)) << parameter->name;
      }
    }
  });
}

// Clipping is the same as training on gradients that are already that small: AdamW's first update from a gradient g is
// lr * g / (|g| + epsilon) elementwise, so an epsilon as large as the gradients makes the scale show.
TEST(ZeroOptimizer, ClippingScalesTheGradientToTheNorm) {
  run_ranks(1, [](Comm& world) {
    Context context({.threads = 1});
    Mesh mesh(world, {});
    SmallModel model(mesh, DType::F64);
    OptimizerConfig config = config_of(0.25);
    config.set_epsilon(1.0);
    config.set_weight_decay(0.0);
    ZeroOptimizer optimizer(context, mesh, model.parameters, config, {.compute = DType::F64});
    std::map<const Parameter*, std::vector<double>> before;
    for (const Parameter* parameter : model.parameters) before[parameter] = as_doubles(parameter->value);
    std::vector<double> norms;
    train(context, mesh, model, optimizer, 1, 1, &norms);
    ASSERT_GT(norms[0], 0.25);
    for (const Parameter* parameter : model.parameters) {
      const std::vector<double> after = as_doubles(parameter->value);
      for (size_t i = 0; i < after.size(); ++i) {
        const double g = 0.25 / norms[0] * static_cast<double>(SmallModel::global_gradient(parameter->name, i, 1));
        EXPECT_NEAR(after[i], before[parameter][i] - 0.01 * g / (std::abs(g) + 1.0),
                    32 * 0x1p-53 * (std::abs(before[parameter][i]) + 0.01));
      }
    }
  });
}

TEST(ZeroOptimizer, ANormThatIsNotFiniteStopsTheStepAndLeavesTheWeights) {
  run_ranks(2, [](Comm& world) {
    Context context({.threads = 1});
    Mesh mesh(world, {.dp = 2});
    SmallModel model(mesh, DType::F32);
    ZeroOptimizer optimizer(context, mesh, model.parameters, config_of(1), {});
    const std::vector<double> before = as_doubles(model.parameters[0]->value);
    optimizer.begin_step(context);
    if (world.rank() == 1) model.parameters[0]->gradient.as<float>()[0] = std::nanf("");
    optimizer.reduce(context, 0, kAllBlocks, ReduceTurn::Last);
    EXPECT_TRUE(std::isnan(optimizer.norm(context)));
    EXPECT_THROW(optimizer.step(context, 0.1, 1), NumericalError);
    EXPECT_EQ(as_doubles(model.parameters[0]->value), before);
  });
}

TEST(ZeroOptimizer, ClippingNeedsTheNormOfThisStep) {
  run_ranks(1, [](Comm& world) {
    Context context({.threads = 1});
    Mesh mesh(world, {});
    SmallModel model(mesh, DType::F32);
    ZeroOptimizer optimizer(context, mesh, model.parameters, config_of(1), {});
    train(context, mesh, model, optimizer, 1, 1);
    optimizer.begin_step(context);
    optimizer.reduce(context, 0, kAllBlocks, ReduceTurn::Last);
    EXPECT_THROW(optimizer.step(context, 0.1, 2), InternalError);
  });
}

TEST(ZeroOptimizer, StateGoesRoundBitForBit) {
  for (DType compute : {DType::F64, DType::F32, DType::BF16}) {
    run_ranks(4, [&](Comm& world) {
      Context context({.threads = 1});
      Mesh mesh(world, {.dp = 2, .tp = 2});
      SmallModel model(mesh, compute), other_model(mesh, compute);
      ZeroOptimizer optimizer(context, mesh, model.parameters, config_of(1), {.seed = 1, .compute = compute});
      ZeroOptimizer other(context, mesh, other_model.parameters, config_of(1), {.seed = 2, .compute = compute});
      EXPECT_NE(as_doubles(other_model.parameters[0]->value), as_doubles(model.parameters[0]->value));
      train(context, mesh, model, optimizer, 1, 2);

      const auto from = optimizer.state(), to = other.state();
      ASSERT_EQ(from.size(), 3 * model.parameters.size());
      ASSERT_EQ(from.size(), to.size());
      for (size_t i = 0; i < from.size(); ++i) {
        ASSERT_EQ(from[i].name, to[i].name);
        ASSERT_EQ(from[i].data.bytes(), to[i].data.bytes());
        std::memcpy(to[i].data.data(), from[i].data.data(), from[i].data.bytes());
      }
      other.state_loaded(context);
      const auto expect_equal = [&] {
        for (size_t i = 0; i < model.parameters.size(); ++i)
          EXPECT_EQ(as_doubles(other_model.parameters[i]->value), as_doubles(model.parameters[i]->value));
      };
      expect_equal();
      train(context, mesh, model, optimizer, 3, 4);
      train(context, mesh, other_model, other, 3, 4);
      expect_equal();
    });
  }
}

TEST(ZeroOptimizer, SlicesSayWhoHoldsWhat) {
  run_ranks(4, [](Comm& world) {
    Context context({.threads = 1});
    Mesh mesh(world, {.dp = 2, .tp = 2});
    SmallModel model(mesh, DType::BF16);
    ZeroOptimizer optimizer(context, mesh, model.parameters, config_of(1), {.compute = DType::BF16});
    std::map<std::string, StateSlice> slices;
    for (const StateSlice& slice : optimizer.state()) EXPECT_TRUE(slices.emplace(slice.name, slice).second);
    for (const Parameter* parameter : model.parameters) {
      for (const char* kind : {"master/", "exp_avg/", "exp_avg_sq/"}) {
        const StateSlice& slice = slices.at(kind + parameter->name);
        EXPECT_EQ(slice.global_shape, parameter->global_shape);
        EXPECT_EQ(slice.rows, parameter->rows);
        EXPECT_EQ(slice.data.shape(), parameter->local_shape());
        EXPECT_EQ(slice.data.dtype(), DType::F32);
      }
      // The compute copy is the master weight, rounded once.
      const StateSlice& master = slices.at("master/" + parameter->name);
      for (int64_t i = 0; i < master.data.size(); ++i)
        EXPECT_EQ(parameter->value.as<bf16>()[i].bits, bf16(master.data.as<float>()[i]).bits);
    }
  });
}

TEST(ZeroOptimizer, TheStatementOfBytesIsWhatIsUsed) {
  for (DType compute : {DType::F64, DType::F32, DType::BF16}) {
    for (const MeshShape& shape : kLayouts) {
      run_ranks(shape.size(), [&](Comm& world) {
        Context context({.threads = 1});
        Mesh mesh(world, shape);
        SmallModel model(mesh, compute);
        ZeroOptimizer optimizer(context, mesh, model.parameters, config_of(1), {.compute = compute});
        train(context, mesh, model, optimizer, 1, 2);
        const ZeroOptimizer::Bytes stated =
            ZeroOptimizer::bytes(model.parameters, shape, world.rank(), {.compute = compute});
        EXPECT_EQ(optimizer.bytes().state, stated.state);
        EXPECT_EQ(optimizer.bytes().gradients, stated.gradients);
        // Master weights take memory of their own only where the compute dtype is another.
        EXPECT_EQ(optimizer.state()[0].data.data() == model.parameters[0]->value.data(), compute != DType::BF16);
      });
    }
  }
}

TEST(ZeroOptimizer, GradientsOfAGroupTravelTogether) {
  run_ranks(4, [](Comm& world) {
    Context context({.threads = 1});
    Mesh mesh(world, {.dp = 2, .tp = 2});
    SmallModel model(mesh, DType::F32);
    ZeroOptimizer optimizer(context, mesh, model.parameters, config_of(1), {});
    const auto calls = [&](const char* group) { return mesh.traffic().at(group).calls_of(Collective::AllReduce); };
    const int64_t before = calls("world");
    train(context, mesh, model, optimizer, 1, 5);
    EXPECT_EQ(calls("dp*cp"), 5);           // three parameters split over tp
    EXPECT_EQ(calls("dp*cp*tp"), 5);        // two that every rank holds
    EXPECT_EQ(calls("world") - before, 5);  // the norm
  });
}

// A table at both ends of a pipeline: each end has a part of the gradient, both make the same update, and the norm
// counts it once. On one rank with two stages, on two ranks, and on three, whose middle has none.
TEST(ZeroOptimizer, TiedTablesAreOneParameter) {
  const auto parameter = [](const char* name, int stage, int64_t ordinal, AxisSet replicas) {
    return Parameter{.name = name,
                     .global_shape = {3, 2},
                     .rows = {0, 3},
                     .replicas = replicas,
                     .ordinal = ordinal,
                     .ordinals = 4,
                     .stage = stage,
                     .value = {},
                     .gradient = {}};
  };
  std::mutex mutex;
  for (const int pp : {1, 2, 3}) {
    for (const int dp : {1, 2}) {
      std::map<std::string, std::set<std::vector<double>>> after;
      std::set<double> norms;
      run_ranks(pp * dp, [&](Comm& world) {
        Context context({.threads = 1});
        Mesh mesh(world, {.pp = pp, .dp = dp});
        const int rank = mesh.coordinate(Axis::Pp);
        const AxisSet split{Axis::Dp, Axis::Cp};
        const AxisSet ends = pp == 1 ? split : split.with(Axis::TiedEnds);
        Parameter first = parameter("embedding", 0, 0, ends),
                  last = parameter("embedding", pp == 1 ? 1 : pp - 1, 0, ends);
        Parameter other = parameter("blocks.0", pp == 1 ? 1 : rank, 1 + rank, split);
        Parameters parameters;
        if (rank == 0) parameters.push_back(&first);
        if (rank == pp - 1) parameters.push_back(&last);
        parameters.push_back(&other);
        Arena values("values", Device::Cpu, 4 * Arena::kAlignment);
        for (Parameter* p : parameters) p->value = values.take(p->global_shape, DType::F64);
        if (pp == 1) {
          last.tied_to = &first;
          last.value = first.value;
        }
        ZeroOptimizer optimizer(context, mesh, parameters, config_of(0), {.compute = DType::F64});
        optimizer.begin_step(context);
        for (Parameter* p : parameters) {
          const double gradient = p == &first ? 3.0 : p == &last ? 1.0 : 0.5;
          for (double& g : p->gradient.span<double>()) g += gradient / dp;
        }
        std::set<int> stages;
        for (Parameter* p : parameters) stages.insert(p->stage);
        for (const int stage : stages) optimizer.reduce(context, stage, kAllBlocks, ReduceTurn::Last);
        const double norm = optimizer.norm(context);
        optimizer.step(context, 0.1, 1);
        const std::lock_guard lock(mutex);
        norms.insert(norm);
        if (rank == 0) after["embedding"].insert(as_doubles(first.value));
        if (rank == pp - 1) after["embedding"].insert(as_doubles(last.value));
        for (const Parameter* table : {&first, &last}) {
          if (table->gradient.empty() || table->tied_to != nullptr) continue;
          for (const double g : as_doubles(table->gradient)) EXPECT_EQ(g, 4.0);
        }
      });
      EXPECT_EQ(after["embedding"].size(), 1u) << pp << " x " << dp;
      EXPECT_EQ(norms, std::set<double>{std::sqrt(6 * 16.0 + 6 * 0.25 * pp)}) << pp << " x " << dp;
    }
  }
}

// On one rank: ranks that are threads may make text for their deadlock check while they wait for each other.
TEST(ZeroOptimizer, AStepAllocatesNothingAfterWarmUp) {
  for (const DType compute : {DType::F32, DType::BF16}) {
    run_ranks(1, [&](Comm& world) {
      Context context({.threads = 1});
      Mesh mesh(world, {});
      SmallModel model(mesh, compute);
      ZeroOptimizer optimizer(context, mesh, model.parameters, config_of(1), {.compute = compute});
      train(context, mesh, model, optimizer, 1, 2);
      const int64_t before = testing::allocations();
      train(context, mesh, model, optimizer, 3, 6);
      EXPECT_EQ(testing::allocations(), before);
    });
  }
}

TEST(ZeroOptimizer, SettingsThatCannotBeAreSaid) {
  run_ranks(1, [](Comm& world) {
    Context context({.threads = 1});
    Mesh mesh(world, {});
    SmallModel model(mesh, DType::F32);
    OptimizerConfig config = config_of(-1);
    config.set_beta2(1.0);
    try {
      ZeroOptimizer optimizer(context, mesh, model.parameters, config,
                              {.compute = DType::F64, .zero_stage = 4, .wire = WireFormat::Bf16});
      FAIL();
    } catch (const UsageError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("parallel.zero_stage = 4: there are stages 0 to 3"), std::string::npos) << message;
      EXPECT_NE(message.find("parallel.gradient_wire = bf16: needs "), std::string::npos) << message;
      EXPECT_NE(message.find("optimizer.beta2 = 1: must be at least 0 and below 1"), std::string::npos) << message;
      EXPECT_NE(message.find("optimizer.max_grad_norm = -1: "), std::string::npos) << message;
    }
  });
}

}  // namespace
}  // namespace tessera
