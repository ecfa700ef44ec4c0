#include "launch/config/ranges.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <cmath>
#include <map>

#include "launch/config/field.h"
#include "launch/run.pb.h"

namespace tessera {
namespace {

using google::protobuf::FieldDescriptor;

constexpr double kMostSteps = 1e12;
constexpr double kMostTime = 1e9;               // minutes or seconds: decades
constexpr double kMostCount = (1LL << 31) - 1;  // what a 32-bit count holds: tokens, samples, positions
constexpr double kMostFloat = 3.4e38;
constexpr double kMostWidth = 1 << 18, kMostHeads = 1 << 14, kMostHeadDim = 1 << 12, kMostLayers = 1 << 14;
constexpr double kMostParallel = 1 << 14, kMostRanks = 1 << 20;

Range positive(double high) { return {.low = 0, .high = high, .above_low = true}; }

const std::map<std::string, Range>& ranges() {
  static const std::map<std::string, Range> all = {
      {"run.steps", {1, kMostSteps}},
      {"run.threads", {0, 1024}},
      {"model.hidden_size", {1, kMostWidth}},
      {"model.num_hidden_layers", {1, kMostLayers}},
      {"model.num_attention_heads", {1, kMostHeads}},
      {"model.num_key_value_heads", {1, kMostHeads}},
      {"model.head_dim", {1, kMostHeadDim}},
      {"model.intermediate_size", {1, 1 << 22}},
      {"model.vocab_size", {1, 1 << 24}},
      {"model.max_position_embeddings", {1, kMostCount}},
      {"model.rope_theta", positive(1e18)},
      {"model.rms_norm_eps", positive(1)},
      {"model.layer_norm_epsilon", positive(1)},
      {"model.initializer_range", {0, 1000}},
      {"model.sliding_window", {0, kMostCount}},
      {"model.max_window_layers", {0, kMostLayers}},
      {"model.mup_base_width", {1, kMostWidth}},
      {"model.mup_output_multiplier", positive(1e9)},
      {"model.mup_attention_multiplier", positive(1e9)},
      {"parallel.tp", {1, kMostParallel}},
      {"parallel.pp", {1, kMostParallel}},
      {"parallel.cp", {1, kMostParallel}},
      {"parallel.dp", {0, kMostRanks}},
      {"parallel.zero_stage", {.low = 0, .high = 3, .rule = "there are stages 0 to 3"}},
      {"parallel.zero_group", {0, kMostRanks}},
      {"parallel.chunks", {1, 1024}},
      {"parallel.microbatch_group", {0, kMostCount}},
      {"parallel.context_slack", {0, 16}},
      {"parallel.memory_limit", {0, kMostCount}},
      {"parallel.times.latency", {0, kMostTime}},
      {"data.sequence_length", {1, 1 << 27}},
      {"data.global_batch_size", {1, kMostCount}},
      {"data.micro_batch_size", {1, kMostCount}},
      {"data.train.weight", positive(1e12)},
      {"data.validation.weight", positive(1e12)},
      {"optimizer.beta1", {.low = 0, .high = 1, .below_high = true}},
      {"optimizer.beta2", {.low = 0, .high = 1, .below_high = true}},
      {"optimizer.epsilon", positive(kMostFloat)},
      {"optimizer.weight_decay", {0, kMostFloat}},
      {"optimizer.max_grad_norm", {0, kMostFloat}},
      {"lr_schedule.learning_rate", positive(kMostFloat)},
      {"lr_schedule.min_learning_rate", {0, kMostFloat}},
      {"lr_schedule.warmup_steps", {0, kMostSteps}},
      {"lr_schedule.decay_end_step", {1, kMostSteps}},
      {"lr_schedule.decay_steps", {0, kMostSteps}},
      {"checkpoint.every_steps", {0, kMostSteps}},
      {"checkpoint.keep_last", {2, 1e6}},
      {"checkpoint.every_minutes", {0, kMostTime}},
      {"checkpoint.keep_every", {0, kMostSteps}},
      {"checkpoint.staging_mib", {1, 1 << 24}},
      {"checkpoint.time_limit_minutes", {0, kMostTime}},
      {"logging.every_steps", {1, kMostSteps}},
      {"logging.gradient_noise_every_steps", {0, kMostSteps}},
      {"evaluation.every_steps", {0, kMostSteps}},
      {"evaluation.samples", {0, kMostSteps}},
      {"watchdog.timeout_seconds", {0, kMostTime}},
  };
  return all;
}

std::string without_indices(const std::string& path) {
  std::string plain;
  bool inside = false;
  for (const char c : path) {
    if (c == '[') inside = true;
    if (!inside) plain += c;
    if (c == ']') inside = false;
  }
  return plain;
}

double number(const FieldRef& ref) {
  const auto& reflection = *ref.message->GetReflection();
  switch (ref.field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.GetInt32(*ref.message, ref.field);
    case FieldDescriptor::CPPTYPE_INT64:
      return static_cast<double>(reflection.GetInt64(*ref.message, ref.field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection.GetDouble(*ref.message, ref.field);
    default:
      return 0;
  }
}

// 16384 -> "16,384"; 1e+12 as it is.
std::string bound(double value) {
  if (value != std::floor(value) || std::abs(value) >= 1e10) return fmt::format("{:g}", value);
  std::string digits = fmt::format("{:.0f}", value);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

}  // namespace

bool Range::contains(double value) const {
  return value >= low && value <= high && !(above_low && value == low) && !(below_high && value == high);
}

std::string Range::text() const {
  return fmt::format("{}{}{} to {}{}", above_low ? "above " : "", bound(low), above_low ? "," : "",
                     below_high ? "below " : "", bound(high));
}

const Range* range_of(const std::string& path) {
  const auto found = ranges().find(path);
  return found == ranges().end() ? nullptr : &found->second;
}

void check_ranges(RunConfig& config, const Origins& origins, Problems& problems) {
  for_each_scalar(config, [&](const std::string& path, const FieldRef& ref) {
    if (!is_set(ref)) return;
    const bool optims = path.starts_with("optimizer.") || path.starts_with("lr_schedule.");
    const double value = number(ref);
    if (!std::isfinite(value) && optims) return;
    if (!std::isfinite(value))
      return problems.add(origins, {path}, fmt::format("{} = {}: must be finite", path, value));
    const Range* range = range_of(without_indices(path));
    if (range == nullptr || range->contains(value)) return;
    const bool too_small = value <= range->low;
    if (optims && (too_small || range->below_high)) return;
    std::string rule = range->rule != nullptr ? range->rule : "must be from " + range->text();
    if (too_small) rule = fmt::format("must be {} {}", range->above_low ? "above" : "at least", range->low);
    problems.add(origins, {path}, fmt::format("{} = {}: {}", path, value_text(ref), rule));
  });
}

void check_products(const RunConfig& config, const Origins& origins, Problems& problems) {
  const ModelConfig& model = config.model();
  const DataConfig& data = config.data();
  const ParallelConfig& parallel = config.parallel();
  const auto real = [](int64_t n) { return static_cast<double>(n); };
  if (const double ranks = real(parallel.tp()) * parallel.pp() * parallel.cp() * std::max(1, parallel.dp());
      ranks > kMostRanks)
    problems.add(
        origins, {"parallel.tp", "parallel.pp", "parallel.cp", "parallel.dp"},
        fmt::format("parallel.tp * pp * cp * dp = {:.0f} ranks: there may be at most {}", ranks, bound(kMostRanks)));
  const double slots = real(data.micro_batch_size()) * real(data.sequence_length());
  if (slots > kMostCount)
    problems.add(
        origins, {"data.micro_batch_size", "data.sequence_length"},
        fmt::format("data.micro_batch_size * data.sequence_length = {} * {} = {:.0f} tokens: a microbatch has at "
                    "most {}; choose micro_batch_size up to {}",
                    data.micro_batch_size(), data.sequence_length(), slots, bound(kMostCount),
                    std::max<int64_t>(1, static_cast<int64_t>(kMostCount) / data.sequence_length())));
  // Upper bounds of what is stored, at 16 bytes a number, so that every sum of sizes stays below 2^63.
  const double hidden = real(model.hidden_size()), layers = real(model.num_hidden_layers());
  const double heads = real(model.num_attention_heads() + 2 * model.num_key_value_heads()) * real(model.head_dim());
  const double block = 2 * heads + 4 * real(model.intermediate_size()) + 8 * hidden;  // numbers of a token in a block
  const double parameters = layers * hidden * block + 2 * real(model.vocab_size()) * hidden;
  const double activations = std::min(slots, kMostCount) * (layers * block + 2 * real(model.vocab_size()));
  constexpr double kMostBytes = 4.6e18;
  if (16 * (parameters + activations) > kMostBytes)
    problems.add(
        origins,
        {"model.hidden_size", "model.num_hidden_layers", "model.intermediate_size", "model.vocab_size",
         "data.micro_batch_size", "data.sequence_length"},
        fmt::format("model.num_hidden_layers = {} blocks of model.hidden_size = {} and model.intermediate_size = "
                    "{}, model.vocab_size = {} and microbatches of {:.0f} tokens: about {:.2g} bytes, more than "
                    "64 bits count; choose smaller sizes",
                    model.num_hidden_layers(), model.hidden_size(), model.intermediate_size(), model.vocab_size(),
                    slots, 16 * (parameters + activations)));
}

}  // namespace tessera
