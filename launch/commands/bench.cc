// tessera bench gemm | train | checkpoint: speeds against what the same process measures as possible. No data set is
// needed.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "data/order/synthetic_source.h"
#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/run_arguments.h"
#include "launch/commands/table.h"
#include "launch/config/run_layout.h"
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
void report_stage_times(const StageTimes& times, const PipelineSchedule& schedule, double step_seconds, Facts& facts) {
  const Simulation simulation = simulate(schedule, costs_of(times));
  fmt::print(
      "parallel.times {{ forward: \"{}\" backward_input: \"{}\" backward_weight: \"{}\" }}  # seconds, by stage\n",
      times_of(times, &StageCosts::forward), times_of(times, &StageCosts::backward_input),
      times_of(times, &StageCosts::backward_weight));
  const double simulated = simulation.makespan + times.rest;
  facts.add("simulated_step_seconds", real(simulated, ".3f", "s"),
            fmt::format("{:.3f} of the measured step", simulated / step_seconds));
  facts.add("bubble", real(simulation.bubble, ".4f"), "share of the simulated step that ranks wait");
}

int bench_train(const BenchTrainArguments& arguments, RunConfig& config, const Layout& planned, Session& session) {
  Comm& world = session.world;
  if (arguments.microbatches > 0) {
    config.mutable_data()->set_global_batch_size(config.parallel().dp() * config.data().micro_batch_size() *
                                                 arguments.microbatches);
  }
  const Layout layout = arguments.microbatches > 0 ? plan_layout(config) : planned;
  Assembly parts(config, layout, session);
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
  if (world.rank() != 0) return 0;

  const double step_seconds = median(seconds);
  const double tokens = static_cast<double>(config.data().global_batch_size() * config.data().sequence_length());
  const double flops = step_flops(shape, tokens, pairs).sum();
  const double rate = flops / step_seconds, mfu = rate / gemm_peak;
  fmt::print("{}\n", memory_table(parts.memory()));
  Facts facts;
  facts.add("ranks", world.size())
      .add("threads", session.threads, "of each rank")
      .add("compute_dtype", name(shape.compute))
      .add("tokens_per_step", static_cast<int64_t>(tokens))
      .add("step_seconds", real(step_seconds, ".3f", "s"), fmt::format("median of {}", seconds.size()))
      .add("tokens_per_second", {tokens / step_seconds, with_thousands(std::llround(tokens / step_seconds))})
      .add("model_flops_per_second", real(rate, ".1f", "GFLOP/s", 1e-9))
      .add("gemm_peak_flops", real(gemm_peak, ".1f", "GFLOP/s", 1e-9), "of square matrix products")
      .add("mfu", real(mfu, ".3f"), "model_flops_per_second / gemm_peak_flops")
      .add("arena_bytes", bytes(parts.arena_bytes()), "of rank 0")
      .add("memory_bytes", bytes(memory.anonymous + memory.shared), "of rank 0: anonymous and shared")
      .add("loss", real(loss, ".4f"), "of the last step");
  if (stages > 1) report_stage_times(stage_times, parts.schedule(), step_seconds, facts);
  facts.print();
  if (arguments.as_json) print_json(facts.json());
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
    double best = 0;
    const bool speaks = session.world.rank() == 0;
    if (speaks)
      fmt::print("square matrix products in {}, {} x {} threads\n", name(dtype), session.world.size(), session.threads);
    Table sizes({{"size", Column::Align::Right, 8}, {"flops", Column::Align::Right, 18}},
                speaks ? Table::Printing::Rows : Table::Printing::Silent);
    for (const int64_t size : {512, 1024, 2048, 4096}) {
      const double rate = session.world.sum(measure_gemm(context, dtype, size));
      best = std::max(best, rate);
      sizes.add({size, real(rate, ".1f", "GFLOP/s", 1e-9)});
    }
    if (speaks && arguments.as_json)
      print_json(Json::Object{{"gemm_peak_flops", best}, {"sizes", sizes.json()}, {"dtype", name(dtype)}});
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
    const auto rate = [&](double seconds) {
      return fmt::format("{:.2f} GB/s", static_cast<double>(speed.bytes) / seconds * 1e-9);
    };
    Facts facts;
    facts.add("bytes", bytes(speed.bytes), "of state, over all ranks")
        .add("ranks", session.world.size())
        .add("staging_bytes", bytes(speed.staging_bytes), "of each rank")
        .add("plain_write_seconds", real(speed.plain_write, ".3f", "s"), rate(speed.plain_write) + ", with fsync")
        .add("save_seconds", real(speed.save, ".3f", "s"), rate(speed.save))
        .add("asynchronous_seconds", real(speed.asynchronous, ".3f", "s"), rate(speed.asynchronous))
        .add("copy_stall_seconds", real(speed.copy_stall, ".3f", "s"), "training waits, when the state changes at once")
        .add("overlapped_stall_seconds", real(speed.overlapped_stall, ".3f", "s"), "when it changes later")
        .add("plain_read_seconds", real(speed.plain_read, ".3f", "s"), rate(speed.plain_read))
        .add("load_seconds", real(speed.load, ".3f", "s"), rate(speed.load) + ", into the same layout")
        .add("load_other_seconds", real(speed.load_other, ".3f", "s"), rate(speed.load_other) + ", into another layout")
        .add("write_ratio", real(speed.plain_write / speed.save, ".3f"), "speed of a save, of plain writing")
        .add("load_ratio", real(speed.plain_read / speed.load, ".3f"), "of a load, of plain reading")
        .add("load_other_ratio", real(speed.plain_read / speed.load_other, ".3f"), "into another layout")
        .add("stall_ratio", real(speed.overlapped_stall / speed.save, ".3f"), "overlapped stall, of the save's time")
        .add("copy_stall_ratio", real(speed.copy_stall / speed.save, ".3f"), "stall at once, of the save's time");
    facts.print();
    if (arguments.as_json) print_json(facts.json());
    return 0;
  });
}

}  // namespace

void add_bench(Command& program) {
  Command command = program.add_group("bench", "Measure speeds of this machine and of a config on it");

  const auto train = std::make_shared<BenchTrainArguments>();
  Command train_command = command.add_command("train", "Training steps on random tokens");
  train->run.add_to(train_command);
  train_command.add_option("--steps", &train->steps, "Measured steps, after one that warms up")
      .shows_default()
      .positive();
  train_command
      .add_option("--microbatches", &train->microbatches,
                  "Microbatches of a step on each data-parallel rank; 0: what the config's global batch needs")
      .shows_default()
      .not_negative();
  train_command.add_json(train->as_json);
  train_command.runs([train] {
    return run_with_config(train->run, Surroundings::Data::NotNeeded,
                           [&](RunConfig& config, const Layout& layout, Session& session) {
                             return bench_train(*train, config, layout, session);
                           });
  });

  const auto gemm = std::make_shared<BenchGemmArguments>();
  Command gemm_command = command.add_command("gemm", "Square matrix products");
  gemm_command.add_option("--dtype", &gemm->dtype, "F32, BF16 or F64").shows_default();
  gemm_command.add_option("--threads", &gemm->threads, "Of a rank; 0: an equal share of the cores");
  gemm_command.add_json(gemm->as_json);
  gemm_command.runs([gemm] { return bench_gemm(*gemm); });

  const auto saves = std::make_shared<BenchCheckpointArguments>();
  Command saves_command = command.add_command("checkpoint", "Saving and loading, against plain files on the same disk");
  saves_command.add_option("DIR", &saves->options.directory, "A directory on that disk; what is written is removed")
      .required();
  saves_command.add_option("--mib", &saves->mib, "Size of the state, over all ranks").shows_default().positive();
  saves_command.add_option("--staging-mib", &saves->staging_mib, "Staging memory of each rank")
      .shows_default()
      .positive();
  saves_command.add_option("--repeats", &saves->options.repeats, "Measurements of each, after one that warms up")
      .shows_default()
      .positive();
  saves_command.add_option("--local-ranks", &saves->local_ranks, "Ranks as threads of this process; 0: as launched");
  saves_command.add_json(saves->as_json);
  saves_command.runs([saves] { return bench_checkpoint(*saves); });
}

}  // namespace tessera
