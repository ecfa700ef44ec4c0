#include "launch/run/phase.h"

#include <chrono>

#include "launch/process/host.h"
#include "launch/run.pb.h"
#include "launch/run/host_state.h"
#include "launch/run/tokenizer_file.h"
#include "model/cost.h"
#include "optim/lr_schedule.h"

namespace tessera {
namespace {

using OfRank = StepMetrics::OfRank;

// The groups do not know of sends that were waited for.
std::map<std::string, Traffic> traffic_since(const std::map<std::string, Traffic>& before,
                                             const std::map<std::string, Traffic>& after, double sends) {
  std::map<std::string, Traffic> traffic;
  for (const auto& [group, now] : after) {
    const auto earlier = before.find(group);
    const Traffic use = earlier == before.end() ? now : now - earlier->second;
    if (use.seconds > 0) traffic[group] = use;
  }
  if (sends > 0) traffic["pp"].seconds += sends;
  return traffic;
}

// Mean and worst of what each rank has. Collective.
void compare_ranks(StepMetrics& metrics, const OfRank& own, Comm& world) {
  static_assert(sizeof(OfRank) == 7 * sizeof(double));
  const auto view = [](OfRank& numbers) { return Tensor(std::span<double>(&numbers.compute_seconds, 7), Shape{7}); };
  metrics.own = own;
  metrics.worst = own;
  world.all_reduce_max(view(metrics.worst));
  const double n = world.size();
  metrics.mean = {own.compute_seconds / n,   own.bubble_seconds / n, own.data_seconds / n,
                  own.optimizer_seconds / n, own.host_seconds / n,   own.communication_seconds / n,
                  own.memory_bytes / n};
  world.all_reduce_sum(view(metrics.mean));
}

}  // namespace

Phase::Phase(const RunConfig& config, const Layout& layout, Session& session)
    : config_(config),
      session_(session),
      assembly_(config, layout, session),
      sources_(open_sources(config.data().train())),
      tokenizer_(sources_.front().dataset.tokenizer_fingerprint()) {
  if (config.data().has_tokenizer()) check_tokenizer(sources_, open_tokenizer(config.data().tokenizer()).fingerprint());
}

void Phase::verify_data(const std::function<void()>& read) const {
  if (config_.data().verify()) verify_shards(sources_, session_.world.rank(), session_.world.size(), read);
}

Phase::~Phase() = default;

void Phase::load(const std::function<bool(State& state)>& load) {
  HostState host(assembly_.context(), State{assembly_.state(), {}});
  if (!load(host.state())) return;
  host.send(assembly_.context());
  assembly_.optimizer().state_loaded(assembly_.context());
}

Reducer& Phase::measured(const RunPosition& position) {
  const Schedule& actions = assembly_.schedule().ranks[assembly_.mesh().coordinate(Axis::Pp)];
  const int64_t every = config_.logging().gradient_noise_every_steps();
  if (every == 0 || config_.parallel().zero_stage() > 0 ||
      !GradientNoise::possible(assembly_.mesh(), actions, loader_->microbatches()))
    return assembly_.optimizer();
  noise_ = std::make_unique<GradientNoise>(assembly_.optimizer(), assembly_.mesh(), assembly_.parameters(), *loader_,
                                           every, position.step + 1);
  return *noise_;
}

void Phase::begin(const RunPosition& position, uint64_t seed, DataHistory& history,
                  const std::function<Reducer&(Reducer&)>& guard) {
  history.change(position.samples, config_.data().sequence_length(), shares(sources_, config_.data()));
  loader_ = std::make_unique<Loader>(config_.data(), std::move(sources_),
                                     LoaderOptions{.seed = seed,
                                                   .dp_rank = assembly_.mesh().coordinate(Axis::Dp),
                                                   .dp_count = assembly_.mesh().extent(Axis::Dp),
                                                   .order = Order::Shuffled,
                                                   .history = history});
  validation_ = open_validation(config_, assembly_, config_.evaluation().samples(), tokenizer_);
  pipeline_ = assembly_.training(*loader_, guard(measured(position)));
}

StepMetrics Phase::step(RunPosition& position) {
  StepMetrics metrics;
  metrics.step = position.step + 1;
  metrics.learning_rate = learning_rate_at(config_.lr_schedule(), metrics.step);
  const std::map<std::string, Traffic> before = assembly_.mesh().traffic();
  const auto start = std::chrono::steady_clock::now();
  const StepResult result = pipeline_->step(assembly_.context(), position.samples, metrics.learning_rate, metrics.step);
  metrics.step_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  metrics.traffic = traffic_since(before, assembly_.mesh().traffic(), result.times.sends);
  const int64_t batch = config_.data().global_batch_size();
  position = {metrics.step, position.samples + batch, position.tokens + result.targets};
  metrics.tokens = position.tokens;
  metrics.loss = result.loss;
  metrics.grad_norm = result.gradient_norm;
  metrics.tokens_per_second = static_cast<double>(result.targets) / metrics.step_seconds;
  metrics.attention_pairs = assembly_.visible_pairs(*pipeline_);
  metrics.slots = batch * config_.data().sequence_length();
  metrics.flops =
      step_flops(assembly_.shape(), static_cast<double>(metrics.slots), static_cast<double>(metrics.attention_pairs))
          .sum();
  if (noise_ && noise_->measured()) {
    metrics.gradient_square = noise_->measured()->square;
    metrics.gradient_noise = noise_->measured()->noise;
  }
  const StepTimes& times = result.times;
  double communication = 0;
  for (const auto& [group, use] : metrics.traffic) communication += use.seconds;
  compare_ranks(metrics,
                {.compute_seconds = times.compute,
                 .bubble_seconds = times.bubble,
                 .data_seconds = times.data,
                 .optimizer_seconds = times.optimizer,
                 .host_seconds = metrics.step_seconds - times.sum(),
                 .communication_seconds = communication,
                 .memory_bytes = static_cast<double>(process_memory().resident)},
                session_.world);
  return metrics;
}

std::vector<MemoryLine> Phase::memory() {
  std::vector<MemoryLine> lines = assembly_.memory();
  if (noise_ && assembly_.device() == Device::Cuda) lines.push_back({"gradient noise", noise_->bytes(), Device::Cuda});
  lines.push_back({"communication", session_.world.staging_bytes()});
  lines.push_back({"data", Loader::bytes(config_.data(), assembly_.mesh().extent(Axis::Dp))});
  return lines;
}

}  // namespace tessera
