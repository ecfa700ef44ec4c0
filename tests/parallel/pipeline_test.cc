// The interpreter, with stages, a source and a reducer that write down what they are asked. What stages hand each other
// is a number that tells which stages it went through.
#include "parallel/pipeline.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "parallel/schedule/blocks.h"
#include "parallel/schedule/generate.h"
#include "parallel/schedule/passes.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"
#include "tests/parallel/fake_pipeline.h"
#include "tests/support/ranks.h"

namespace tessera {
namespace {

TEST(Pipeline, DoesWhatTheScheduleSays) {
  testing::run_ranks(1, [](Comm& world) {
    Log log;
    Mesh mesh(world, {});
    FakeSource source(log, 2, 10);
    FakeStage stage(log, source, 0, 1, 1, 3.0);
    FakeReducer reducer(log, 0.5);
    Pipeline pipeline(mesh, {&stage}, source, &reducer,
                      alone(2, "F0 B0 W0 F1:0-1 F1:1- C1:1- B1:1- W1:1- B1:0-1 W1:0-1 R N S"));
    Context context({});
    const StepResult result = pipeline.step(context, 40, 0.25, 7);
    EXPECT_EQ(log.lines, (std::vector<std::string>{"begin", "load 40", "F0 slot 0", "B0 slot 0", "W0 slot 0",
                                                   "F1:0-1 slot 0", "F1:1-2 slot 0", "C1:1-2 slot 0", "B1:1-2 slot 0",
                                                   "W1:1-2 slot 0", "B1:0-1 slot 0", "W1:0-1 slot 0", "reduce 0:0-2",
                                                   "norm", "step 7 rate 0.250000"}));
    EXPECT_EQ(result.targets, 10);
    EXPECT_DOUBLE_EQ(result.loss, 0.6);
    EXPECT_EQ(result.gradient_norm, 0.5);
    EXPECT_EQ(pipeline.bytes().messages, 0);
  });
}

// Sharded weights and gradients: what a GATHER is for, and which REDUCE is the last, is read off the list.
TEST(Pipeline, GathersReleasesAndReduces) {
  testing::run_ranks(1, [](Comm& world) {
    Log log;
    Mesh mesh(world, {});
    FakeSource source(log, 2, 1);
    FakeStage stage(log, source, 0, 1, 1, 3.0);
    FakeReducer reducer(log, 0.5);
    const std::vector<int> blocks{2};
    const PipelineSchedule compute = alone(2, "F0 B0 W0 F1 B1 W1");
    Pipeline pipeline(
        mesh, {&stage}, source, &reducer,
        append_step(insert_gathers(insert_reductions(compute, blocks, 1, ReduceOf::EachMicrobatch), blocks)));
    Context context({});
    pipeline.step(context, 0, 0.0, 1);
    std::vector<std::string> reducer_calls;
    for (const std::string& line : log.lines) {
      for (const char* what : {"gather", "release", "reduce"}) {
        if (line.starts_with(what)) reducer_calls.push_back(line);
      }
    }
    EXPECT_EQ(reducer_calls,
              (std::vector<std::string>{
                  "gather 0:0-1 for forward", "gather 0:1-2 for forward", "release 0:0-1", "gather 0:0-1 for forward",
                  "release 0:1-2", "reduce 0:1-2 not last", "reduce 0:0-1 not last", "gather 0:1-2 for forward",
                  "release 0:0-1", "gather 0:0-1", "release 0:1-2", "reduce 0:1-2", "release 0:0-1", "reduce 0:0-1"}));

    log.lines.clear();
    Pipeline evaluation(mesh, {&stage}, source, &reducer, forward_only_schedule({0}, 2, 1, blocks));
    evaluation.evaluate(context, 0, 1, 2);
    EXPECT_EQ(std::count(log.lines.begin(), log.lines.end(), "gather 0:1-2 for forward"), 2);
    EXPECT_THROW(Pipeline(mesh, {&stage}, source, nullptr, forward_only_schedule({0}, 2, 1, blocks)), InternalError);
  });
}

// What GATHER and REDUCE have under way is asked for right before the actions that need it.
TEST(Pipeline, WaitsForWeightsAndGradientsWhereTheyAreNeeded) {
  testing::run_ranks(1, [](Comm& world) {
    Log log;
    Mesh mesh(world, {});
    FakeSource source(log, 1, 1);
    FakeStage stage(log, source, 0, 1, 1, 3.0);
    FakeReducer reducer(log, 0.5);
    reducer.tells_needs = true;
    Pipeline pipeline(mesh, {&stage}, source, &reducer,
                      alone(1,
                            "G:0-1 G:1- F0 X:0-1 C0:1- B0:1- W0:1- X:1- G:0-1 "
                            "B0:0-1 X:0-1 W0:0-1 R N S"));
    Context context({});
    pipeline.step(context, 0, 0.0, 1);
    EXPECT_EQ(std::vector<std::string>(log.lines.begin() + 2, log.lines.end() - 3),
              (std::vector<std::string>{"gather 0:0-1 for forward", "gather 0:1-2 for forward", "weights 0:0-2",
                                        "F0 slot 0", "release 0:0-1", "weights 0:1-2", "C0:1-2 slot 0", "weights 0:1-2",
                                        "gradients 0:1-2", "B0:1-2 slot 0", "W0:1-2 slot 0", "gradients 0:1-2",
                                        "release 0:1-2", "gather 0:0-1", "weights 0:0-1", "B0:0-1 slot 0",
                                        "release 0:0-1", "gradients 0:0-1", "W0:0-1 slot 0"}));
  });
}

// Both gradients are one call where they are of the same blocks and nothing lies between, and only there.
TEST(Pipeline, BackwardsInARowAreOneCall) {
  const std::pair<const char*, int> lists[] = {{"F0 F1 B0 W0 B1 W1 R N S", 2},
                                               {"F0 F1 B0 B1 W0 W1 R N S", 0},
                                               {"F0 F1 B0:1- W0:1- B0:0-1 W0:0-1 B1 W1:1- W1:0-1 R N S", 2},
                                               {"F0 B0 F1 W0 B1 W1 R N S", 1}};
  for (const auto& [list, in_a_row] : lists) {
    testing::run_ranks(1, [&](Comm& world) {
      Log log;
      Mesh mesh(world, {});
      FakeSource source(log, 2, 1);
      FakeStage stage(log, source, 0, 1, 2, 0.0);
      FakeReducer reducer(log, 0.0);
      Pipeline pipeline(mesh, {&stage}, source, &reducer, alone(2, list));
      Context context({});
      pipeline.step(context, 0, 0.0, 1);
      EXPECT_EQ(stage.in_a_row, in_a_row) << list;
      EXPECT_EQ(stage.weight_gradients, (std::vector<double>{1000, 11000})) << list;
    });
  }
}

// An observer hears of every action on a stage once, and has both gradients apart.
TEST(Pipeline, TellsHowLongActionsTook) {
  testing::run_ranks(1, [&](Comm& world) {
    Log log;
    Mesh mesh(world, {});
    FakeSource source(log, 2, 1);
    FakeStage stage(log, source, 0, 1, 2, 0.0);
    FakeReducer reducer(log, 0.0);
    Pipeline pipeline(mesh, {&stage}, source, &reducer, alone(2, "F0 F1 B0 W0 B1 W1 R N S"));
    Context context({});
    std::string heard;
    pipeline.observe([&](const Action& action, double seconds) {
      heard += to_string(Schedule{action}) + " ";
      EXPECT_GE(seconds, 0);
    });
    pipeline.step(context, 0, 0.0, 1);
    EXPECT_EQ(heard, "F0 F1 B0 W0 B1 W1 ");
    EXPECT_EQ(stage.in_a_row, 0);
    EXPECT_EQ(stage.weight_gradients, (std::vector<double>{1000, 11000}));
    pipeline.observe(nullptr);
    pipeline.step(context, 0, 0.0, 2);
    EXPECT_EQ(heard, "F0 F1 B0 W0 B1 W1 ");
    EXPECT_EQ(stage.in_a_row, 2);
  });
}

TEST(Pipeline, AMicrobatchKeepsItsSlot) {
  testing::run_ranks(1, [](Comm& world) {
    Log log;
    Mesh mesh(world, {});
    FakeSource source(log, 4, 1);
    FakeStage stage(log, source, 0, 1, 3, 0.0);
    FakeReducer reducer(log, 0.0);
    Pipeline pipeline(mesh, {&stage}, source, &reducer, alone(4, "F0 F1 F2 B0 B1 W0 F3 B2 W1 W2 B3 W3 R N S"));
    Context context({});
    for (int step = 1; step <= 2; ++step) {
      log.lines.clear();
      pipeline.step(context, 0, 0.0, step);
      // F3 takes the slot that W0 freed.
      EXPECT_EQ(
          std::vector<std::string>(log.lines.begin() + 2, log.lines.end() - 3),
          (std::vector<std::string>{"F0 slot 0", "F1 slot 1", "F2 slot 2", "B0 slot 0", "B1 slot 1", "W0 slot 0",
                                    "F3 slot 0", "B2 slot 2", "W1 slot 1", "W2 slot 2", "B3 slot 0", "W3 slot 0"}));
    }
  });
}

// A microbatch that was offloaded comes back, in whatever slot is free, as it was.
TEST(Pipeline, OffloadsAndFetches) {
  testing::run_ranks(1, [](Comm& world) {
    Log log;
    Mesh mesh(world, {});
    FakeSource source(log, 2, 1);
    FakeStage stage(log, source, 0, 1, 1, 0.0);
    FakeReducer reducer(log, 0.0);
    Pipeline pipeline(mesh, {&stage}, source, &reducer, alone(2, "F0 O0 F1 O1 I0 B0 W0 I1 B1 W1 R N S"));
    EXPECT_EQ(pipeline.bytes().offloaded, 2 * Arena::kAlignment);
    Context context({});
    pipeline.step(context, 0, 0.0, 1);
    EXPECT_EQ(stage.gradients, (std::vector<double>{1000, 11000}));
    EXPECT_EQ(stage.weight_gradients, stage.gradients);
    EXPECT_EQ(std::count(log.lines.begin(), log.lines.end(), "restored0 slot 0"), 1);
  });
}

TEST(Pipeline, RefusesWhatCannotRun) {
  testing::run_ranks(1, [](Comm& world) {
    Log log;
    Mesh mesh(world, {});
    FakeSource source(log, 2, 1);
    FakeStage stage(log, source, 0, 1, 1, 0.0);
    FakeReducer reducer(log, 0.0);
    const auto make = [&](const PipelineSchedule& schedule, Reducer* r) {
      Pipeline(mesh, {&stage}, source, r, schedule);
    };
    EXPECT_NO_THROW(make(alone(2, "F0 B0 W0 F1 B1 W1 R N S"), &reducer));
    EXPECT_THROW(make(alone(2, "F0 F1 B0 W0 B1 W1 R N S"), &reducer), InternalError);  // two slots
    EXPECT_THROW(make(alone(1, "F0 B0 W0 R N S"), &reducer), InternalError);           // another number of microbatches
    EXPECT_THROW(make(alone(2, "F0 W0 B0 F1 B1 W1 R N S"), &reducer), UsageError);     // a rule of schedules
    EXPECT_THROW(make(accumulation(2), nullptr), InternalError);                       // nobody to reduce
    FakeStage other(log, source, 1, 2, 1, 0.0);
    EXPECT_THROW(Pipeline(mesh, {&other}, source, &reducer, accumulation(2)), InternalError);  // not that stage
    EXPECT_THROW(Pipeline(mesh, {}, source, &reducer, accumulation(2)), InternalError);        // none
  });
  testing::run_ranks(2, [](Comm& world) {
    Log log;
    Mesh mesh(world, {.pp = 2});
    FakeSource source(log, 1, 1);
    FakeStage stage(log, source, 0, 1, 1, 0.0);
    FakeReducer reducer(log, 0.0);
    EXPECT_THROW(Pipeline(mesh, {&stage}, source, &reducer, accumulation(1)), InternalError);  // a schedule of one rank
  });
}

// Every schedule: what a stage sends arrives at the next, and its gradient comes back, in memory that nothing else
// writes to meanwhile.
TEST(Pipeline, StagesHandOnTheirOutputsAndGradients) {
  std::vector<ScheduleSpec> specs;
  for (const char* kind : {"gpipe", "1f1b", "interleaved", "zb-v"}) {
    for (const int ranks : {2, 3, 4}) {
      for (const int microbatches : {1, 2, 5, 8}) {
        specs.push_back({.kind = parse_schedule_kind(kind), .ranks = ranks, .microbatches = microbatches});
      }
    }
  }
  for (const ScheduleSpec& spec : specs) {
    testing::run_ranks(spec.ranks, [&](Comm& world) {
      const PipelineSchedule schedule = generate(spec);
      const ScheduleFigures figures = verify(schedule);
      Log log;
      Mesh mesh(world, {.pp = spec.ranks});
      FakeSource source(log, spec.microbatches, 2);
      FakeReducer reducer(log, 1.0);
      std::vector<std::unique_ptr<FakeStage>> fakes;
      std::vector<Stage*> stages;
      for (int s = 0; s < schedule.stages(); ++s) {
        if (schedule.rank_of_stage[s] != world.rank()) continue;
        fakes.push_back(std::make_unique<FakeStage>(log, source, s, schedule.stages(), figures.stages[s].slots, 6.0));
        stages.push_back(fakes.back().get());
      }
      Pipeline pipeline(mesh, stages, source, &reducer, schedule);
      Pipeline evaluation(mesh, stages, source, nullptr,
                          forward_only_schedule(schedule.rank_of_stage, spec.microbatches,
                                                forward_only_group(schedule.rank_of_stage, figures.stages)));
      Context context({});
      const auto output_of = [&](int stage, int m) {
        double value = m;
        for (int s = 0; s <= stage; ++s) value = 10 * value + s + 1;
        return value;
      };
      const std::string what = std::string(name(spec.kind)) + " " + std::to_string(spec.ranks) + " ranks, " +
                               std::to_string(spec.microbatches) + " microbatches";
      for (int step = 1; step <= 2; ++step) {
        for (auto& fake : fakes) fake->gradients.clear(), fake->weight_gradients.clear();
        const StepResult result = pipeline.step(context, 0, 0.1, step);
        EXPECT_DOUBLE_EQ(result.loss, 3.0 * spec.microbatches);
        EXPECT_EQ(result.targets, 2);
        for (auto& fake : fakes) {
          std::vector<double> expected;
          for (int m = 0; m < spec.microbatches; ++m) {
            const int last = schedule.stages() - 1;
            expected.push_back(1000 * output_of(last, m) + last - fake->index());
          }
          EXPECT_EQ(fake->gradients, expected) << what << " stage " << fake->index();
          EXPECT_EQ(fake->weight_gradients, expected) << what << " stage " << fake->index();
          fake->gradients.clear();
        }
        const EvaluationResult evaluated = evaluation.evaluate(context, 0, 2, 8);
        EXPECT_DOUBLE_EQ(evaluated.loss, 3.0 * spec.microbatches) << what;
        if (fakes.back()->index() == schedule.stages() - 1) {
          std::vector<double> expected;
          for (int batch = 0; batch < 2; ++batch) {
            for (int m = 0; m < spec.microbatches; ++m) expected.push_back(output_of(schedule.stages() - 1, m));
          }
          EXPECT_EQ(fakes.back()->gradients, expected) << what;
        }
      }
      // Bytes on the wire: a boundary tensor each way for each microbatch and border that this rank sends over.
      int64_t sent = 0;
      for (const Stage* stage : stages) {
        sent += 2 * (schedule.sends(stage->index()) + schedule.receives(stage->index())) +  // steps
                4 * schedule.sends(stage->index());                                         // evaluations
      }
      EXPECT_EQ(mesh.pp().traffic().bytes_of(Collective::Send), sent * spec.microbatches * 8) << what;
    });
  }
}

// Runs one step on a mesh where every rank has its own loss and targets; body sees result and log.
struct Case {
  MeshShape shape;
  std::function<double(const Mesh&)> loss = [](const Mesh&) { return 1.0; };
  std::function<int64_t(const Mesh&)> targets = [](const Mesh&) { return 4; };
  double norm = 1.0;
};
template <class Body>
void with_ranks(const Case& c, Body body) {
  testing::run_ranks(c.shape.size(), [&](Comm& world) {
    Log log;
    Mesh mesh(world, c.shape);
    FakeSource source(log, 3, c.targets(mesh));
    FakeStage stage(log, source, mesh.coordinate(Axis::Pp), c.shape.pp, 3, c.loss(mesh));
    FakeReducer reducer(log, c.norm);
    const PipelineSchedule schedule = generate({.ranks = c.shape.pp, .microbatches = 3});
    Pipeline pipeline(mesh, {&stage}, source, &reducer, schedule);
    Pipeline evaluation(mesh, {&stage}, source, nullptr, forward_only_schedule(schedule.rank_of_stage, 3));
    Context context({});
    body([&] { return pipeline.step(context, 0, 0.1, 12); }, [&] { return evaluation.evaluate(context, 100, 2, 8); },
         log);
  });
}

TEST(Pipeline, LossIsTheMeanOverAllTargetsAndCountsTpOnce) {
  // Different tokens along dp and cp, the same along tp and pp.
  const auto part = [](const Mesh& mesh) { return 1 + mesh.coordinate(Axis::Dp) * 2 + mesh.coordinate(Axis::Cp); };
  for (const MeshShape shape :
       {MeshShape{.dp = 2, .cp = 2, .tp = 2}, MeshShape{.dp = 2, .tp = 2}, MeshShape{.tp = 2}, MeshShape{.cp = 2},
        MeshShape{.dp = 2}, MeshShape{.pp = 2, .dp = 2}, MeshShape{.pp = 2, .tp = 2}}) {
    int64_t targets = 0;
    double loss = 0;
    for (int dp = 0; dp < shape.dp; ++dp) {
      for (int cp = 0; cp < shape.cp; ++cp) {
        targets += 8 * (1 + dp * 2 + cp);
        loss += 3 * 16.0 * (1 + dp * 2 + cp);  // three microbatches
      }
    }
    with_ranks({.shape = shape,
                .loss = [&](const Mesh& mesh) { return 16.0 * part(mesh); },
                .targets = [&](const Mesh& mesh) { return 8 * part(mesh); }},
               [&](auto step, auto evaluation, Log& log) {
                 const StepResult result = step();
                 EXPECT_EQ(result.targets, targets);
                 EXPECT_DOUBLE_EQ(result.loss, loss / static_cast<double>(targets));
                 log.lines.clear();
                 const EvaluationResult evaluated = evaluation();
                 EXPECT_EQ(evaluated.targets, 2 * targets);
                 EXPECT_DOUBLE_EQ(evaluated.loss, loss / static_cast<double>(targets));
                 EXPECT_EQ(log.lines[0], "load 100");
                 EXPECT_EQ(log.lines[4], "load 108");
                 EXPECT_EQ(log.lines.size(), 8u);
               });
  }
}

template <class Error, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no such error";
}

// The head's loss comes from the last stage alone, the other one from every stage; both are sums over all ranks.
TEST(Pipeline, SumsEachLossByItsName) {
  const MeshShape shape{.pp = 2, .dp = 2, .tp = 2};
  testing::run_ranks(shape.size(), [&](Comm& world) {
    Log log;
    Mesh mesh(world, shape);
    FakeSource source(log, 3, 4);
    FakeStage stage(log, source, mesh.coordinate(Axis::Pp), 2, 3, 16.0);
    stage.balance = 1 + mesh.coordinate(Axis::Pp) + 10 * mesh.coordinate(Axis::Dp);
    FakeReducer reducer(log, 1.0);
    const PipelineSchedule schedule = generate({.ranks = 2, .microbatches = 3});
    Pipeline pipeline(mesh, {&stage}, source, &reducer, schedule);
    Pipeline evaluation(mesh, {&stage}, source, nullptr, forward_only_schedule(schedule.rank_of_stage, 3));
    Context context({});
    const auto expect = [&](const Losses& losses) {
      ASSERT_EQ(losses.all().size(), 2u);
      EXPECT_EQ(losses.all()[0].name, kHeadLoss);
      EXPECT_DOUBLE_EQ(losses.of(kHeadLoss), 3 * 2 * 16.0 / 8);
      EXPECT_DOUBLE_EQ(losses.of("balance"), 3 * (1 + 2 + 11 + 12) / 8.0);
    };
    const StepResult result = pipeline.step(context, 0, 0.1, 1);
    expect(result.losses);
    EXPECT_EQ(result.loss, result.losses.of(kHeadLoss));
    const EvaluationResult evaluated = evaluation.evaluate(context, 0, 1, 6);
    expect(evaluated.losses);
    EXPECT_EQ(evaluated.loss, evaluated.losses.of(kHeadLoss));
    stage.balance = NAN;
    EXPECT_EQ(message_of<NumericalError>([&] {
                pipeline.step(context, 0, 0.1, 2);
              }).find("step 2: the balance is nan; the weights are as they were"),
              0u);
  });
}

TEST(Losses, AddUpByName) {
  Losses losses;
  losses.add("loss", 1);
  losses.add("balance", 2);
  losses.add("loss", 3);
  EXPECT_EQ(losses.all().size(), 2u);
  EXPECT_EQ(losses.of("loss"), 4);
  EXPECT_EQ(losses.of("no such loss"), 0);
  const char* names[] = {"a", "b", "c", "d", "e", "f"};
  for (const char* name : names) losses.add(name, 1);
  EXPECT_THROW(losses.add("one too many", 1), InternalError);
}

TEST(Pipeline, AccountsForItsTime) {
  with_ranks({.shape = {.pp = 2, .dp = 2}}, [](auto step, auto, Log&) {
    const StepTimes times = step().times;
    for (const double part : {times.compute, times.communication, times.bubble, times.data, times.optimizer}) {
      EXPECT_GE(part, 0.0);
    }
    EXPECT_GT(times.bubble, 0.0);
    EXPECT_GT(times.communication, 0.0);
  });
}

TEST(Pipeline, ALossThatIsNotFiniteStopsAllRanksBeforeTheStep) {
  for (const double bad : {static_cast<double>(NAN), std::numeric_limits<double>::infinity()}) {
    // One rank's loss only; all other ranks must throw too.
    for (const MeshShape shape : {MeshShape{.dp = 2, .tp = 2}, MeshShape{.pp = 2, .dp = 2}}) {
      with_ranks({.shape = shape, .loss = [&](const Mesh& mesh) { return mesh.coordinate(Axis::Dp) == 1 ? bad : 1.0; }},
                 [&](auto step, auto evaluation, Log& log) {
                   const std::string error = message_of<NumericalError>(step);
                   EXPECT_EQ(error.find("step 12: the loss is"), 0u) << error;
                   EXPECT_EQ(log.lines.back(), "norm");
                   EXPECT_THROW(evaluation(), NumericalError);
                 });
    }
  }
}

TEST(Pipeline, AGradientNormThatIsNotFiniteStopsAllRanksBeforeTheStep) {
  with_ranks({.shape = {.dp = 2}, .norm = NAN}, [&](auto step, auto, Log& log) {
    EXPECT_EQ(message_of<NumericalError>(step),
              "step 12: the gradient norm is nan; the weights are as they were before it");
    EXPECT_EQ(log.lines.back(), "norm");
    // The next step starts afresh: no slot is left taken.
    EXPECT_THROW(step(), NumericalError);
  });
}

TEST(Pipeline, AStepWithoutTargetsIsADataError) {
  with_ranks({.shape = {.dp = 2}, .targets = [](const Mesh&) { return 0; }}, [&](auto step, auto evaluation, Log& log) {
    EXPECT_EQ(message_of<DataError>(step), "step 12: the samples from 0 on hold no target token");
    EXPECT_EQ(log.lines.back(), "load 0");
    EXPECT_THROW(evaluation(), DataError);
  });
  // None on one rank is ordinary.
  with_ranks({.shape = {.dp = 2}, .targets = [](const Mesh& mesh) { return mesh.coordinate(Axis::Dp) * 4; }},
             [&](auto step, auto, Log&) { EXPECT_EQ(step().targets, 4); });
}

}  // namespace
}  // namespace tessera
