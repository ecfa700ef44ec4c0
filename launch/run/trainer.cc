#include "launch/run/trainer.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "checkpoint/load.h"
#include "data/order/loader.h"
#include "launch/config/parse.h"
#include "launch/config/text.h"
#include "launch/measure/gemm_peak.h"
#include "launch/process/host.h"
#include "launch/process/version.h"
#include "launch/run.pb.h"
#include "launch/run/host_state.h"
#include "launch/run/tokenizer_file.h"
#include "model/cost.h"
#include "optim/lr_schedule.h"
#include "parallel/comm/agreement.h"
#include "scaling/training_record.pb.h"
#include "tensor/context/runtime.h"
#include "tensor/has_cuda.h"

namespace tessera {
namespace {

// Of a single product when the peak is measured: larger ones would hold up the first line of the run by seconds.
constexpr double kPeakSeconds = 0.2;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string layout_text(const MeshShape& mesh) {
  return fmt::format("pp={} dp={} cp={} tp={}", mesh.pp, mesh.dp, mesh.cp, mesh.tp);
}

// Where a rank runs, and why not on a GPU when the build could.
std::string device_text(const Context& context) {
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return context.cuda().device().name;
    const cuda::Devices devices = cuda::find_devices();
    if (devices.count == 0) return fmt::format("the CPU ({})", devices.reason);
  }
  return "the CPU";
}

// Throws on every rank what rank 0 threw.
void on_rank_zero(Comm& world, FunctionRef<void()> work) {
  together(world, [&] {
    if (world.rank() == 0) work();
  });
}

}  // namespace

Trainer::Trainer(const RunConfig& config, const Layout& layout, Session& session, const TrainOptions& options)
    : config_(config),
      session_(session),
      speaks_(session.world.rank() == 0),
      console_(make_console(speaks_ ? Voice::Speaks : Voice::Silent)),
      directory_(config.run().dir()),
      watchdog_(std::make_unique<Watchdog>(Watchdog::Options{
          .timeout_seconds = config.watchdog().timeout_seconds(), .rank = session.world.rank(), .host = host_name()})) {
  if (!session.warning.empty()) console_->warn(session.warning);
  lock_run_directory();
  parts_ = std::make_unique<Assembly>(config, layout, session);
  abandon_on_failure_ = std::make_unique<AbandonOnFailure>(parts_->link());
  watchdog_->progress("resume", 0);
  std::vector<OpenSource> sources = open_sources(config.data().train());
  std::string fingerprint;
  if (config.data().has_tokenizer()) {
    fingerprint = open_tokenizer(config.data().tokenizer()).fingerprint();
    check_tokenizer(sources, fingerprint);
  }
  if (config.data().verify())
    verify_shards(sources, session.world.rank(), session.world.size(), [this] { watchdog_->progress("verify", 0); });
  resume(options);
  history_.change(position_.samples, config.data().sequence_length(), shares(sources, config.data()));
  loader_ = std::make_unique<Loader>(config.data(), std::move(sources),
                                     LoaderOptions{.seed = seed_,
                                                   .dp_rank = parts_->mesh().coordinate(Axis::Dp),
                                                   .dp_count = parts_->mesh().extent(Axis::Dp),
                                                   .order = Order::Shuffled,
                                                   .history = history_});
  validation_ = open_validation(config, *parts_, config.evaluation().samples(), fingerprint);
  saving_ =
      std::make_unique<Saving>(config.checkpoint(), Saving::Surroundings{.world = session.world,
                                                                         .console = *console_,
                                                                         .run_directory = directory_,
                                                                         .failpoint = options.failpoint,
                                                                         .state = [this] { return settled_state(); },
                                                                         .info = [this] { return save_info(); },
                                                                         .copy = host_copy(parts_->context()),
                                                                         .lost = [this] { return lock_->lost(); }});
  pipeline_ = parts_->training(*loader_, saving_->guard(measured_reducer()));
  progress_ = std::make_unique<Progress>(position_.step, config.run().steps());
}

Trainer::~Trainer() = default;

State Trainer::settled_state() {
  parts_->context().synchronize();
  return state();
}

Reducer& Trainer::measured_reducer() {
  const Schedule& actions = parts_->schedule().ranks[parts_->mesh().coordinate(Axis::Pp)];
  const int64_t every = config_.logging().gradient_noise_every_steps();
  if (every == 0 || config_.parallel().zero_stage() > 0 ||
      !GradientNoise::possible(parts_->mesh(), actions, loader_->microbatches()))
    return parts_->optimizer();
  noise_ = std::make_unique<GradientNoise>(parts_->optimizer(), parts_->mesh(), parts_->parameters(), *loader_, every,
                                           position_.step + 1);
  return *noise_;
}

State Trainer::state() {
  State state;
  state.slices = parts_->state();
  state.cursors.numbers = {{"step", position_.step},
                           {"samples", position_.samples},
                           {"tokens", position_.tokens},
                           {"seed", static_cast<int64_t>(seed_)}};
  state.cursors.texts = {{"data_history", history_.to_text()},
                         {kTokenizerCursor, loader_->sources().front().dataset.tokenizer_fingerprint()}};
  return state;
}

SaveInfo Trainer::save_info() {
  watchdog_->progress("checkpoint", position_.step);
  on_rank_zero(session_.world, [&] { metrics_->sync(); });
  write_record(false);
  SaveInfo info;
  info.step = position_.step;
  info.samples = position_.samples;
  info.tokens = position_.tokens;
  info.layout = layout_text(parts_->mesh().shape());
  info.config = to_text(config_);
  info.versions = {{"tessera", program_version()}};
  return info;
}

void Trainer::resume(const TrainOptions& options) {
  seed_ = config_.run().seed();
  HostState host(parts_->context(), state());
  State& loaded = host.state();
  PosixStorage storage;
  const Found found = tessera::resume(session_.world, storage, checkpoints(), loaded, [&](const CheckpointInfo& info) {
    RunConfig saved;
    Origins origins;
    Problems problems;
    parse_config(info.path + "/config", info.config, saved, origins, problems);
    problems.throw_if_any();
    check_changes(saved, config_, options.allow_change);
  });
  for (const std::string& warning : found.warnings) console_->warn("warning: {}", warning);
  if (!found.checkpoint) return;
  position_ = {.step = loaded.cursors.numbers.at("step"),
               .samples = loaded.cursors.numbers.at("samples"),
               .tokens = loaded.cursors.numbers.at("tokens")};
  history_ = DataHistory::from_text(loaded.cursors.texts.at("data_history"));
  const auto saved_seed = static_cast<uint64_t>(loaded.cursors.numbers.at("seed"));
  if (saved_seed != seed_) {
    console_->warn("warning: run.seed = {}, but the run began with {}: the data order goes on with that", seed_,
                   saved_seed);
    seed_ = saved_seed;
  }
  host.send(parts_->context());
  parts_->optimizer().state_loaded(parts_->context());
  resumed_from_ = position_.step;
}

void Trainer::lock_run_directory() {
  on_rank_zero(session_.world, [&] {
    lock_ = std::make_unique<RunLock>(directory_);
    if (const std::optional<LockHolder>& dead = lock_->taken_from())
      console_->warn("warning: {}: took over the lock of process {} on {}, since {}, which ended without releasing it",
                     directory_, dead->process, dead->host, dead->since);
  });
}

void Trainer::open_run_directory() {
  on_rank_zero(session_.world, [&] {
    std::filesystem::create_directories(directory_);
    std::ofstream file(directory_ + "/config.textproto");
    file << to_text(config_);
    if (!file.flush()) throw IoError("cannot write " + directory_ + "/config.textproto");
    metrics_ = std::make_unique<MetricsLog>(directory_ + "/metrics.jsonl",
                                            resumed_from_ < 0 ? MetricsLog::kFresh : resumed_from_);
    open_record();
    if (config_.logging().tensorboard()) {
      tensorboard_ = std::make_unique<TensorboardWriter>(directory_ + "/tensorboard", resumed_from_);
    }
  });
}

void Trainer::say_what_runs() {
  const Mesh& mesh = parts_->mesh();
  const auto plural = [](int64_t n, const char* thing) { return fmt::format("{} {}{}", n, thing, n == 1 ? "" : "s"); };
  console_->info("{}: {} parameters, {}; a step is {} of {} tokens, in {} x {} on each data-parallel rank",
                 config_.run().name(), parts_->model_parameters(),
                 RunSection::ComputeDtype_Name(config_.run().compute_dtype()),
                 plural(config_.data().global_batch_size(), "sequence"), config_.data().sequence_length(),
                 loader_->microbatches(), config_.data().micro_batch_size());
  console_->info("{} ({}), {} each on {}", plural(session_.world.size(), "rank"), layout_text(mesh.shape()),
                 plural(session_.threads, "thread"), device_text(parts_->context()));
  if (config_.run().cuda_graphs() != CudaGraphs::OFF && parts_->context().device() == Device::Cuda &&
      !parts_->stage(0).records())
    console_->info(
        "run.cuda_graphs = {} records nothing in this layout: with tp or cp above 1 blocks talk to other ranks",
        CudaGraphs::Mode_Name(config_.run().cuda_graphs()));
  std::vector<MemoryLine> memory = parts_->memory();
  if (noise_ && parts_->context().device() == Device::Cuda)
    memory.push_back({"gradient noise", noise_->bytes(), Device::Cuda});
  memory.push_back({"communication", session_.world.staging_bytes()});
  memory.push_back({"checkpoint staging", saving_->staging_bytes()});
  memory.push_back({"data", Loader::bytes(config_.data(), mesh.extent(Axis::Dp))});
  console_->info(memory_table(memory));
  if (resumed_from_ >= 0) {
    console_->info("resumed from {} at step {}", checkpoints(), resumed_from_);
  }
}

void Trainer::train_step() {
  const int64_t step = position_.step + 1;
  watchdog_->progress("step", step);
  const double learning_rate = learning_rate_at(config_.lr_schedule(), step);
  const std::map<std::string, Traffic> before = parts_->mesh().traffic();
  const Clock::time_point start = Clock::now();
  const StepResult result = pipeline_->step(parts_->context(), position_.samples, learning_rate, step);
  const double seconds = seconds_since(start);
  StepMetrics metrics = accounted(result.times, seconds, before);
  position_.step = step;
  position_.samples += config_.data().global_batch_size();
  position_.tokens += result.targets;
  watchdog_->progress("measure", step);
  if (gemm_peak_ == 0 && config_.logging().measure_peak()) {
    gemm_peak_ = session_.world.sum(measure_gemm_peak(parts_->context(), parts_->shape().compute, kPeakSeconds));
  }
  const auto slots = static_cast<double>(config_.data().global_batch_size() * config_.data().sequence_length());
  metrics.attention_pairs = parts_->visible_pairs(*pipeline_);
  const double flops = step_flops(parts_->shape(), slots, static_cast<double>(metrics.attention_pairs)).sum();
  if (noise_ && noise_->measured()) {
    metrics.gradient_square = noise_->measured()->square;
    metrics.gradient_noise = noise_->measured()->noise;
  }
  metrics.step = step;
  metrics.tokens = position_.tokens;
  metrics.loss = result.loss;
  metrics.grad_norm = result.gradient_norm;
  metrics.learning_rate = learning_rate;
  metrics.tokens_per_second = static_cast<double>(result.targets) / seconds;
  metrics.mfu = gemm_peak_ > 0 ? flops / seconds / gemm_peak_ : 0.0;
  metrics.memory_bytes = process_memory().resident;
  log_step(metrics);
}

StepMetrics Trainer::accounted(const StepTimes& times, double seconds,
                               const std::map<std::string, Traffic>& before) const {
  StepMetrics metrics;
  metrics.step_seconds = seconds;
  metrics.compute_seconds = times.compute;
  metrics.bubble_seconds = times.bubble;
  metrics.data_seconds = times.data;
  metrics.optimizer_seconds = times.optimizer;
  metrics.host_seconds = seconds - times.sum();
  for (const auto& [group, now] : parts_->mesh().traffic()) {
    const auto earlier = before.find(group);
    const Traffic use = earlier == before.end() ? now : now - earlier->second;
    if (use.seconds > 0) metrics.traffic[group] = use;
  }
  // The groups do not know of sends that were waited for.
  if (times.sends > 0) metrics.traffic["pp"].seconds += times.sends;
  return metrics;
}

void Trainer::log_step(const StepMetrics& metrics) {
  if (!speaks_) return;
  progress_->observe(metrics);
  metrics_->write(metrics);
  recording_->observe(metrics);
  if (tensorboard_) {
    const Scalar scalars[] = {{"train/loss", metrics.loss},
                              {"train/grad_norm", metrics.grad_norm},
                              {"train/learning_rate", metrics.learning_rate},
                              {"speed/step_seconds", metrics.step_seconds},
                              {"speed/tokens_per_second", metrics.tokens_per_second},
                              {"speed/mfu", metrics.mfu}};
    tensorboard_->write(metrics.step, scalars);
  }
  const int64_t every = config_.logging().every_steps();
  const bool ends = metrics.step == config_.run().steps() || metrics.step == std::max<int64_t>(resumed_from_, 0) + 1;
  if (ends || (every > 0 && metrics.step % every == 0)) console_->info(progress_->line(metrics));
}

void Trainer::evaluate_all() {
  for (ValidationSet& set : validation_) {
    watchdog_->progress("evaluation", position_.step);
    const EvaluationResult result = evaluate(*parts_, config_, set);
    if (!speaks_) continue;
    const EvaluationMetrics metrics{.step = position_.step, .validation_loss = result.loss, .dataset = set.name};
    metrics_->write(metrics);
    recording_->observe(metrics);
    if (tensorboard_) {
      const std::string tag = "validation/" + set.name;
      const Scalar scalar{tag, result.loss};
      tensorboard_->write(position_.step, {&scalar, 1});
    }
    console_->info("step {}  validation loss {:.4f}  ({}, {} tokens)", position_.step, result.loss, set.name,
                   result.targets);
  }
}

void Trainer::open_record() {
  TrainingRecord facts;
  facts.set_name(config_.run().name());
  if (config_.run().has_variant()) facts.set_variant(config_.run().variant());
  facts.set_planned_steps(config_.run().steps());
  const ModelShape& shape = parts_->shape();
  facts.set_tied(shape.tied);
  facts.set_parameters(parts_->model_parameters());
  const TableParameters tables = table_parameters(shape);
  facts.set_embedding_parameters(tables.embedding);
  facts.set_head_parameters(tables.head);
  facts.set_sequence_length(config_.data().sequence_length());
  facts.set_batch_tokens(config_.data().global_batch_size() * config_.data().sequence_length());
  facts.set_learning_rate(config_.lr_schedule().learning_rate());
  facts.set_warmup_steps(config_.lr_schedule().warmup_steps());
  facts.set_seed(seed_);
  facts.set_config_hash(config_hash(config_));
  facts.set_tokenizer(loader_->sources().front().dataset.tokenizer_fingerprint());
  const auto add = [](const OpenSource& source, TrainingRecord::Source& fact) {
    fact.set_name(source.name);
    fact.set_weight(source.weight);
    fact.set_tokens(source.dataset.tokens());
    fact.set_identity(source.dataset.identity());
  };
  for (const OpenSource& source : loader_->sources()) add(source, *facts.add_train());
  for (const ValidationSet& set : validation_) add(set.loader->sources().front(), *facts.add_validation());
  facts.set_ranks(session_.world.size());
  facts.set_layout(layout_text(parts_->mesh().shape()));
  facts.set_compute_dtype(RunSection::ComputeDtype_Name(config_.run().compute_dtype()));
  const auto slots = static_cast<double>(facts.batch_tokens());
  recording_ = std::make_unique<Recording>(
      directory_, facts,
      [shape, slots](int64_t steps, double pairs) {
        return step_flops(shape, slots * static_cast<double>(steps), pairs);
      },
      directory_ + "/metrics.jsonl", position_.step);
}

// On every rank, as it may throw.
void Trainer::write_record(bool finished) {
  on_rank_zero(session_.world, [&] {
    if (finished)
      recording_->write_finished(position_.samples, history_.unique_share(position_.samples));
    else
      recording_->write_unfinished(position_.samples, history_.unique_share(position_.samples));
  });
}

int Trainer::run() {
  open_run_directory();
  say_what_runs();
  try {
    return train();
  } catch (const NumericalError& error) {
    try {
      if (recording_)
        recording_->write_diverged(position_.samples, history_.unique_share(position_.samples), error.what());
    } catch (const IoError&) {
      // What happened matters more than that it could not be written down.
    }
    throw;
  }
}

int Trainer::train() {
  if (position_.step < config_.run().steps()) write_record(false);
  const int64_t steps = config_.run().steps();
  if (position_.step >= steps) {
    console_->info("step {} of {}: nothing left to do; --set run.steps={} goes on", position_.step, steps, 2 * steps);
    write_record(true);  // an earlier start may have been killed before it could
    return static_cast<int>(ExitCode::Done);
  }
  const int64_t evaluate_every = config_.evaluation().every_steps();
  if (position_.step == 0) evaluate_all();
  while (position_.step < steps) {
    train_step();
    const bool last = position_.step == steps;
    if (last || (evaluate_every > 0 && position_.step % evaluate_every == 0)) {
      evaluate_all();
      write_record(false);
    }
    watchdog_->progress("checkpoint", position_.step);
    if (saving_->step_done(position_.step, last)) {
      saving_->finish();
      return static_cast<int>(ExitCode::Stopped);
    }
  }
  watchdog_->progress("checkpoint", position_.step);
  saving_->finish();
  if (config_.checkpoint().save_last() && saving_->saved_step() != steps) {
    throw IoError("the last checkpoint could not be written: " + saving_->save_error());
  }
  write_record(true);
  return static_cast<int>(ExitCode::Done);
}

}  // namespace tessera
