// tessera bench gemm | train | checkpoint: speeds against what the same process measures as possible. No data set is
// needed.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/order/synthetic_source.h"
#include "launch/commands/command.h"
#include "launch/commands/run_arguments.h"
#include "launch/measure/checkpoint_speed.h"
#include "launch/measure/gemm_peak.h"
#include "launch/measure/median.h"
#include "launch/measure/stage_times.h"
#include "launch/metrics/progress.h"
#include "launch/process/host.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "model/cost.h"
#include "parallel/pipeline.h"
#include "scaling/planning/simulate.h"

namespace tessera {
namespace {

struct BenchTrainArguments {
  RunArguments run;
  int steps = 3;
  int microbatches = 1;  // 0: as many as the config's global batch needs
  bool as_json = false;
};

// What a microbatch costs on each stage, as parallel.times takes it, and the step that the simulator makes of it.
void print_stage_times(const StageTimes& times, const PipelineSchedule& schedule, double step_seconds) {
  const Simulation simulation = simulate(schedule, costs_of(times));
  fmt::print(
      "parallel.times {{ forward: \"{}\" backward_input: \"{}\" backward_weight: \"{}\" }}  # seconds, by stage\n",
      times_of(times, &StageCosts::forward), times_of(times, &StageCosts::backward_input),
      times_of(times, &StageCosts::backward_weight));
  const double simulated = simulation.makespan + times.rest;
  fmt::print("{:<34}{:>14.3f}\n", "simulated seconds a step", simulated);
  fmt::print("{:<34}{:>14.3f}\n", "  of the measured step", simulated / step_seconds);
  fmt::print("{:<34}{:>14.4f}\n", "  bubble", simulation.bubble);
}

int bench_train(const BenchTrainArguments& arguments, RunConfig& config, Session& session) {
  Comm& world = session.world;
  if (arguments.microbatches > 0) {
    config.mutable_data()->set_global_batch_size(config.parallel().dp() * config.data().micro_batch_size() *
                                                 arguments.microbatches);
  }
  Assembly parts(config, session);
  const ModelShape& shape = parts.shape();
  SyntheticSource source({.vocab = shape.vocab,
                          .sequence_length = config.data().sequence_length(),
                          .micro_batch_size = config.data().micro_batch_size(),
                          .global_batch_size = config.data().global_batch_size(),
                          .dp = parts.mesh().extent(Axis::Dp),
                          .dp_rank = parts.mesh().coordinate(Axis::Dp),
                          .seed = config.run().seed()});
  const std::unique_ptr<Pipeline> pipeline = parts.training(source);
  const auto peak = [&] { return world.sum(measure_gemm_peak(parts.context(), shape.compute)); };
  // Measured before and after the steps, as a shared machine's speed drifts; the better of the two counts.
  const double peak_before = peak();
  std::vector<double> seconds;
  double loss = 0;
  for (int step = 0; step <= arguments.steps; ++step) {  // the first warms up
    world.barrier();
    const auto start = std::chrono::steady_clock::now();
    const StepResult result = pipeline->step(parts.context(), step * config.data().global_batch_size(),
                                             config.lr_schedule().learning_rate(), step + 1);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (step > 0) seconds.push_back(world.max(took.count()));
    loss = result.loss;
  }
  const double gemm_peak = std::max(peak_before, peak());
  const auto pairs = static_cast<double>(parts.visible_pairs(*pipeline));
  const ProcessMemory memory = process_memory();
  const int stages = parts.schedule().stages();
  StageTimes stage_times;
  if (stages > 1) {
    stage_times = measure_stage_times(parts.context(), parts.mesh(), *pipeline, stages, arguments.steps + 2, 1,
                                      config.data().global_batch_size(), config.lr_schedule().learning_rate());
  }
  const auto used = static_cast<double>(memory.anonymous + memory.shared);
  if (world.rank() != 0) return 0;

  const double step_seconds = median(seconds);
  const double tokens = static_cast<double>(config.data().global_batch_size() * config.data().sequence_length());
  const double flops = step_flops(shape, tokens, pairs).sum();
  const double rate = flops / step_seconds, mfu = rate / gemm_peak;
  const auto arenas = static_cast<double>(parts.arena_bytes());
  fmt::print("{}\n", memory_table(parts.memory()));
  fmt::print("{:<34}{:>14}\n", "ranks x threads", fmt::format("{} x {}", world.size(), session.threads));
  fmt::print("{:<34}{:>14}\n", "compute dtype", name(shape.compute));
  fmt::print("{:<34}{:>14.0f}\n", "tokens a step", tokens);
  fmt::print("{:<34}{:>14.3f}\n", "seconds a step (median)", step_seconds);
  fmt::print("{:<34}{:>14.1f}\n", "tokens per second", tokens / step_seconds);
  fmt::print("{:<34}{:>14.1f}\n", "model GFLOP/s", rate * 1e-9);
  fmt::print("{:<34}{:>14.1f}\n", "matrix-product peak, GFLOP/s", gemm_peak * 1e-9);
  fmt::print("{:<34}{:>14.3f}\n", "MFU", mfu);
  fmt::print("{:<34}{:>14}\n", "arenas of rank 0", format_bytes(arenas));
  fmt::print("{:<34}{:>14}\n", "anonymous + shared memory", format_bytes(used));
  fmt::print("{:<34}{:>14.4f}\n", "loss of the last step", loss);
  if (stages > 1) print_stage_times(stage_times, parts.schedule(), step_seconds);
  if (arguments.as_json) {
    fmt::print("{}\n", nlohmann::json{{"mfu", mfu},
                                      {"tokens_per_second", tokens / step_seconds},
                                      {"gemm_peak_flops", gemm_peak},
                                      {"model_flops_per_second", rate},
                                      {"step_seconds", step_seconds},
                                      {"arena_bytes", parts.arena_bytes()},
                                      {"memory_bytes", memory.anonymous + memory.shared},
                                      {"ranks", world.size()},
                                      {"threads", session.threads},
                                      {"loss", loss}}
                           .dump());
  }
  return 0;
}

struct BenchGemmArguments {
  std::string dtype = "F32";
  int threads = 0;
  bool as_json = false;
};

int bench_gemm(const BenchGemmArguments& arguments) {
  const DType dtype = parse_dtype(arguments.dtype, "--dtype");
  return run_session({.threads = arguments.threads}, [&](Session& session) {
    Context context({.threads = session.threads});
    nlohmann::json sizes = nlohmann::json::array();
    double best = 0;
    const bool speaks = session.world.rank() == 0;
    if (speaks)
      fmt::print("{:>8}{:>14}   ({}, {} x {} threads)\n", "size", "GFLOP/s", name(dtype), session.world.size(),
                 session.threads);
    for (const int64_t size : {512, 1024, 2048, 4096}) {
      const double rate = session.world.sum(measure_gemm(context, dtype, size));
      best = std::max(best, rate);
      sizes.push_back({{"size", size}, {"flops", rate}});
      if (speaks) fmt::print("{:>8}{:>14.1f}\n", size, rate * 1e-9);
    }
    if (speaks && arguments.as_json) {
      fmt::print("{}\n", nlohmann::json{{"gemm_peak_flops", best}, {"sizes", sizes}, {"dtype", name(dtype)}}.dump());
    }
    return 0;
  });
}

struct BenchCheckpointArguments {
  CheckpointSpeedOptions options;
  int64_t mib = 1024;
  int64_t staging_mib = 256;
  int local_ranks = 0;
  bool as_json = false;
};

int bench_checkpoint(BenchCheckpointArguments arguments) {
  arguments.options.bytes = arguments.mib << 20;
  arguments.options.staging_bytes = arguments.staging_mib << 20;
  return run_session({.local_ranks = arguments.local_ranks}, [&](Session& session) {
    const CheckpointSpeed speed = measure_checkpoint_speed(session, arguments.options);
    if (session.world.rank() != 0) return 0;
    const auto bytes = static_cast<double>(speed.bytes);
    const auto line = [&](const char* what, double seconds, double ratio, const char* against) {
      fmt::print("{:<34}{:>10.3f} s{:>10.2f} GB/s{:>10.3f} {}\n", what, seconds, bytes / seconds * 1e-9, ratio,
                 against);
    };
    fmt::print("{} of state on {} ranks, {} of staging\n", format_bytes(bytes), session.world.size(),
               format_bytes(static_cast<double>(speed.staging_bytes)));
    line("plain write and fsync", speed.plain_write, 1, "");
    line("save", speed.save, speed.plain_write / speed.save, "of plain writing");
    line("asynchronous save", speed.asynchronous, speed.save / speed.asynchronous, "of the save");
    line("  stall, state changes at once", speed.copy_stall, speed.copy_stall / speed.save, "of the save's time");
    line("  stall, state changes later", speed.overlapped_stall, speed.overlapped_stall / speed.save,
         "of the save's time");
    line("plain read", speed.plain_read, 1, "");
    line("load into the same layout", speed.load, speed.plain_read / speed.load, "of plain reading");
    line("load into another layout", speed.load_other, speed.plain_read / speed.load_other, "of plain reading");
    if (arguments.as_json) {
      fmt::print("{}\n", nlohmann::json{{"bytes", speed.bytes},
                                        {"ranks", session.world.size()},
                                        {"staging_bytes", speed.staging_bytes},
                                        {"plain_write_seconds", speed.plain_write},
                                        {"save_seconds", speed.save},
                                        {"asynchronous_seconds", speed.asynchronous},
                                        {"copy_stall_seconds", speed.copy_stall},
                                        {"overlapped_stall_seconds", speed.overlapped_stall},
                                        {"plain_read_seconds", speed.plain_read},
                                        {"load_seconds", speed.load},
                                        {"load_other_seconds", speed.load_other},
                                        {"write_ratio", speed.plain_write / speed.save},
                                        {"load_ratio", speed.plain_read / speed.load},
                                        {"load_other_ratio", speed.plain_read / speed.load_other},
                                        {"stall_ratio", speed.overlapped_stall / speed.save},
                                        {"copy_stall_ratio", speed.copy_stall / speed.save}}
                             .dump());
    }
    return 0;
  });
}

}  // namespace

void add_bench(CLI::App& program, Selected& selected) {
  CLI::App* command = program.add_subcommand("bench", "Measure speeds of this machine and of a config on it");
  command->require_subcommand(1);

  const auto train = std::make_shared<BenchTrainArguments>();
  CLI::App* train_command = command->add_subcommand("train", "Training steps on random tokens");
  train->run.add_to(*train_command);
  train_command->add_option("--steps", train->steps, "Measured steps, after one that warms up")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  train_command
      ->add_option("--microbatches", train->microbatches,
                   "Microbatches of a step on each data-parallel rank; 0: what the config's global batch needs")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  train_command->add_flag("--json", train->as_json, "Last line: one JSON object");
  train_command->callback([train, &selected] {
    selected = [train] {
      return run_with_config(train->run, Surroundings::Data::NotNeeded,
                             [&](RunConfig& config, Session& session) { return bench_train(*train, config, session); });
    };
  });

  const auto gemm = std::make_shared<BenchGemmArguments>();
  CLI::App* gemm_command = command->add_subcommand("gemm", "Square matrix products");
  gemm_command->add_option("--dtype", gemm->dtype, "F32, BF16 or F64")->capture_default_str();
  gemm_command->add_option("--threads", gemm->threads, "Of a rank; 0: an equal share of the cores");
  gemm_command->add_flag("--json", gemm->as_json, "Last line: one JSON object");
  gemm_command->callback([gemm, &selected] { selected = [gemm] { return bench_gemm(*gemm); }; });

  const auto saves = std::make_shared<BenchCheckpointArguments>();
  CLI::App* saves_command =
      command->add_subcommand("checkpoint", "Saving and loading, against plain files on the same disk");
  saves_command->add_option("DIR", saves->options.directory, "A directory on that disk; what is written is removed")
      ->required();
  saves_command->add_option("--mib", saves->mib, "Size of the state, over all ranks")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  saves_command->add_option("--staging-mib", saves->staging_mib, "Staging memory of each rank")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  saves_command->add_option("--repeats", saves->options.repeats, "Measurements of each, after one that warms up")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  saves_command->add_option("--local-ranks", saves->local_ranks, "Ranks as threads of this process; 0: as launched");
  saves_command->add_flag("--json", saves->as_json, "Last line: one JSON object");
  saves_command->callback([saves, &selected] { selected = [saves] { return bench_checkpoint(*saves); }; });
}

}  // namespace tessera
