// Two settings of one config's parallel section against each other, step by step by turns in one process, so that what
// else the machine does hits both: mpirun -np 2 --bind-to none layout_bench CONFIG STEPS SETTING SETTING [SET ...]
//
//   mpirun -np 2 --bind-to none build/cpu-release/bench/layout_bench configs/demo.textproto 20
//     parallel.overlap=true parallel.overlap=false parallel.tp=2
//
// Prints the median seconds of a step with each, and the median of the ratios of neighbouring steps, with its
// quartiles; for pipelines the ratio that the simulator makes of the times of the actions, which are measured in the
// same process.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "data/order/synthetic_source.h"
#include "launch/config/read.h"
#include "launch/config/resolve.h"
#include "launch/measure/stage_times.h"
#include "launch/process/session.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"

namespace tessera {
namespace {

// One of the two, with everything it needs to run.
class Side {
 public:
  Side(Session& session, const std::string& file, std::vector<std::string> overrides) : world_(session.world) {
    Origins origins;
    overrides.push_back("model.vocab_size=8192");
    read_config(file, overrides, config_, origins);
    config_.mutable_data()->clear_tokenizer();
    const Layout layout =
        resolve(config_, origins, {.world_size = world_.size(), .data = Surroundings::Data::NotNeeded});
    parts_ = std::make_unique<Assembly>(config_, layout, world_, session.threads);
    source_ = std::make_unique<SyntheticSource>(
        SyntheticSource::Options{.vocab = config_.model().vocab_size(),
                                 .sequence_length = config_.data().sequence_length(),
                                 .micro_batch_size = config_.data().micro_batch_size(),
                                 .global_batch_size = config_.data().global_batch_size(),
                                 .dp = parts_->mesh().extent(Axis::Dp),
                                 .dp_rank = parts_->mesh().coordinate(Axis::Dp)});
    pipeline_ = parts_->training(*source_);
  }
  // Seconds of the slowest rank.
  double step() {
    world_.barrier();
    const auto start = std::chrono::steady_clock::now();
    pipeline_->step(parts_->context(), steps_ * config_.data().global_batch_size(), 1e-3, steps_ + 1);
    ++steps_;
    return world_.max(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  bool is_pipeline() const { return parts_->schedule().stages() > 1; }
  // Seconds of a step by the simulator.
  double simulated() {
    constexpr int kSteps = 3;
    const StageTimes times =
        measure_stage_times(parts_->context(), parts_->mesh(), *pipeline_, parts_->schedule().stages(), steps_ + 1,
                            kSteps, config_.data().global_batch_size(), 1e-3);
    steps_ += kSteps;
    return simulate(parts_->schedule(), costs_of(times)).makespan + times.rest;
  }

 private:
  Comm& world_;
  RunConfig config_;
  std::unique_ptr<Assembly> parts_;
  std::unique_ptr<SyntheticSource> source_;
  std::unique_ptr<Pipeline> pipeline_;
  int64_t steps_ = 0;
};

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

int run(int argc, char** argv) {
  if (argc < 5) throw UsageError("layout_bench CONFIG STEPS SETTING SETTING [SET ...]");
  return run_session({}, [&](Session& session) {
    const int steps = std::max(1, std::atoi(argv[2]));
    std::unique_ptr<Side> sides[2];
    for (int i = 0; i < 2; ++i) {
      std::vector<std::string> overrides(argv + 5, argv + argc);
      overrides.emplace_back(argv[3 + i]);
      sides[i] = std::make_unique<Side>(session, argv[1], overrides);
      sides[i]->step();  // warms up
    }
    std::vector<double> seconds[2], ratios;
    for (int step = 0; step < steps; ++step) {
      for (int turn = 0; turn < 2; ++turn) {
        const int i = (step + turn) % 2;  // neither is always first
        seconds[i].push_back(sides[i]->step());
      }
      ratios.push_back(seconds[0].back() / seconds[1].back());
    }
    const bool pipelines = sides[0]->is_pipeline() && sides[1]->is_pipeline();
    double simulated[2] = {};
    for (int i = 0; i < 2 && pipelines; ++i) simulated[i] = sides[i]->simulated();
    if (session.world.rank() == 0) {
      for (int i = 0; i < 2; ++i) fmt::print("{:<40}{:>10.4f} s a step\n", argv[3 + i], quantile(seconds[i], 0.5));
      fmt::print("{:<40}{:>10.4f}   quartiles {:.4f} and {:.4f}, {} pairs\n", "first / second", quantile(ratios, 0.5),
                 quantile(ratios, 0.25), quantile(ratios, 0.75), steps);
      if (pipelines)
        fmt::print("{:<40}{:>10.4f}   {:.4f} and {:.4f} s a step\n", "simulated", simulated[0] / simulated[1],
                   simulated[0], simulated[1]);
    }
    return 0;
  });
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  try {
    return tessera::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "layout_bench: {}\n", error.what());
    return 1;
  }
}
