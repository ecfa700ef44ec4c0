#include "launch/run/training_run.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>

#include "checkpoint/handover.h"
#include "checkpoint/load.h"
#include "launch/config/parse.h"
#include "launch/config/text.h"
#include "launch/process/host.h"
#include "launch/process/version.h"
#include "launch/run.pb.h"
#include "launch/run/announcement.h"
#include "launch/run/host_state.h"
#include "launch/run/record_facts.h"
#include "launch/run/tokenizer_file.h"
#include "parallel/comm/agreement.h"
#include "scaling/record_file.h"
#include "scaling/text_file.h"
#include "scaling/training_record.pb.h"

namespace tessera {
namespace {

// For which the peak is measured, before the first step.
constexpr double kPeakSeconds = 2;

// What to try when loss or gradients are not finite any more, as the config stands.
std::string after_divergence(const RunConfig& config) {
  const LrScheduleConfig& rate = config.lr_schedule();
  std::string text = fmt::format(
      "\nwhat may help, beginning with an earlier checkpoint: a lower lr_schedule.learning_rate (it is {:.3g}), a "
      "longer "
      "warm-up (lr_schedule.warmup_steps = {}), ",
      rate.learning_rate(), rate.warmup_steps());
  text += config.optimizer().max_grad_norm() > 0
              ? fmt::format("a lower optimizer.max_grad_norm (it is {:.3g})", config.optimizer().max_grad_norm())
              : "clipping of the gradient (optimizer.max_grad_norm = 1)";
  if (config.run().compute_dtype() == RunSection::BF16 || config.run().compute_dtype() == RunSection::FP8)
    text += fmt::format(", or run.compute_dtype = {} to see whether it is the precision",
                        config.run().compute_dtype() == RunSection::FP8 ? "BF16" : "F32");
  return text;
}

}  // namespace

TrainingRun::TrainingRun(const RunConfig& config, const Layout& layout, Session& session, const TrainOptions& options)
    : first_config_(config),
      session_(session),
      speaks_(session.world.rank() == 0),
      console_(make_console(speaks_ ? Voice::Speaks : Voice::Silent)),
      directory_(config.run().dir()),
      watchdog_(
          {.timeout_seconds = config.watchdog().timeout_seconds(), .rank = session.world.rank(), .host = host_name()}) {
  if (!session.warning.empty()) console_->warn(session.warning);
  lock_directory();
  phase_ = std::make_unique<Phase>(config, layout, session);
  phase_->verify_data([this] { watchdog_.progress("verify", 0); });
  watchdog_.progress("resume", 0);
  resume(options);
  Saving::Surroundings around{.world = session.world,
                              .console = *console_,
                              .run_directory = directory_,
                              .failpoint = options.failpoint,
                              .state = [this] { return settled_state(); },
                              .info = [this] { return save_info(); },
                              .lost = [this] { return lock_->lost(); }};
  if (host_copy(phase_->assembly().context()))
    around.copy = [this](const ConstTensor& from, int64_t first, std::span<std::byte> host) {
      host_copy(phase_->assembly().context())(from, first, host);
    };
  saving_ = std::make_unique<Saving>(config.checkpoint(), std::move(around));
  begin();
}

TrainingRun::~TrainingRun() = default;

void TrainingRun::on_rank_zero(FunctionRef<void()> work) {
  together(session_.world, [&] {
    if (speaks_) work();
  });
}

void TrainingRun::lock_directory() {
  on_rank_zero([&] {
    lock_ = std::make_unique<RunLock>(directory_);
    if (const std::optional<LockHolder>& dead = lock_->taken_from())
      console_->warn("warning: {}: took over the lock of process {} on {}, since {}, which ended without releasing it",
                     directory_, dead->process, dead->host, dead->since);
  });
}

State TrainingRun::state() {
  State state;
  state.slices = phase_->assembly().state();
  state.cursors.numbers = {{"step", position_.step},
                           {"samples", position_.samples},
                           {"tokens", position_.tokens},
                           {"seed", static_cast<int64_t>(seed_)}};
  state.cursors.texts = {{"data_history", history_.to_text()}, {kTokenizerCursor, phase_->tokenizer()}};
  return state;
}

State TrainingRun::settled_state() {
  phase_->assembly().context().synchronize();
  return state();
}

SaveInfo TrainingRun::save_info() {
  watchdog_.progress("checkpoint", position_.step);
  on_rank_zero([&] { metrics_->sync(); });
  write_record(false);
  SaveInfo info;
  info.step = position_.step;
  info.samples = position_.samples;
  info.tokens = position_.tokens;
  info.layout = layout_text(phase_->assembly().mesh().shape());
  info.config = to_text(config());
  info.versions = {{"tessera", program_version()}};
  return info;
}

void TrainingRun::accept(const CheckpointInfo& info, const TrainOptions& options) const {
  RunConfig saved;
  Origins origins;
  Problems problems;
  parse_config(info.path + "/config", info.config, saved, origins, problems);
  problems.throw_if_any();
  check_changes(saved, config(), options.allow_change);
  if (saved.run().compute_dtype() != config().run().compute_dtype())
    console_->warn("warning: the run was trained in {} until step {}, and goes on in {}",
                   RunSection::ComputeDtype_Name(saved.run().compute_dtype()), info.step,
                   RunSection::ComputeDtype_Name(config().run().compute_dtype()));
}

void TrainingRun::resume(const TrainOptions& options) {
  seed_ = config().run().seed();
  Found found;
  Cursors cursors;
  phase_->load([&](State& state) {
    PosixStorage storage;
    found = tessera::resume(session_.world, storage, checkpoints(), state,
                            [&](const CheckpointInfo& info) { accept(info, options); });
    cursors = state.cursors;
    return found.checkpoint.has_value();
  });
  for (const std::string& warning : found.warnings) console_->warn("warning: {}", warning);
  if (!found.checkpoint) return;
  position_ = {.step = cursors.numbers.at("step"),
               .samples = cursors.numbers.at("samples"),
               .tokens = cursors.numbers.at("tokens")};
  history_ = DataHistory::from_text(cursors.texts.at("data_history"));
  const auto saved_seed = static_cast<uint64_t>(cursors.numbers.at("seed"));
  if (saved_seed != seed_) {
    console_->warn("warning: run.seed = {}, but the run began with {}: the data order goes on with that", seed_,
                   saved_seed);
    seed_ = saved_seed;
  }
  resumed_from_ = position_.step;
}

void TrainingRun::begin() {
  phase_->begin(position_, seed_, history_, [this](Reducer& reducer) -> Reducer& { return saving_->guard(reducer); });
  progress_ = std::make_unique<Progress>(position_.step, config().run().steps());
}

void TrainingRun::begin_phase(const RunConfig& config, const Layout& layout) {
  saving_->finish();
  Handover handover(session_.world, settled_state(), host_copy(phase_->assembly().context()));
  phase_.reset();
  phase_ = std::make_unique<Phase>(config, layout, session_);
  phase_->load([&](State& state) {
    handover.into(state);
    return true;
  });
  begin();
  find_peak();
  on_rank_zero([&] {
    write_config();
    open_record();
  });
}

void TrainingRun::write_config() { replace_file(directory_ + "/config.textproto", to_text(config())); }

void TrainingRun::open_record() {
  TrainingRecord facts;
  set_facts(facts, config(), seed_, session_.world.size(), *phase_);
  write_peak(peak_, facts);
  recording_ = std::make_unique<Recording>(
      directory_, facts,
      [shape = phase_->assembly().shape()](double slots, double pairs) { return step_flops(shape, slots, pairs); },
      directory_ + "/metrics.jsonl", position_.step);
}

void TrainingRun::open_directory() {
  on_rank_zero([&] {
    std::filesystem::create_directories(directory_);
    write_config();
    metrics_ = std::make_unique<MetricsLog>(directory_ + "/metrics.jsonl",
                                            resumed_from_ < 0 ? MetricsLog::kFresh : resumed_from_);
    open_record();
    if (first_config_.logging().tensorboard())
      tensorboard_ = std::make_unique<TensorboardWriter>(directory_ + "/tensorboard", resumed_from_);
  });
  open_ = true;
}

void TrainingRun::find_peak() {
  if (!first_config_.logging().measure_peak()) return;
  watchdog_.progress("measure", position_.step);
  Assembly& assembly = phase_->assembly();
  const DType compute = assembly.shape().compute;
  peak_ = peak_of(gpu_name(assembly.context()), session_.world.size(), session_.threads, compute);
  on_rank_zero([&] {
    TrainingRecord record;
    if (has_record(directory_)) read_record(directory_, record);
    reuse_peak(record, peak_);
  });
  peak_.measured = session_.world.max(peak_.measured);
  const PeakOrigin origin = peak_.measured > 0 ? PeakOrigin::Recorded : PeakOrigin::Measured;
  if (origin == PeakOrigin::Measured)
    peak_.measured = measure_peak(assembly.context(), session_.world, compute, kPeakSeconds);
  console_->info(peak_text(peak_, origin));
}

void TrainingRun::train_step() {
  watchdog_.progress("step", position_.step + 1);
  StepMetrics metrics = phase_->step(position_);
  metrics.mfu = peak_.measured > 0 ? metrics.flops / metrics.step_seconds / peak_.measured : 0.0;
  log_step(metrics);
}

void TrainingRun::log_step(const StepMetrics& metrics) {
  if (!speaks_) return;
  progress_->observe(metrics);
  metrics_->write(metrics);
  recording_->observe(metrics);
  if (tensorboard_) tensorboard_->write(metrics);
  const int64_t every = first_config_.logging().every_steps();
  const bool ends = metrics.step == config().run().steps() || metrics.step == std::max<int64_t>(resumed_from_, 0) + 1;
  if (ends || (every > 0 && metrics.step % every == 0)) console_->info(progress_->line(metrics));
}

void TrainingRun::evaluate_all() {
  for (ValidationSet& set : phase_->validation()) {
    watchdog_.progress("evaluation", position_.step);
    const EvaluationResult result = phase_->evaluate(set);
    if (!speaks_) continue;
    const EvaluationMetrics metrics{.step = position_.step, .validation_loss = result.loss, .dataset = set.name};
    metrics_->write(metrics);
    recording_->observe(metrics);
    if (tensorboard_) tensorboard_->write(metrics);
    console_->info("step {}  validation loss {:.4f}  ({}, {} tokens)", position_.step, result.loss, set.name,
                   result.targets);
  }
}

// On every rank, as it may throw.
void TrainingRun::write_record(bool finished) {
  on_rank_zero([&] {
    const double unique = history_.unique_share(position_.samples);
    if (finished)
      recording_->write_finished(position_.samples, unique);
    else
      recording_->write_unfinished(position_.samples, unique);
  });
}

int TrainingRun::run() {
  announce(*console_, *phase_, session_, saving_->staging_bytes());
  if (!open_) {
    find_peak();
    open_directory();
  }
  if (resumed_from_ >= 0) console_->info("resumed from {} at step {}", checkpoints(), resumed_from_);
  try {
    return train();
  } catch (const NumericalError& error) {
    try {
      if (recording_)
        recording_->write_diverged(position_.samples, history_.unique_share(position_.samples), error.what());
    } catch (const IoError&) {
      // What happened matters more than that it could not be written down.
    }
    throw NumericalError(error.what() + after_divergence(config()));
  }
}

int TrainingRun::train() {
  const int64_t steps = config().run().steps();
  if (position_.step >= steps) {
    console_->info("step {} of {}: nothing left to do; --set run.steps={} goes on", position_.step, steps, 2 * steps);
    write_record(true);  // an earlier start may have been killed before it could
    return static_cast<int>(ExitCode::Done);
  }
  write_record(false);
  const int64_t evaluate_every = config().evaluation().every_steps();
  if (position_.step == 0) evaluate_all();
  while (position_.step < steps) {
    train_step();
    const bool last = position_.step == steps;
    if (last || (evaluate_every > 0 && position_.step % evaluate_every == 0)) {
      evaluate_all();
      write_record(false);
    }
    watchdog_.progress("checkpoint", position_.step);
    if (saving_->step_done(position_.step, last)) {
      saving_->finish();
      return static_cast<int>(ExitCode::Stopped);
    }
  }
  watchdog_.progress("checkpoint", position_.step);
  saving_->finish();
  if (first_config_.checkpoint().save_last() && saving_->saved_step() != steps)
    throw IoError("the last checkpoint could not be written: " + saving_->save_error());
  write_record(true);
  return static_cast<int>(ExitCode::Done);
}

}  // namespace tessera
