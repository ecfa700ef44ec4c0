// ZeRO 1, 2 and 3 with every schedule, recomputation, tie and family: what one rank computes, in F64; which bits agree;
// memory against closed formulas in the sizes of the model alone; bytes against what the layout says; evaluation.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "data/order/synthetic_source.h"
#include "launch/config/run_layout.h"
#include "launch/proof/layout_proof.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "tests/launch/proof/counted_traffic.h"
#include "tests/launch/proof/planned_run.h"
#include "tests/launch/proof/small_pipeline.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

SyntheticSource source_for(const RunConfig& config, Assembly& parts) {
  return SyntheticSource({.vocab = config.model().vocab_size(),
                          .sequence_length = config.data().sequence_length(),
                          .micro_batch_size = config.data().micro_batch_size(),
                          .global_batch_size = config.data().global_batch_size(),
                          .mean_document = 4,
                          .dp = parts.mesh().extent(Axis::Dp),
                          .dp_rank = parts.mesh().coordinate(Axis::Dp),
                          .seed = config.run().seed()});
}

class ZeroLayouts : public ::testing::TestWithParam<std::tuple<ModelConfig::Family, bool>> {
 protected:
  RunConfig make(const std::vector<std::string>& fields) const {
    return config_of(std::get<0>(GetParam()), std::get<1>(GetParam()), fields, {.layers = 4});
  }
};

TEST_P(ZeroLayouts, AllComputeWhatOneRankComputes) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  const std::vector<std::vector<std::string>> layouts = {
      {"dp=2"},
      {"dp=4", "zero_group=2"},
      {"dp=2", "tp=2"},
      {"dp=2", "recompute=full"},
      {"pp=2", "dp=2", "schedule=gpipe"},
      {"pp=2", "dp=2", "recompute=selective"},
      {"pp=2", "dp=2", "schedule=interleaved"},
      {"pp=2", "dp=2", "schedule=zb-h1", "recompute=full"},
      {"pp=2", "dp=2", "schedule=zb-v"},
      {"pp=2", "schedule=dualpipe-v"},
      {"pp=4", "dp=2"},
      {"tp=2", "pp=2", "dp=2", "schedule=zb-h2"},
      {"tp=2", "pp=1", "dp=4", "zero_group=2", "recompute=full"},
  };
  const RunRecord one = record_planned(make({}), kSteps);
  for (size_t i = 0; i < layouts.size(); ++i) {
    for (const int stage : {1, 2, 3}) {
      if (stage == 1 && i % 4 != 0) continue;  // schedules and recomputation are stage 0's
      std::vector<std::string> fields = layouts[i];
      fields.push_back(fmt::format("zero_stage={}", stage));
      const LayoutDifference difference = compare_runs(one, record_planned(make(fields), kSteps));
      EXPECT_TRUE(difference.equal()) << fmt::format("{}", fmt::join(fields, " ")) << ": loss " << difference.loss
                                      << " norm " << difference.norm << " gradient " << difference.gradient << " "
                                      << difference.first_gradient << " state " << difference.state << " "
                                      << difference.first_state;
    }
  }
}

void expect_equal_bits(const RunRecord& a, const RunRecord& b, const std::string& what) {
  EXPECT_EQ(a.losses, b.losses) << what;
  EXPECT_EQ(a.norms, b.norms) << what;
  EXPECT_EQ(a.gradients, b.gradients) << what;
  EXPECT_EQ(a.state, b.state) << what;
}

// Stages 0 and 1 add a step's microbatches up before the ranks, stages 2 and 3 the ranks first; with one microbatch all
// four do the same. Schedules of one layout and stage add in one order.
TEST_P(ZeroLayouts, SumsOfOneOrderHaveTheSameBits) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  const auto record = [&](std::vector<std::string> fields, int stage) {
    fields.push_back(fmt::format("zero_stage={}", stage));
    return record_planned(make(fields), 2);
  };
  const RunRecord many = record({"dp=2"}, 0), few = record({"dp=8"}, 0), sharded = record({"dp=2"}, 2);
  expect_equal_bits(record({"dp=2"}, 1), many, "stage 1");
  expect_equal_bits(record({"dp=2"}, 3), sharded, "stage 3");
  for (const int stage : {1, 2, 3}) expect_equal_bits(record({"dp=8"}, stage), few, "one microbatch");
  const RunRecord first = record({"pp=2", "dp=2", "schedule=1f1b"}, 3);
  for (const char* other : {"schedule=gpipe", "schedule=zb-h1", "recompute=full"})
    expect_equal_bits(record({"pp=2", "dp=2", other}, 3), first, other);
}

// Over processes as well: the losses and norms of one rank.
TEST_P(ZeroLayouts, TrainOverThreadsAndProcesses) {
  const RunRecord one = record_planned(make({}), kSteps);
  const std::vector<std::vector<std::string>> layouts = {
      {"dp=2", "zero_stage=1"},
      {"dp=2", "zero_stage=3"},
      {"dp=2", "pp=2", "zero_stage=2"},
      {"dp=4", "zero_group=2", "zero_stage=3"},
      {"tp=2", "pp=2", "dp=2", "zero_stage=3", "schedule=zb-v"},
  };
  for (const auto& fields : layouts) {
    const RunConfig config = make(fields);
    run_ranks(config.parallel().tp() * config.parallel().pp() * config.parallel().dp(), [&](Comm& world) {
      Assembly parts(config, plan_layout(config), world, 1);
      SyntheticSource source = source_for(config, parts);
      const std::unique_ptr<Pipeline> pipeline = parts.training(source);
      for (int64_t step = 1; step <= kSteps; ++step) {
        const StepResult result = pipeline->step(parts.context(), (step - 1) * 8, 1e-2, step);
        ASSERT_NEAR(result.loss, one.losses[step - 1], 1e-9) << fmt::format("{}", fmt::join(fields, " "));
        ASSERT_NEAR(result.gradient_norm, one.norms[step - 1], 1e-9) << fmt::format("{}", fmt::join(fields, " "));
        const StepTimes& t = result.times;
        for (const double part : {t.compute, t.communication, t.sends, t.bubble, t.data, t.optimizer})
          EXPECT_GE(part, -1e-6);
      }
    });
  }
}

// With weights that are gathered block by block, on one and on several pipeline ranks.
TEST_P(ZeroLayouts, EvaluateTheSameLoss) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  const auto losses = [&](const std::vector<std::string>& fields) {
    const RunConfig config = make(fields);
    EvaluationResult before, after;
    tessera::run_ranks(config.parallel().pp() * config.parallel().dp(), [&](Comm& world) {
      Assembly parts(config, plan_layout(config), world, 1);
      SyntheticSource source = source_for(config, parts), other = source_for(config, parts);
      const std::unique_ptr<Pipeline> pipeline = parts.training(source), evaluation = parts.evaluation(other);
      const EvaluationResult first = evaluation->evaluate(parts.context(), 64, 2, 8);
      pipeline->step(parts.context(), 0, 1e-2, 1);
      const EvaluationResult second = evaluation->evaluate(parts.context(), 64, 2, 8);
      if (world.rank() == 0) before = first, after = second;
    });
    EXPECT_NE(before.loss, after.loss);
    return std::vector<double>{before.loss, after.loss};
  };
  const std::vector<double> one = losses({});
  for (const std::vector<std::string>& fields :
       std::vector<std::vector<std::string>>{{"dp=2", "zero_stage=1"},
                                             {"dp=2", "zero_stage=3"},
                                             {"pp=2", "dp=2", "zero_stage=3"},
                                             {"pp=2", "dp=2", "zero_stage=3", "schedule=zb-v"}}) {
    const std::vector<double> other = losses(fields);
    for (int i = 0; i < 2; ++i) EXPECT_NEAR(other[i], one[i], 1e-12) << fmt::format("{}", fmt::join(fields, " "));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ZeroLayouts,
                         ::testing::Combine(::testing::Values(ModelConfig::LLAMA, ModelConfig::GPT2),
                                            ::testing::Values(false, true)),
                         [](const auto& test) {
                           return ModelConfig::Family_Name(std::get<0>(test.param)) +
                                  (std::get<1>(test.param) ? "_tied" : "_untied");
                         });

// A parameter of a llama without ties on one pipeline rank: rows, elements a row; whether BACKWARD_WEIGHT alone adds to
// its gradient; whether FORWARD alone reads it.
struct Matrix {
  int64_t rows, row;
  bool in_turns, forward_alone;
};

struct Model {
  std::vector<Matrix> block, first, last;  // of every block; more of the first one; more of the last one
};

Model model_of(const SmallSizes& s) {
  const int64_t head_dim = s.hidden / s.heads, group = s.heads / s.kv_heads;
  return {.block = {{s.hidden, 1, false, false},                                     // norm
                    {s.kv_heads, (group + 2) * head_dim * s.hidden, true, false},    // queries, keys and values
                    {s.heads * head_dim, s.hidden, true, false},                     // output
                    {s.hidden, 1, false, false},                                     // norm
                    {s.ffn, 2 * s.hidden, true, false},                              // gate and up
                    {s.ffn, s.hidden, true, false}},                                 // down
          .first = {{s.vocab, s.hidden, true, true}},                                // embedding
          .last = {{s.hidden, 1, false, false}, {s.vocab, s.hidden, false, true}}};  // final norm, head
}

int64_t unit(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Sizes that divide nowhere, a vocabulary that rules and one that does not, more ranks than rows.
const SmallSizes kSizes[] = {
    {.layers = 4}, {.hidden = 24, .layers = 3, .heads = 3, .kv_heads = 3, .ffn = 40, .vocab = 501}, {.layers = 1}};

TEST(ZeroMemory, IsTheFormulas) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  for (const SmallSizes& s : kSizes) {
    for (const RunSection::ComputeDtype dtype : {RunSection::F32, RunSection::BF16}) {
      for (const int n : {1, 2, 4}) {
        for (const int stage : {0, 1, 2, 3}) {
          RunConfig config =
              config_of(ModelConfig::LLAMA, false, {fmt::format("dp={}", n), fmt::format("zero_stage={}", stage)}, s);
          config.mutable_run()->set_compute_dtype(dtype);
          tessera::run_ranks(n, [&](Comm& world) {
            Assembly parts(config, plan_layout(config), world, 1);
            std::map<std::string, int64_t> lines;
            for (const MemoryLine& line : parts.memory()) lines[line.category] = line.bytes;

            const int64_t value = dtype == RunSection::BF16 ? 2 : 4, shards = stage == 0 ? 1 : n;
            const int64_t rank = stage == 0 ? 0 : world.rank();
            int64_t weights = 0, kept = 0, elements = 0, most_in_turns = 0;
            int64_t state = 0;
            std::vector<int64_t> forward(s.layers), backward(s.layers);
            const Model model = model_of(s);
            for (int64_t block = 0; block < s.layers; ++block) {
              int64_t in_turns = 0;
              std::vector<Matrix> all = model.block;
              if (block == 0) all.insert(all.end(), model.first.begin(), model.first.end());
              if (block == s.layers - 1) all.insert(all.end(), model.last.begin(), model.last.end());
              for (const Matrix& m : all) {
                const int64_t part = (m.rows + shards - 1) / shards, padded = shards * part * m.row;
                const int64_t owned = std::clamp<int64_t>(m.rows - rank * part, 0, part) * m.row;
                elements += m.rows * m.row;
                state += (value == 2 ? 3 : 2) * unit(4 * owned);
                weights += unit(value * (stage == 3 ? owned : padded));
                const bool turns = stage >= 2 && m.in_turns;
                kept += unit(4 * (turns ? owned : padded));
                in_turns += turns ? unit(4 * padded) : 0;
                forward[block] += unit(value * padded);
                backward[block] += m.forward_alone ? 0 : unit(value * padded);
              }
              most_in_turns = std::max(most_in_turns, in_turns);
            }
            // Two blocks that follow each other, going forward or from forward into the next microbatch's; the last
            // block serves backward as it serves forward, and the first one the next microbatch. A step on one rank of
            // two microbatches or more.
            int64_t gathered = s.layers == 1 ? forward[0] : 0;
            for (int64_t b = 0; b + 1 < s.layers; ++b) gathered = std::max(gathered, forward[b] + forward[b + 1]);
            gathered = std::max(gathered, s.layers > 1 ? forward[s.layers - 1] + forward[0] : 0);  // evaluation

            const std::string what = fmt::format("{} layers, {} ranks, stage {}", s.layers, n, stage);
            EXPECT_EQ(lines["weights"], weights) << what;
            EXPECT_EQ(lines["gathered weights"], stage == 3 ? gathered : 0) << what;
            EXPECT_EQ(lines["optimizer state"], state) << what;
            if (stage == 0) {  // matrices and norms of all ranks of tp, each without gaps
              EXPECT_EQ(lines["gradients"],
                        unit(4 * (elements - (2 * s.layers + 1) * s.hidden)) + unit(4 * (2 * s.layers + 1) * s.hidden))
                  << what;
            } else {
              EXPECT_EQ(lines["gradients"], kept + 2 * most_in_turns) << what;
            }
          });
        }
      }
    }
  }
}

// One step of a small run on as many ranks as its layout has.
void expect_traffic(const RunConfig& config, const std::string& what) {
  const Layout layout = plan_layout(config);
  tessera::run_ranks(layout.mesh.size(), [&](Comm& world) {
    Assembly assembly(config, layout, world, 1);
    SyntheticSource source = source_for(config, assembly);
    const std::unique_ptr<Pipeline> pipeline = assembly.training(source);
    const auto before = assembly.mesh().traffic();
    const StepResult result = pipeline->step(assembly.context(), 0, 1e-3, 1);
    ASSERT_TRUE(std::isfinite(result.loss));
    expect_traffic_of_step(layout, world.rank(), before, assembly.mesh().traffic(), what);
  });
}

TEST(ZeroTraffic, OfAStepIsWhatTheLayoutSays) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  for (const SmallSizes& s : kSizes) {
    for (const int n : {2, 4}) {
      for (const int stage : {1, 2, 3}) {
        for (const bool bf16 : {false, true}) {
          RunConfig config =
              config_of(ModelConfig::LLAMA, false, {fmt::format("dp={}", n), fmt::format("zero_stage={}", stage)}, s);
          config.mutable_run()->set_compute_dtype(RunSection::BF16);
          config.mutable_parallel()->set_gradient_wire(bf16 ? "bf16" : "full");
          expect_traffic(config,
                         fmt::format("{} layers, {} ranks, stage {}, {}", s.layers, n, stage, bf16 ? "bf16" : "full"));
        }
      }
    }
  }
}

// Stage 0's messages lie as its gradients do, and a tied table is added up where its two copies are.
TEST(ZeroTraffic, OfEveryFamilyTieAndScheduleIsWhatTheLayoutSays) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  const std::vector<std::vector<std::string>> layouts = {
      {"dp=4", "zero_group=2"},
      {"pp=2", "dp=3", "schedule=zb-h1"},
      {"tp=2", "pp=2", "dp=2", "schedule=interleaved", "recompute=full"},
      {"pp=2", "dp=2", "schedule=zb-v", "recompute=selective"},
      {"pp=3", "dp=2", "schedule=gpipe"},
  };
  for (const ModelConfig::Family family : {ModelConfig::LLAMA, ModelConfig::GPT2}) {
    for (const bool tied : {false, true}) {
      for (const std::vector<std::string>& layout : layouts) {
        for (const int stage : {0, 1, 2, 3}) {
          std::vector<std::string> fields = layout;
          if (stage == 0) std::erase(fields, "zero_group=2");
          fields.push_back(fmt::format("zero_stage={}", stage));
          const bool thirds = layout[1] == "dp=3";
          const RunConfig config = config_of(family, tied, fields, {.layers = 4, .batch = thirds ? 6 : 8});
          expect_traffic(config, fmt::format("{} {} {}", ModelConfig::Family_Name(family), tied ? "tied" : "untied",
                                             fmt::join(fields, " ")));
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera::testing
