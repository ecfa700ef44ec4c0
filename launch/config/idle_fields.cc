#include "launch/config/idle_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "launch/config/field.h"
#include "launch/run.pb.h"

namespace tessera {
namespace {

struct Rule {
  bool idle;
  std::vector<std::string> paths;
  std::string reason;
};

// Whether the order of the schedule is made for parallel.times (parallel/schedule/generate.h).
bool uses_times(const RunConfig& config) {
  static const std::set<std::string> kinds = {"zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "search"};
  RunConfig copy = config;
  std::string kind = value_text(find_field(copy, "parallel.schedule"));
  std::replace(kind.begin(), kind.end(), '_', '-');
  std::transform(kind.begin(), kind.end(), kind.begin(), [](unsigned char c) { return std::tolower(c); });
  return kinds.contains(kind);
}

std::vector<Rule> rules_for(const RunConfig& config) {
  const ModelConfig& model = config.model();
  const LrScheduleConfig& schedule = config.lr_schedule();
  const bool llama = model.family() == ModelConfig::LLAMA, gpt2 = model.family() == ModelConfig::GPT2;
  return {
      {config.run().device() == RunSection::CPU,
       {"run.cuda_graphs", "parallel.gpu_transport"},
       "run.device = CPU has neither"},
      {config.parallel().cp() == 1,
       {"parallel.context_slack", "parallel.context_exchange"},
       "parallel.cp = 1 cuts no sequence"},
      {!uses_times(config),
       {"parallel.times.forward", "parallel.times.backward_input", "parallel.times.backward_weight",
        "parallel.times.latency"},
       "the order of this parallel.schedule does not depend on times"},
      {gpt2, {"model.rms_norm_eps", "model.rope_theta"}, "model.family = GPT2 has LayerNorm and learned positions"},
      {llama, {"model.layer_norm_epsilon"}, "model.family = LLAMA has RMSNorm; set model.rms_norm_eps"},
      {model.parametrization() != ModelConfig::MUP,
       {"model.mup_base_width", "model.mup_output_multiplier", "model.mup_attention_multiplier"},
       "model.parametrization is not MUP"},
      {schedule.kind() != LrScheduleConfig::WSD,
       {"lr_schedule.decay", "lr_schedule.decay_steps"},
       "lr_schedule.kind is not WSD"},
      {schedule.kind() == LrScheduleConfig::CONSTANT,
       {"lr_schedule.min_learning_rate", "lr_schedule.decay_end_step"},
       "lr_schedule.kind = CONSTANT does not decay"},
      {config.data().validation_size() == 0,
       {"evaluation.every_steps", "evaluation.samples"},
       "data.validation is empty"},
  };
}

}  // namespace

std::vector<std::string> idle_fields(const RunConfig& given, const RunConfig& resolved) {
  RunConfig config = given, defaults;
  std::vector<std::string> lines;
  for (const Rule& rule : rules_for(resolved)) {
    if (!rule.idle) continue;
    for (const std::string& path : rule.paths) {
      const FieldRef field = find_field(config, path);
      const std::string value = value_text(field);
      if (!is_set(field) || value == value_text(find_field(defaults, path))) continue;
      lines.push_back(fmt::format("{} = {} does nothing: {}", path, value, rule.reason));
    }
  }
  return lines;
}

}  // namespace tessera
