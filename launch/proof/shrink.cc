#include "launch/proof/shrink.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "launch/run.pb.h"
#include "model/shape/context_exchange.h"
#include "model/shape/windows.h"
#include "scaling/planning/schedule_choice.h"
#include "tensor/ops/attention/attention.h"

namespace tessera {
namespace {

constexpr int64_t kHeadDim = 8, kSequence = 32, kVocabulary = 61, kGroup = 4, kSamples = 2;

int64_t at_least_one(int64_t n) { return std::max<int64_t>(1, n); }

}  // namespace

RunConfig shrunk(const RunConfig& config, std::span<const RunConfig> layouts) {
  RunConfig small = config;
  const ModelConfig& model = config.model();
  const int64_t samples = std::min(config.data().micro_batch_size(), kSamples);
  int64_t tp = 1, cp = 1, trading = 1, batch = 1, stages = 1, in_flight = 1, of_file = 0;
  for (const RunConfig& layout : layouts) {
    const ParallelConfig& parallel = layout.parallel();
    tp = std::lcm(tp, at_least_one(parallel.tp()));
    cp = std::max(cp, at_least_one(parallel.cp()));
    if (parallel.context_exchange().find("ulysses") != std::string::npos)
      trading = std::lcm(trading, at_least_one(parallel.cp()));
    batch = std::lcm(batch, at_least_one(parallel.dp()) * samples);
    const ScheduleChoice schedule(parallel);
    stages = std::max<int64_t>(stages, schedule.stages());
    of_file = std::max(of_file, at_least_one(parallel.dp()) * samples * schedule.file_microbatches());
    in_flight = std::max(in_flight, at_least_one(parallel.dp()) * samples * 2 * parallel.pp());
  }
  const int64_t kv_heads = model.has_num_key_value_heads() ? model.num_key_value_heads() : model.num_attention_heads();
  const int64_t group = std::clamp<int64_t>(model.num_attention_heads() / at_least_one(kv_heads), 1, kGroup);
  // A key/value head for each rank that has heads of its own, but where a group of queries serves several.
  const int64_t shared = group > 1 && trading % 2 == 0 ? 2 : 1;
  const int64_t keys = tp * at_least_one(trading / shared), heads = keys * group;

  ModelConfig& m = *small.mutable_model();
  m.set_num_key_value_heads(keys);
  m.set_num_attention_heads(heads);
  m.set_head_dim(kHeadDim);
  m.set_hidden_size(heads * kHeadDim);
  m.set_intermediate_size(2 * heads * kHeadDim);
  // One block more than stages, where the model has as many, so that they are uneven.
  m.set_num_hidden_layers(std::clamp(model.num_hidden_layers(), stages, std::max<int64_t>(2, stages + 1)));
  m.set_vocab_size(model.has_vocab_size() ? std::min(model.vocab_size(), kVocabulary) : kVocabulary);
  if (model.initializer_range() < 0.1) m.set_initializer_range(0.1);  // small widths need larger weights to matter

  DataConfig& data = *small.mutable_data();
  // Context-parallel ranks need a tile each, and documents that do not fit into one.
  const int64_t shortest = cp == 1 ? kSequence : 2 * cp * kAttentionTile;
  const int64_t sequence = (shortest + tp - 1) / tp * tp;
  data.set_micro_batch_size(samples);
  data.set_sequence_length(std::min(config.data().sequence_length(), sequence));
  if (data.sequence_length() * samples % tp != 0) data.set_sequence_length(sequence);
  // A schedule from a file is for one number of microbatches.
  data.set_global_batch_size(of_file > 0 ? of_file : (in_flight + batch - 1) / batch * batch);
  m.set_max_position_embeddings(data.sequence_length());
  if (model.sliding_window() > 0) {
    // Several windows in a sequence; of two kinds of layers both stay.
    const int64_t least = cp == 1 ? 1 : kAttentionTile;
    m.set_sliding_window(std::min(model.sliding_window(), std::max(least, data.sequence_length() / 4)));
    const std::vector<int64_t> windows = layer_windows(model);
    m.clear_max_window_layers();
    m.clear_layer_types();
    for (const bool slides : {windows.front() > 0, windows.front() == 0}) {
      if (std::any_of(windows.begin(), windows.end(), [&](int64_t window) { return (window > 0) == slides; }))
        m.add_layer_types(slides ? "sliding_attention" : "full_attention");
    }
  }
  return small;
}

std::string stretched_exchange(const std::string& exchange, int before, int after) {
  const std::vector<ContextExchange> plan = context_exchange_plan(exchange, before);
  if (std::all_of(plan.begin(), plan.end(), [&](const auto& other) { return other == plan.front(); }))
    return name(plan.front());
  std::string text;
  for (int block = 0; block < after; ++block)
    text += fmt::format("{}{}:{}", text.empty() ? "" : ",", name(plan[int64_t{block} * before / after]), block);
  return text;
}

std::vector<std::string> changes(const RunConfig& before, const RunConfig& after) {
  std::vector<std::string> lines;
  const auto say = [&](const char* field, auto from, auto to) {
    if (from != to && from != 0) lines.push_back(fmt::format("{} {} -> {}", field, from, to));  // 0: it was not set
  };
  const ModelConfig &a = before.model(), &b = after.model();
  say("model.hidden_size", a.hidden_size(), b.hidden_size());
  say("model.num_hidden_layers", a.num_hidden_layers(), b.num_hidden_layers());
  say("model.num_attention_heads", a.num_attention_heads(), b.num_attention_heads());
  say("model.num_key_value_heads", a.num_key_value_heads(), b.num_key_value_heads());
  say("model.intermediate_size", a.intermediate_size(), b.intermediate_size());
  say("model.vocab_size", a.vocab_size(), b.vocab_size());
  say("model.sliding_window", a.sliding_window(), b.sliding_window());
  say("model.initializer_range", a.initializer_range(), b.initializer_range());
  say("data.sequence_length", before.data().sequence_length(), after.data().sequence_length());
  say("data.micro_batch_size", before.data().micro_batch_size(), after.data().micro_batch_size());
  say("data.global_batch_size", before.data().global_batch_size(), after.data().global_batch_size());
  return lines;
}

std::vector<std::string> kept(const RunConfig& before, const RunConfig& after) {
  std::vector<std::string> lines = {"model.family = " + ModelConfig::Family_Name(after.model().family())};
  const auto say = [&](const std::string& what, int64_t from, int64_t to) {
    if (from == to) lines.push_back(fmt::format("{} {}", to, what));
  };
  const ModelConfig &a = before.model(), &b = after.model();
  const auto group = [](const ModelConfig& model) {
    return model.has_num_key_value_heads() ? model.num_attention_heads() / at_least_one(model.num_key_value_heads())
                                           : 1;
  };
  say("query heads for each key-value head", group(a), group(b));
  say("blocks", a.num_hidden_layers(), b.num_hidden_layers());
  say("samples of a microbatch", before.data().micro_batch_size(), after.data().micro_batch_size());
  if (a.tie_word_embeddings()) lines.emplace_back("tied embeddings");
  if (b.sliding_window() > 0) lines.emplace_back("windows below the sequence");
  return lines;
}

}  // namespace tessera
