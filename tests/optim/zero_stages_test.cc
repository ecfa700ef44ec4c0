// ZeRO 1, 2 and 3 against stage 0: integer gradients are exact in any order, so everything is compared bit for bit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <set>

#include "optim/optim.pb.h"
#include "optim/zero.h"
#include "parallel/comm/comm_threads.h"
#include "parallel/schedule/text.h"
#include "tests/optim/small_model.h"
#include "tests/support/allocations.h"

namespace tessera {
namespace {

constexpr BlockRange kBlock{0, 1};
constexpr int64_t kSteps = 3;

// tp = 1 and 2; rows that divide, and not, and fewer rows than ranks; neighbourhoods of two.
const MeshShape kLayouts[] = {{},
                              {.dp = 2},
                              {.dp = 3},
                              {.dp = 2, .tp = 2},
                              {.dp = 8},
                              {.dp = 2, .cp = 2, .tp = 2},
                              {.dp = 4, .zero_group = 2},
                              {.dp = 4, .tp = 2, .zero_group = 2}};

struct Case {
  MeshShape mesh;
  DType compute = DType::F64;
  int stage = 0;
  WireFormat wire = WireFormat::Full;
  bool whole_matrices = false;
  std::string str() const {
    return fmt::format("dp {} cp {} tp {} in groups of {}, {}, stage {}{}{}", mesh.dp, mesh.cp, mesh.tp,
                       mesh.zero_group, name(compute), stage, wire == WireFormat::Bf16 ? ", bf16" : "",
                       whole_matrices ? ", whole matrices" : "");
  }
};

using Values = std::map<std::string, std::vector<double>>;

// Adds a rank's rows to whole tensors, and says how often each element was held.
void put(const StateSlice& slice, Values& whole, std::map<std::string, std::vector<int>>& holders) {
  EXPECT_EQ(slice.data.shape(), slice.global_shape.with_rows(slice.rows.size()));
  whole[slice.name].resize(slice.global_shape.size());
  std::vector<int>& held = holders[slice.name];
  held.resize(slice.global_shape.size());
  int64_t at = slice.rows.begin * slice.global_shape.row_size();
  dispatch_float(slice.data.dtype(), [&]<class T>(T) {
    for (const T x : slice.data.span<T>()) {
      whole[slice.name][at] = static_cast<double>(x);
      ++held[at++];
    }
  });
}

struct Outcome {
  Values state, gradients;
  std::map<std::string, std::vector<int>> holders;
  std::vector<double> norms;
  std::vector<int64_t> sent;  // by rank, in the last step
};

ZeroOptimizer::Options options_of(const Case& c) {
  return {.seed = 11,
          .compute = c.compute,
          .zero_stage = c.stage,
          .wire = c.wire,
          .lists = {parse_schedule("G F0 B0 X W0 R N S")}};
}

int64_t sent(const Mesh& mesh) {
  int64_t bytes = 0;
  for (const auto& [group, traffic] : mesh.traffic()) bytes += group == "world" ? 0 : traffic.total_bytes();
  return bytes;
}

// Steps of two microbatches of equal gradients.
void train(Context& context, Mesh& mesh, SmallModel& model, ZeroOptimizer& optimizer, int64_t first, int64_t last,
           std::vector<double>* norms = nullptr) {
  for (int64_t step = first; step <= last; ++step) {
    optimizer.begin_step(context);
    for (int microbatch = 0; microbatch < 2; ++microbatch) {
      optimizer.gradients_needed(context, 0, kBlock);
      model.accumulate_gradients(mesh, step);
      optimizer.reduce(context, 0, kBlock, microbatch == 1 ? ReduceTurn::Last : ReduceTurn::Earlier);
    }
    const double norm = optimizer.norm(context);
    if (norms != nullptr) norms->push_back(norm);
    optimizer.step(context, 0.01, step);
  }
}

Outcome run(const Case& c) {
  Outcome outcome;
  outcome.sent.resize(c.mesh.size());
  std::mutex mutex;
  run_ranks(c.mesh.size(), [&](Comm& world) {
    Context context({.threads = 1});
    Mesh mesh(world, c.mesh);
    SmallModel model(mesh, c.compute, c.stage, c.whole_matrices);
    OptimizerConfig config;
    config.set_max_grad_norm(1.0);
    ZeroOptimizer optimizer(context, mesh, model.parameters, config, options_of(c));
    std::vector<double> norms;
    train(context, mesh, model, optimizer, 1, kSteps - 1, &norms);
    const int64_t before = sent(mesh);
    train(context, mesh, model, optimizer, kSteps, kSteps, &norms);
    const int64_t after = sent(mesh);
    if (c.stage == 3) {
      for (const Parameter* p : model.parameters)
        EXPECT_EQ(p->value.data(), nullptr) << "only between GATHER and RELEASE";
      optimizer.gather(context, 0, kBlock, GatherFor::Forward);
      optimizer.weights_needed(context, 0, kBlock);
    }
    const std::lock_guard lock(mutex);
    outcome.sent[world.rank()] = after - before;
    if (world.rank() == 0) outcome.norms = norms;
    EXPECT_EQ(outcome.norms.empty() ? norms : outcome.norms, norms) << c.str();
    for (const StateSlice& slice : optimizer.state()) put(slice, outcome.state, outcome.holders);
    for (const StateSlice& slice : optimizer.gradients()) put(slice, outcome.gradients, outcome.holders);
    // Every rank has the compute copies of all its rows.
    for (const Parameter* p : model.parameters) {
      std::map<std::string, std::vector<int>> any;
      put({.name = "value/" + p->name, .global_shape = p->global_shape, .rows = p->rows, .data = p->value},
          outcome.state, any);
    }
  });
  return outcome;
}

void expect_equal(const Outcome& a, const Outcome& b, const std::string& what) {
  EXPECT_EQ(a.norms, b.norms) << what;
  EXPECT_EQ(a.gradients, b.gradients) << what;
  EXPECT_EQ(a.state, b.state) << what;
}

TEST(ZeroStages, MakeTheStepsOfStageZero) {
  for (const DType compute : {DType::F64, DType::BF16}) {
    const Outcome one = run({.mesh = {}, .compute = compute});
    for (const MeshShape& mesh : kLayouts) {
      for (const int stage : {1, 2, 3}) {
        for (const bool whole : {false, true}) {
          const Case c{.mesh = mesh, .compute = compute, .stage = stage, .whole_matrices = whole};
          expect_equal(run(c), one, c.str());
        }
      }
    }
  }
}

// Gradients of at most eight bits travel as BF16 without loss.
TEST(ZeroStages, Bf16OnTheWireSumsInF32) {
  const Outcome one = run({.mesh = {}, .compute = DType::F32});
  for (const MeshShape& mesh : kLayouts) {
    for (const int stage : {1, 2, 3}) {
      const Case c{.mesh = mesh,
                   .compute = DType::F32,
                   .stage = stage,
                   .wire = WireFormat::Bf16,
                   .whole_matrices = mesh.dp == 3};
      expect_equal(run(c), one, c.str());
    }
  }
}

TEST(ZeroStages, EveryElementHasOneOwnerInAGroup) {
  for (const MeshShape& mesh : kLayouts) {
    for (const bool whole : {false, true}) {
      const Case c{.mesh = mesh, .stage = 1, .whole_matrices = whole};
      const int copies = mesh.zero_group > 0 ? mesh.dp / mesh.zero_group : 1;
      for (const auto& [name, holders] : run(c).holders)
        EXPECT_EQ(holders, std::vector<int>(holders.size(), copies)) << name << " " << c.str();
    }
  }
}

// The small model at dp = n, tp = 1: rows and row sizes {5, 3}, {7, 1}, {6, 1}, {8, 4}, {2, 2}; {7, 1} is reduced once
// a step, the others with each of two microbatches from stage 2 on.
TEST(ZeroStages, BytesOnTheWireAreTheFormulas) {
  const std::pair<int64_t, int64_t> shapes[] = {{5, 3}, {7, 1}, {6, 1}, {8, 4}, {2, 2}};
  for (const int n : {2, 3, 4}) {
    for (const WireFormat wire : {WireFormat::Full, WireFormat::Bf16}) {
      for (const int stage : {1, 2, 3}) {
        int64_t expected = 0;
        for (const auto& [rows, row] : shapes) {
          const int64_t part = (rows + n - 1) / n * row;
          const int64_t reductions = stage == 1 || rows == 7 ? 1 : 2;
          expected += part * (n - 1) * (reductions * (wire == WireFormat::Bf16 ? 2 : 4) + (stage < 3 ? 4 : 0));
        }
        const Case c{.mesh = {.dp = n}, .compute = DType::F32, .stage = stage, .wire = wire};
        EXPECT_EQ(run(c).sent, std::vector<int64_t>(n, expected)) << c.str();
      }
    }
  }
}

TEST(ZeroStages, TheStatementOfBytesIsWhatIsTaken) {
  for (const DType compute : {DType::F64, DType::F32, DType::BF16}) {
    for (const MeshShape& shape : kLayouts) {
      for (const int stage : {1, 2, 3}) {
        run_ranks(shape.size(), [&](Comm& world) {
          const Case c{.mesh = shape, .compute = compute, .stage = stage};
          Context context({.threads = 1});
          Mesh mesh(world, shape);
          SmallModel model(mesh, compute, stage);
          ZeroOptimizer optimizer(context, mesh, model.parameters, {}, options_of(c));
          const auto stated = ZeroOptimizer::bytes(model.parameters, shape, world.rank(), options_of(c));
          EXPECT_EQ(optimizer.bytes().state, stated.state);
          EXPECT_EQ(optimizer.bytes().gradients, stated.gradients);
          EXPECT_EQ(optimizer.bytes().weights, stated.weights);
          EXPECT_EQ(optimizer.bytes().gathered, stated.gathered);

          // In multiples of an arena's unit: what is owned, what is whole, what the only block has in each area.
          const int64_t element = size_of(compute), sum = size_of(accumulation_dtype(compute));
          const auto unit = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
          int64_t state = 0, weights = 0, kept = 0, turns = 0, gathered = 0;
          for (const Parameter* p : model.parameters) {
            const bool split = !p->replicas.has(Axis::Tp);
            const int n = (shape.zero_group > 0 ? shape.zero_group : shape.dp) * shape.cp * (split ? 1 : shape.tp);
            const int64_t part = (p->rows.size() + n - 1) / n, row = p->global_shape.row_size();
            const int tp = mesh.coordinate(Axis::Tp), dp = mesh.coordinate(Axis::ZeroShard);
            const int64_t index =
                (dp * shape.cp + mesh.coordinate(Axis::Cp)) * (split ? 1 : shape.tp) + (split ? 0 : tp);
            const int64_t owned = std::clamp<int64_t>(p->rows.size() - index * part, 0, part) * row;
            state += (compute == DType::BF16 ? 3 : 2) * unit(owned * sum);
            weights += stage == 3 ? unit(owned * element) : 0;
            gathered += stage == 3 ? unit(n * part * row * element) : 0;
            const bool whole = stage == 1 || p->name == "blocks.0.norm";
            kept += unit((whole ? n * part * row : owned) * sum);
            turns += whole ? 0 : unit(n * part * row * sum);
          }
          EXPECT_EQ(stated.state, state) << c.str();
          EXPECT_EQ(stated.weights, weights) << c.str();
          EXPECT_EQ(stated.gathered, gathered) << c.str();
          EXPECT_EQ(stated.gradients, kept + 2 * turns) << c.str();
        });
      }
    }
  }
}

// Tied tables at the ends of a pipeline of one rank (two stages) and of two, as in zero_test, at every stage.
TEST(ZeroStages, TiedTablesAreOneParameter) {
  std::mutex mutex;
  for (const int stage : {1, 2, 3}) {
    for (const MeshShape shape :
         {MeshShape{.dp = 2}, MeshShape{.pp = 2, .dp = 2}, MeshShape{.pp = 2, .dp = 4, .zero_group = 2}}) {
      std::set<double> norms;
      std::map<std::string, std::set<double>> masters, gradients;
      run_ranks(shape.size(), [&](Comm& world) {
        Context context({.threads = 1});
        Mesh mesh(world, shape);
        const bool together = shape.pp == 1;
        AxisSet replicas{Axis::Dp, Axis::Cp};
        if (!together) replicas = replicas.with(Axis::TiedEnds);
        Parameter first{.name = "embedding",
                        .global_shape = {3, 2},
                        .rows = {0, 3},
                        .replicas = replicas,
                        .initialisation = Initialisation::One,
                        .ordinals = 1,
                        .value = {},
                        .gradient = {}};
        Parameter last = first;
        last.stage = 1;
        last.weight_adds_alone = false;
        if (together) last.tied_to = &first;
        Parameters parameters;
        if (mesh.coordinate(Axis::Pp) == 0) parameters.push_back(&first);
        if (mesh.coordinate(Axis::Pp) == shape.pp - 1) parameters.push_back(&last);
        share_out(parameters, shape, stage);
        Arena values("values", Device::Cpu, 4 * Arena::kAlignment);
        if (stage < 3) {
          for (Parameter* p : parameters) p->value = values.take(p->padded_shape(), DType::F64).rows(0, 3);
        }
        ZeroOptimizer optimizer(context, mesh, parameters, {}, {.compute = DType::F64, .zero_stage = stage});
        optimizer.begin_step(context);
        for (Parameter* p : parameters) {
          optimizer.gradients_needed(context, p->stage, kBlock);
          for (double& g : p->gradient.span<double>()) g += (p == &first ? 3.0 : 1.0) / shape.dp;
          optimizer.reduce(context, p->stage, kBlock, ReduceTurn::Last);
        }
        const double norm = optimizer.norm(context);
        optimizer.step(context, 0.1, 1);
        const std::lock_guard lock(mutex);
        norms.insert(norm);
        for (const StateSlice& slice : optimizer.gradients()) {
          for (const double g : slice.data.span<double>()) gradients[slice.name].insert(g);
        }
        for (const StateSlice& slice : optimizer.state()) {
          for (const double w : slice.data.span<double>()) masters[slice.name].insert(w);
        }
      });
      EXPECT_EQ(norms, std::set<double>{std::sqrt(6 * 16.0)}) << stage;
      EXPECT_EQ(gradients["embedding"], std::set<double>{4.0}) << stage;
      EXPECT_EQ(masters["master/embedding"].size(), 1u) << stage;
    }
  }
}

TEST(ZeroStages, StepsAllocateNothingAfterWarmUp) {
  for (const int stage : {1, 2, 3}) {
    run_ranks(1, [&](Comm& world) {
      const Case c{.mesh = {}, .compute = DType::BF16, .stage = stage, .wire = WireFormat::Bf16};
      Context context({.threads = 1});
      Mesh mesh(world, {});
      SmallModel model(mesh, c.compute, stage);
      ZeroOptimizer optimizer(context, mesh, model.parameters, {}, options_of(c));
      const auto steps = [&](int64_t first) {
        if (stage == 3) optimizer.gather(context, 0, kBlock, GatherFor::Forward);
        if (stage == 3) optimizer.release(context, 0, kBlock);
        train(context, mesh, model, optimizer, first, first + 2);
      };
      steps(1);
      const int64_t before = testing::allocations();
      steps(4);
      EXPECT_EQ(testing::allocations(), before) << c.str();
    });
  }
}

}  // namespace
}  // namespace tessera
