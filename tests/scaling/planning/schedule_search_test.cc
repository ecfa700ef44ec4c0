#include "scaling/planning/schedule_search.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <random>

#include "parallel/schedule/generate.h"
#include "parallel/schedule/verify.h"
#include "scaling/planning/simulate.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// All orders of one rank's passes in which each kind is in microbatch order, BACKWARD_INPUT follows FORWARD,
// BACKWARD_WEIGHT follows BACKWARD_INPUT, and at most `limit` microbatches are alive.
std::vector<Schedule> all_orders(int rank, int microbatches, int64_t limit) {
  std::vector<Schedule> all;
  Schedule list;
  const std::function<void(int, int, int)> extend = [&](int f, int b, int w) {
    if (w == microbatches) all.push_back(list);
    const auto with = [&](ActionKind kind, int m, int df, int db, int dw) {
      list.push_back({.kind = kind, .stage = rank, .microbatch = m});
      extend(f + df, b + db, w + dw);
      list.pop_back();
    };
    if (f < microbatches && f - w < limit) with(ActionKind::Forward, f, 1, 0, 0);
    if (b < f) with(ActionKind::BackwardInput, b, 0, 1, 0);
    if (w < b) with(ActionKind::BackwardWeight, w, 0, 0, 1);
  };
  extend(0, 0, 0);
  return all;
}

// The least makespan of all combinations of orders; infinite if none runs.
double exhaustive(int ranks, int microbatches, const ScheduleCosts& costs, const std::vector<int64_t>& limits) {
  std::vector<std::vector<Schedule>> orders;
  for (int r = 0; r < ranks; ++r) orders.push_back(all_orders(r, microbatches, limits[r]));
  PipelineSchedule schedule{.microbatches = microbatches, .rank_of_stage = loop_placement(ranks, 1), .ranks = {}};
  schedule.ranks.resize(ranks);
  double least = std::numeric_limits<double>::infinity();
  const std::function<void(int)> choose = [&](int r) {
    if (r == ranks) {
      try {
        least = std::min(least, simulate(schedule, {.passes = costs}).makespan);
      } catch (const UsageError&) {  // a circle
      }
      return;
    }
    for (const Schedule& order : orders[r]) {
      schedule.ranks[r] = order;
      choose(r + 1);
    }
  };
  choose(0);
  return least;
}

ScheduleCosts random_costs(std::mt19937& random, int stages) {
  const auto real = [&] { return std::uniform_real_distribution<double>(0.5, 3)(random); };
  ScheduleCosts costs{.stages = {}, .latency = std::uniform_int_distribution<int>(0, 1)(random) * 0.3 * real()};
  for (int s = 0; s < stages; ++s) costs.stages.push_back({real(), real(), real()});
  return costs;
}

TEST(ScheduleSearch, TinyCasesEqualExhaustiveSearch) {
  std::mt19937 random(3);
  for (const auto& [ranks, microbatches, rounds] :
       {std::tuple{1, 3, 5}, {2, 2, 40}, {2, 3, 40}, {3, 2, 40}, {3, 3, 2}, {4, 2, 10}}) {
    for (int round = 0; round < rounds; ++round) {
      const ScheduleCosts costs = random_costs(random, ranks);
      std::vector<int64_t> limits;
      for (int r = 0; r < ranks; ++r) limits.push_back(std::uniform_int_distribution<int>(1, microbatches)(random));
      const FoundSchedule found = search_schedule({.rank_of_stage = loop_placement(ranks, 1),
                                                   .microbatches = microbatches,
                                                   .costs = costs,
                                                   .memory = {.stages = {}, .limits = limits}});
      SCOPED_TRACE(fmt::format("{} ranks, {} microbatches, limits {}", ranks, microbatches, fmt::join(limits, " ")));
      EXPECT_TRUE(found.optimal);
      EXPECT_NEAR(found.makespan, exhaustive(ranks, microbatches, costs, limits), 1e-9);
      EXPECT_NEAR(found.makespan, simulate(found.schedule, {.passes = costs}).makespan, 1e-9);
      EXPECT_NO_THROW(verify(append_step(insert_messages(found.schedule)), {.stages = {}, .limits = limits}));
    }
  }
}

TEST(ScheduleSearch, WithoutTheExactPartItIsNear) {
  std::mt19937 random(4);
  double worst = 1;
  for (int round = 0; round < 60; ++round) {
    SearchRequest request{.rank_of_stage = loop_placement(3, 1),
                          .microbatches = 4,
                          .costs = random_costs(random, 3),
                          .memory = {.stages = {}, .limits = {3, 3, 3}}};
    const FoundSchedule exact = search_schedule(request);
    EXPECT_TRUE(exact.optimal);
    request.exact_nodes = 0;
    const FoundSchedule quick = search_schedule(request);
    EXPECT_FALSE(quick.optimal);
    EXPECT_GE(quick.makespan, exact.makespan - 1e-9);
    worst = std::max(worst, quick.makespan / exact.makespan);
  }
  EXPECT_LT(worst, 1.25);
}

TEST(ScheduleSearch, MoreMemoryIsNeverSlowerAndBeatsTheFixedKinds) {
  const int p = 8, m = 24;
  SearchRequest request{.rank_of_stage = loop_placement(p, 1),
                        .microbatches = m,
                        .costs = {.stages = std::vector<StageCosts>(p, {18.522, 18.086, 9.337}), .latency = 0.601},
                        .memory = {},
                        .exact_nodes = 0};
  double before = std::numeric_limits<double>::infinity();
  for (int64_t slots : {4, 8, 12, 15, 16, 24}) {
    request.memory.limits.assign(p, slots);
    const FoundSchedule found = search_schedule(request);
    EXPECT_LE(found.makespan, before + 1e-9) << slots;
    before = found.makespan;
    EXPECT_NO_THROW(verify(append_step(insert_messages(found.schedule)), request.memory));
    for (const auto& [kind, needed] : {std::pair{ScheduleKind::ZbH1, 8}, {ScheduleKind::ZbH2, 15}}) {
      if (slots < needed) continue;
      const PipelineSchedule fixed =
          compute_schedule({.kind = kind, .ranks = p, .microbatches = m, .costs = request.costs});
      EXPECT_LE(found.makespan, simulate(fixed, {.passes = request.costs}).makespan + 1e-9) << slots;
    }
  }
}

TEST(ScheduleSearch, VsAndLoopsAreSearchedToo) {
  for (const auto& [placement, limits] :
       {std::pair{v_placement(4), std::vector<int64_t>{4, 6, 8, 12}}, {loop_placement(4, 3), {15, 18, 24}}}) {
    double before = std::numeric_limits<double>::infinity();
    for (int64_t slots : limits) {
      const SearchRequest request{.rank_of_stage = placement,
                                  .microbatches = 8,
                                  .costs = {},
                                  .memory = {.stages = {}, .limits = std::vector<int64_t>(4, slots)}};
      const FoundSchedule found = search_schedule(request);
      EXPECT_FALSE(found.optimal);
      EXPECT_LE(found.makespan, before + 1e-9) << slots;
      before = found.makespan;
      EXPECT_NO_THROW(verify(append_step(insert_messages(found.schedule)), request.memory));
    }
  }
}

TEST(ScheduleSearch, TooLittleMemoryNamesTheRankAndWhatIsNeeded) {
  const auto complaint = [](const SearchRequest& request) -> std::string {
    try {
      search_schedule(request);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "fine";
  };
  EXPECT_EQ(
      complaint({.rank_of_stage = {0, 1}, .microbatches = 2, .costs = {}, .memory = {.stages = {}, .limits = {1, 0}}}),
      "schedule search: rank 1 has memory for 0 slots (microbatches of a stage); 1 are the least that a schedule of 1 "
      "stages a rank needs there");
  EXPECT_NE(complaint({.rank_of_stage = v_placement(8),
                       .microbatches = 20,
                       .costs = {},
                       .memory = {.stages = {}, .limits = std::vector<int64_t>(8, 5)}})
                .find("8 are the least"),
            std::string::npos);
}

}  // namespace
}  // namespace tessera
