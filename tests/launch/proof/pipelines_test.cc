// Every schedule, recomputation, cut into stages and tie against one rank, in F64, with ranks as threads; and the
// faults that the proof must find.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "launch/config/run_layout.h"
#include "launch/proof/layout_proof.h"
#include "launch/run.pb.h"
#include "parallel/reducer_between.h"
#include "tests/launch/proof/planned_run.h"
#include "tests/launch/proof/small_pipeline.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

struct Case {
  const char* name;
  std::vector<std::string> fields;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"gpipe pp2", {"pp=2", "schedule=gpipe"}},
      {"1f1b pp4", {"pp=4"}},
      {"1f1b pp8", {"pp=8"}},
      {"1f1b pp3 with fewer microbatches than stages", {"pp=3", "dp=4"}},
      {"1f1b tp2 pp2", {"tp=2", "pp=2"}},
      {"1f1b pp4 dp2", {"pp=4", "dp=2"}},
      {"1f1b tp2 pp2 dp2", {"tp=2", "pp=2", "dp=2"}},
      {"interleaved pp2", {"pp=2", "schedule=interleaved"}},
      {"interleaved pp2, three chunks", {"pp=2", "schedule=interleaved", "chunks=3"}},
      {"interleaved pp4 dp2 in groups", {"pp=4", "dp=2", "schedule=interleaved", "microbatch_group=2"}},
      {"zb-h1 pp3", {"pp=3", "schedule=zb-h1"}},
      {"zb-h2 pp4", {"pp=4", "schedule=zb-h2"}},
      {"zb-v pp2", {"pp=2", "schedule=zb-v"}},
      {"zb-v tp2 pp2 dp2", {"tp=2", "pp=2", "dp=2", "schedule=zb-v"}},
      {"dualpipe-v pp4", {"pp=4", "schedule=dualpipe-v"}},
      {"v-half pp4", {"pp=4", "schedule=v-half"}},
      {"v-min pp3 dp2", {"pp=3", "dp=2", "schedule=v-min"}},
      {"uneven stages", {"pp=3", "blocks_per_stage=5,1,3"}},
      {"recompute full, one stage", {"pp=1", "recompute=full"}},
      {"recompute selective pp2", {"pp=2", "recompute=selective"}},
      {"recompute full pp2 tp2", {"pp=2", "tp=2", "recompute=full"}},
      {"recompute full, zb-h1", {"pp=2", "schedule=zb-h1", "recompute=full"}},
      {"recompute selective, zb-v", {"pp=2", "schedule=zb-v", "recompute=selective"}},
      {"recompute by blocks, interleaved", {"pp=2", "schedule=interleaved", "recompute=full:0-3,selective:6-8"}},
  };
  return all;
}

class PipelinesTest : public ::testing::TestWithParam<std::tuple<ModelConfig::Family, bool>> {
 protected:
  void SetUp() override {
    if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  }
  RunConfig make(const std::vector<std::string>& fields) const {
    return config_of(std::get<0>(GetParam()), std::get<1>(GetParam()), fields);
  }
};

TEST_P(PipelinesTest, AllComputeWhatOneRankComputes) {
  const RunRecord one = record_planned(make({}), kSteps);
  EXPECT_NE(one.losses.front(), one.losses.back());
  for (const Case& c : cases()) {
    const LayoutDifference difference = compare_runs(one, record_planned(make(c.fields), kSteps));
    EXPECT_TRUE(difference.equal()) << c.name << ": loss " << difference.loss << " norm " << difference.norm
                                    << " gradient " << difference.gradient << " " << difference.first_gradient
                                    << " state " << difference.state << " " << difference.first_state;
  }
}

// Schedules of one layout add the same numbers in the same order.
TEST_P(PipelinesTest, SchedulesOfALayoutAreBitwiseEqual) {
  const std::vector<std::vector<std::string>> groups[] = {
      {{"pp=2", "schedule=1f1b"},
       {"pp=2", "schedule=gpipe"},
       {"pp=2", "schedule=zb-h1"},
       {"pp=2", "schedule=zb-h2"},
       {"pp=2", "schedule=gpipe", "recompute=full"}},
      {{"pp=2", "schedule=zb-v"},
       {"pp=2", "schedule=dualpipe-v"},
       {"pp=2", "schedule=v-half"},
       {"pp=2", "schedule=v-min"}},
      {{"pp=2", "dp=2", "tp=2", "schedule=1f1b"}, {"pp=2", "dp=2", "tp=2", "schedule=gpipe"}},
      {{"tp=2"}, {"tp=2", "overlap=false"}, {"tp=2", "recompute=full"}},
      {{"pp=2", "tp=2", "schedule=zb-h1"}, {"pp=2", "tp=2", "overlap=false"}},
      {{"pp=2", "schedule=interleaved"}, {"pp=2", "schedule=interleaved", "microbatch_group=4"}},
  };
  for (const auto& group : groups) {
    const RunRecord first = record_planned(make(group.front()), kSteps);
    for (const auto& fields : group) {
      const RunRecord other = record_planned(make(fields), kSteps);
      const std::string what = fmt::format("{}", fmt::join(fields, " "));
      EXPECT_EQ(other.losses, first.losses) << what;
      EXPECT_EQ(other.norms, first.norms) << what;
      EXPECT_EQ(other.gradients, first.gradients) << what;
      EXPECT_EQ(other.state, first.state) << what;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, PipelinesTest,
                         ::testing::Combine(::testing::Values(ModelConfig::LLAMA, ModelConfig::GPT2),
                                            ::testing::Values(false, true)),
                         [](const auto& test) {
                           return ModelConfig::Family_Name(std::get<0>(test.param)) +
                                  (std::get<1>(test.param) ? "_tied" : "_untied");
                         });

// Faults that one layout has and another has not.

// Passes everything on.
class SourceBetween : public Source {
 public:
  explicit SourceBetween(Source& source) : source_(source) {}
  void load(int64_t first_sample) override { source_.load(first_sample); }
  int microbatches() const override { return source_.microbatches(); }
  const Batch& batch(int m) const override { return source_.batch(m); }
  int64_t targets() const override { return source_.targets(); }

 protected:
  Source& source_;
};

// Leaves out the reduction of the last block of stage 1.
class ForgetsABlock : public ReducerBetween {
 public:
  using ReducerBetween::ReducerBetween;
  void reduce(Context& context, int stage, BlockRange blocks, ReduceTurn turn) override {
    reducer_.reduce(context, stage, stage == 1 ? BlockRange{blocks.first, blocks.last - 1} : blocks, turn);
  }
};

class SwapsTwoMicrobatches : public SourceBetween {
 public:
  using SourceBetween::SourceBetween;
  const Batch& batch(int m) const override { return source_.batch(m < 2 ? 1 - m : m); }
};

// Every position is one too many.
class ShiftsPositions : public SourceBetween {
 public:
  using SourceBetween::SourceBetween;
  void load(int64_t first_sample) override {
    source_.load(first_sample);
    positions_.resize(microbatches());
    batches_.resize(microbatches());
    for (int m = 0; m < microbatches(); ++m) {
      batches_[m] = source_.batch(m);
      positions_[m].assign(batches_[m].position.begin(), batches_[m].position.end());
      for (int32_t& position : positions_[m]) ++position;
      batches_[m].position = positions_[m];
    }
  }
  const Batch& batch(int m) const override { return batches_.at(m); }

 private:
  std::vector<std::vector<int32_t>> positions_;
  std::vector<Batch> batches_;
};

class PlantedFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  }
  static LayoutDifference difference(const std::vector<std::string>& fields, const Interference& fault) {
    const auto make = [](const std::vector<std::string>& f) { return config_of(ModelConfig::GPT2, true, f); };
    return compare_runs(record_planned(make({}), kSteps), record_planned(make(fields), kSteps, fault));
  }
};

TEST_F(PlantedFaults, NoneIsFoundWhereThereIsNone) {
  EXPECT_TRUE(difference({"pp=2", "dp=2"},
                         {.source = [](Source& source, Mesh&) { return std::make_unique<SourceBetween>(source); },
                          .reducer = [](Reducer& reducer, Mesh&) { return std::make_unique<ReducerBetween>(reducer); }})
                  .equal());
}

TEST_F(PlantedFaults, AMissingReductionIsNamed) {
  const LayoutDifference found = difference(
      {"pp=2", "dp=2"},
      {.source = nullptr, .reducer = [](Reducer& reducer, Mesh&) { return std::make_unique<ForgetsABlock>(reducer); }});
  EXPECT_FALSE(found.equal());
  EXPECT_EQ(found.first_step, 1);
  EXPECT_EQ(found.first_gradient, "blocks.8.attention.out") << "the first of the block's parameters, by name";
  EXPECT_GT(found.gradient, 1e-3);
}

TEST_F(PlantedFaults, ASwappedMicrobatchIsNamed) {
  const LayoutDifference found =
      difference({"pp=2"}, {.source = [](Source& source, Mesh& mesh) -> std::unique_ptr<Source> {
                              if (mesh.coordinate(Axis::Pp) == 0) return std::make_unique<SourceBetween>(source);
                              return std::make_unique<SwapsTwoMicrobatches>(source);
                            },
                            .reducer = nullptr});
  EXPECT_FALSE(found.equal());
  EXPECT_GT(found.loss, 1e-6);
  EXPECT_FALSE(found.first_gradient.empty());
}

TEST_F(PlantedFaults, AWrongPositionIsNamed) {
  const LayoutDifference found =
      difference({"tp=2"}, {.source = [](Source& source, Mesh& mesh) -> std::unique_ptr<Source> {
                              if (mesh.coordinate(Axis::Tp) == 0) return std::make_unique<SourceBetween>(source);
                              return std::make_unique<ShiftsPositions>(source);
                            },
                            .reducer = nullptr});
  EXPECT_FALSE(found.equal());
  EXPECT_FALSE(found.first_gradient.empty());
}

}  // namespace
}  // namespace tessera::testing
