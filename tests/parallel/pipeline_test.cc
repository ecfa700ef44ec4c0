// The interpreter, with a stage, a source and a reducer that write down what they are asked.
#include "parallel/pipeline.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/ranks.h"

namespace tessera {
namespace {

struct Log {
  std::vector<std::string> lines;
  void operator()(const std::string& line) { lines.push_back(line); }
};

// Microbatch m has `slots` tokens, whose targets are counted.
class FakeSource : public Source {
 public:
  FakeSource(Log& log, int microbatches, int64_t targets) : log_(log), batches_(microbatches), targets_(targets) {}
  void load(int64_t first_sample) override { log_("load " + std::to_string(first_sample)); }
  int microbatches() const override { return static_cast<int>(batches_.size()); }
  const Batch& batch(int m) const override { return batches_.at(m); }
  int64_t targets() const override { return targets_; }
  int index_of(const Batch& batch) const { return static_cast<int>(&batch - batches_.data()); }

 private:
  Log& log_;
  std::vector<Batch> batches_;
  int64_t targets_;
};

class FakeStage : public Stage {
 public:
  FakeStage(Log& log, const FakeSource& source, int slots, double loss)
      : log_(log), source_(source), slots_(slots), loss_(loss) {}
  int slots() const override { return slots_; }
  double forward(Context&, const Batch& batch, int slot, double loss_scale) override {
    note("F", batch, slot);
    return loss_ * loss_scale;
  }
  void backward_input(Context&, const Batch& batch, int slot) override { note("B", batch, slot); }
  void backward_weight(Context&, const Batch& batch, int slot) override { note("W", batch, slot); }
  double evaluate(Context&, const Batch& batch, double loss_scale) override {
    note("E", batch, -1);
    return loss_ * loss_scale;
  }
  Parameters& parameters() override { return parameters_; }

 private:
  void note(const char* what, const Batch& batch, int slot) {
    log_(what + std::to_string(source_.index_of(batch)) + (slot < 0 ? "" : " slot " + std::to_string(slot)));
  }

  Log& log_;
  const FakeSource& source_;
  int slots_;
  double loss_;  // summed over a microbatch's targets
  Parameters parameters_;
};

class FakeReducer : public Reducer {
 public:
  FakeReducer(Log& log, double norm) : log_(log), norm_(norm) {}
  void begin_step(Context&) override { log_("begin"); }
  void reduce(Context&) override { log_("reduce"); }
  double norm(Context&) override {
    log_("norm");
    return norm_;
  }
  void step(Context&, double learning_rate, int64_t step) override {
    log_("step " + std::to_string(step) + " rate " + std::to_string(learning_rate));
  }
  std::vector<StateSlice> state() override { return {}; }
  void state_loaded(Context&) override {}

 private:
  Log& log_;
  double norm_;
};

TEST(Pipeline, DoesWhatTheScheduleSays) {
  testing::run_ranks(1, [](Comm& world) {
    Log log;
    Mesh mesh(world, {});
    FakeSource source(log, 2, 10);
    FakeStage stage(log, source, 1, 3.0);
    FakeReducer reducer(log, 0.5);
    Pipeline pipeline(mesh, stage, source, reducer, accumulation_schedule(2));
    Context context({});
    const StepResult result = pipeline.step(context, 40, 0.25, 7);
    EXPECT_EQ(log.lines,
              (std::vector<std::string>{"begin", "load 40", "F0 slot 0", "B0 slot 0", "W0 slot 0", "F1 slot 0",
                                        "B1 slot 0", "W1 slot 0", "reduce", "norm", "step 7 rate 0.250000"}));
    EXPECT_EQ(result.targets, 10);
    EXPECT_DOUBLE_EQ(result.loss, 0.6);
    EXPECT_EQ(result.gradient_norm, 0.5);
  });
}

TEST(Pipeline, AMicrobatchKeepsItsSlot) {
  testing::run_ranks(1, [](Comm& world) {
    Log log;
    Mesh mesh(world, {});
    FakeSource source(log, 4, 1);
    FakeStage stage(log, source, 3, 0.0);
    FakeReducer reducer(log, 0.0);
    const Schedule schedule = parse_schedule("F0 F1 F2 B0 B1 W0 F3 B2 W1 W2 B3 W3 R N S");
    Pipeline pipeline(mesh, stage, source, reducer, schedule);
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

TEST(Pipeline, RefusesWhatCannotRun) {
  testing::run_ranks(1, [](Comm& world) {
    Log log;
    Mesh mesh(world, {});
    FakeSource source(log, 2, 1);
    FakeStage stage(log, source, 1, 0.0);
    FakeReducer reducer(log, 0.0);
    const auto make = [&](const char* text) { Pipeline(mesh, stage, source, reducer, parse_schedule(text)); };
    EXPECT_NO_THROW(make("F0 B0 W0 F1 B1 W1 R N S"));
    EXPECT_THROW(make("F0 F1 B0 W0 B1 W1 R N S"), InternalError);  // two slots
    EXPECT_THROW(make("F0 B0 W0 R N S"), InternalError);           // another number of microbatches
    EXPECT_THROW(make("F0 F1"), InternalError);                    // no step
  });
  testing::run_ranks(2, [](Comm& world) {
    Log log;
    Mesh mesh(world, {.pp = 2});
    FakeSource source(log, 1, 1);
    FakeStage stage(log, source, 1, 0.0);
    FakeReducer reducer(log, 0.0);
    EXPECT_THROW(Pipeline(mesh, stage, source, reducer, accumulation_schedule(1)), UsageError);
  });
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
    FakeStage stage(log, source, 1, c.loss(mesh));
    FakeReducer reducer(log, c.norm);
    Pipeline pipeline(mesh, stage, source, reducer, accumulation_schedule(3));
    Context context({});
    body([&] { return pipeline.step(context, 0, 0.1, 12); },
         [&] { return evaluate(context, mesh, stage, source, 100, 2, 8); }, log);
  });
}

TEST(Pipeline, LossIsTheMeanOverAllTargetsAndCountsTpOnce) {
  // Different tokens along dp and cp, the same along tp.
  const auto part = [](const Mesh& mesh) { return 1 + mesh.coordinate(Axis::Dp) * 2 + mesh.coordinate(Axis::Cp); };
  for (const MeshShape shape : {MeshShape{.dp = 2, .cp = 2, .tp = 2}, MeshShape{.dp = 2, .tp = 2}, MeshShape{.tp = 2},
                                MeshShape{.cp = 2}, MeshShape{.dp = 2}}) {
    int64_t targets = 0;
    double loss = 0;
    for (int dp = 0; dp < shape.dp; ++dp) {
      for (int cp = 0; cp < shape.cp; ++cp) {
        targets += 8 * (1 + dp * 2 + cp);
        loss += 3 * 16.0 * (1 + dp * 2 + cp);  // three microbatches
      }
    }
    with_ranks(
        {.shape = shape,
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
          EXPECT_EQ(log.lines, (std::vector<std::string>{"load 100", "E0", "E1", "E2", "load 108", "E0", "E1", "E2"}));
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

TEST(Pipeline, ALossThatIsNotFiniteStopsAllRanksBeforeTheStep) {
  for (const double bad : {static_cast<double>(NAN), std::numeric_limits<double>::infinity()}) {
    // One rank's loss only; all ranks of the two tensor-parallel groups must throw.
    with_ranks({.shape = {.dp = 2, .tp = 2},
                .loss = [&](const Mesh& mesh) { return mesh.coordinate(Axis::Dp) == 1 ? bad : 1.0; }},
               [&](auto step, auto evaluation, Log& log) {
                 const std::string error = message_of<NumericalError>(step);
                 EXPECT_EQ(error.find("step 12: the loss is"), 0u) << error;
                 EXPECT_EQ(log.lines.back(), "norm");
                 EXPECT_THROW(evaluation(), NumericalError);
               });
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
