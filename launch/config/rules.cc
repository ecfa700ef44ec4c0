#include "launch/config/rules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <vector>

#include "launch/config/ranges.h"
#include "launch/config/run_layout.h"
#include "launch/config/suggest.h"
#include "launch/run.pb.h"
#include "model/shape/context_exchange.h"
#include "model/shape/recompute.h"
#include "model/shape/windows.h"
#include "optim/adamw.h"
#include "optim/lr_schedule.h"
#include "parallel/context/plan.h"
#include "scaling/planning/schedule_choice.h"
#include "tensor/divisors.h"
#include "tensor/ops/attention/attention.h"
#include "tensor/ops/quantise.h"

namespace tessera {
namespace {

// "12 or 16": the multiples of `of` around n.
std::string multiples_near(int64_t n, int64_t of) {
  const int64_t below = n / of * of;
  return below > 0 ? fmt::format("{} or {}", below, below + of) : std::to_string(of);
}

// Adds messages about one config.
class Rules {
 public:
  Rules(const Origins& origins, Problems& problems) : origins_(origins), problems_(problems) {}

  // Checks by making what a config describes. A message that begins with a field that was set is located there, another
  // one at the first of `paths` that was set.
  void attempt(std::initializer_list<std::string> paths, const std::function<void()>& make) {
    try {
      make();
    } catch (const UsageError& error) {
      const std::string message = error.what(), field = message.substr(0, message.find(' '));
      origins_.of(field).empty() ? problems_.add(origins_, paths, message) : problems_.add(origins_, {field}, message);
    }
  }

  void require(bool holds, std::initializer_list<std::string> paths, const std::string& message) {
    if (!holds) problems_.add(origins_, paths, message);
  }

  // path = value must be a multiple of what `by` says it is. `fits` ends the message.
  void require_multiple(const std::string& path, int64_t value, const std::string& by_path, int64_t by,
                        const std::string& fits) {
    require(value % by == 0, {path, by_path},
            fmt::format("{} = {}: must be a multiple of {} = {}; {}", path, value, by_path, by, fits));
  }

 private:
  const Origins& origins_;
  Problems& problems_;
};

void check_model(const RunConfig& config, Rules& rules) {
  const ModelConfig& model = config.model();
  const int64_t heads = model.num_attention_heads(), kv_heads = model.num_key_value_heads();
  rules.require_multiple("model.num_attention_heads", heads, "model.num_key_value_heads", kv_heads,
                         "choose key-value heads from " + divisors(heads));
  rules.require(model.parametrization() != ModelConfig::MUP || model.has_mup_base_width(),
                {"model.parametrization", "model.mup_base_width"},
                fmt::format("model.mup_base_width is not set: model.parametrization = MUP needs the width that "
                            "initializer_range and learning_rate were found at; model.hidden_size = {} changes nothing",
                            model.hidden_size()));
  if (model.family() == ModelConfig::LLAMA)
    rules.require(model.head_dim() % 2 == 0, {"model.head_dim", "model.num_attention_heads", "model.hidden_size"},
                  fmt::format("model.head_dim = {}: must be even, as RoPE turns pairs; choose {}", model.head_dim(),
                              multiples_near(model.head_dim(), 2)));
  rules.require(
      model.max_position_embeddings() >= config.data().sequence_length(),
      {"model.max_position_embeddings", "data.sequence_length"},
      fmt::format("model.max_position_embeddings = {}: must be at least data.sequence_length = {}, as {}",
                  model.max_position_embeddings(), config.data().sequence_length(),
                  model.family() == ModelConfig::GPT2 ? "every position has an embedding of its own"
                                                      : "no sequence is longer than the model is said to take"));
}

void check_zero(const ParallelConfig& parallel, RunSection::ComputeDtype dtype, Rules& rules) {
  const int dp = parallel.dp(), stage = parallel.zero_stage(), group = parallel.zero_group();
  rules.require(group == 0 || stage > 0, {"parallel.zero_group", "parallel.zero_stage"},
                fmt::format("parallel.zero_group = {}: shares out nothing at parallel.zero_stage = 0; set it to 0, or "
                            "choose a stage from 1 to 3",
                            group));
  rules.require(group == 0 || dp % group == 0, {"parallel.zero_group", "parallel.dp"},
                fmt::format("parallel.zero_group = {}: must divide parallel.dp = {}, as each group holds whole states; "
                            "choose from {}, or 0 for one group of all",
                            group, dp, divisors(dp)));
  const bool bf16 = parallel.gradient_wire() == "bf16";
  rules.require(!bf16 || stage > 0, {"parallel.gradient_wire", "parallel.zero_stage"},
                "parallel.gradient_wire = bf16: needs parallel.zero_stage 1, 2 or 3, as an owner adds the parts up");
  rules.require(!bf16 || dtype != RunSection::F64, {"parallel.gradient_wire", "run.compute_dtype"},
                "parallel.gradient_wire = bf16: sums in F32, but run.compute_dtype = F64 promises F64 throughout; "
                "choose full, or compute in F32 or BF16");
}

void check_layout(const RunConfig& config, Rules& rules) {
  const ModelConfig& model = config.model();
  const DataConfig& data = config.data();
  const int64_t tp = config.parallel().tp(), dp = config.parallel().dp();
  rules.require_multiple("model.num_key_value_heads", model.num_key_value_heads(), "parallel.tp", tp,
                         "choose tp from " + divisors(model.num_key_value_heads()));
  rules.require_multiple("model.intermediate_size", model.intermediate_size(), "parallel.tp", tp,
                         "choose " + multiples_near(model.intermediate_size(), tp));
  const int64_t slots = data.micro_batch_size() * data.sequence_length();
  // Context-parallel ranks have slots by whole tiles.
  rules.require(config.parallel().cp() > 1 || slots % tp == 0,
                {"data.sequence_length", "data.micro_batch_size", "parallel.tp"},
                fmt::format("data.micro_batch_size * data.sequence_length = {} * {} = {} tokens: must be a multiple of "
                            "parallel.tp = {}, as each rank holds an equal part; choose tp from {}",
                            data.micro_batch_size(), data.sequence_length(), slots, tp, divisors(slots)));
  check_zero(config.parallel(), config.run().compute_dtype(), rules);
  const int64_t samples = dp * data.micro_batch_size();
  rules.require(
      data.global_batch_size() % samples == 0, {"data.global_batch_size", "data.micro_batch_size", "parallel.dp"},
      fmt::format("data.global_batch_size = {}: must be a multiple of parallel.dp * data.micro_batch_size = {} "
                  "* {} = {}; choose {}",
                  data.global_batch_size(), dp, data.micro_batch_size(), samples,
                  multiples_near(data.global_batch_size(), samples)));
}

// Windows of layers, and the cut of microbatches over context-parallel ranks.
void check_context(const RunConfig& config, Rules& rules) {
  const ModelConfig& model = config.model();
  const DataConfig& data = config.data();
  const ParallelConfig& parallel = config.parallel();
  rules.attempt({"model.layer_types", "model.max_window_layers", "model.sliding_window", "model.num_hidden_layers"},
                [&] { layer_windows(model); });
  const int64_t tp = parallel.tp();
  rules.attempt(
      {"parallel.context_exchange", "parallel.cp", "model.num_attention_heads", "model.num_key_value_heads"}, [&] {
        const auto exchanges =
            context_exchange_plan(parallel.context_exchange(), static_cast<int>(model.num_hidden_layers()));
        if (model.num_key_value_heads() % tp != 0 || model.num_attention_heads() % model.num_key_value_heads() != 0)
          return;  // said above
        for (const ContextExchange& exchange : exchanges)
          check_exchange(exchange, parallel.cp(), model.num_attention_heads() / tp, model.num_key_value_heads() / tp);
      });
  if (parallel.cp() == 1) return;
  rules.attempt({"parallel.cp", "data.sequence_length", "data.micro_batch_size", "parallel.context_slack"}, [&] {
    context_slots(data.micro_batch_size() * data.sequence_length(), parallel.cp(), parallel.tp(),
                  parallel.context_slack());
  });
  rules.require(model.sliding_window() == 0 || model.sliding_window() >= kAttentionTile,
                {"model.sliding_window", "parallel.cp"},
                fmt::format("model.sliding_window = {}: with parallel.cp = {} a window must be at least {} tokens, an "
                            "attention tile; choose {} or more, 0 for none, or cp = 1",
                            model.sliding_window(), parallel.cp(), kAttentionTile, kAttentionTile));
}

// The schedule, its stages and what they recompute are checked by making the layout.
std::optional<Layout> check_pipeline(const RunConfig& config, int world, Rules& rules) {
  std::optional<Layout> layout;
  rules.attempt({"parallel.blocks_per_stage", "parallel.schedule", "parallel.chunks", "parallel.microbatch_group",
                 "parallel.memory_limit", "parallel.times", "parallel.pp", "parallel.recompute"},
                [&] { layout = plan_layout(layout_request(config, world)); });
  return layout;
}

void check_sources(const google::protobuf::RepeatedPtrField<DataSource>& sources, const std::string& list,
                   Rules& rules) {
  std::map<std::string, int> first;
  for (int i = 0; i < sources.size(); ++i) {
    const std::string path = fmt::format("{}[{}]", list, i);
    if (sources[i].path().empty()) {
      rules.require(false, {path}, fmt::format("{}.path is not set: name a token shard or a directory of them", path));
      continue;
    }
    const auto [other, is_new] = first.emplace(sources[i].name(), i);
    rules.require(is_new, {path + ".name", path + ".path"},
                  fmt::format("{}.name = {}: must differ from {}[{}].name; set one of them", path, sources[i].name(),
                              list, other->second));
  }
}

}  // namespace

void check_fields(const RunConfig& config, const Origins& origins, Problems& problems) {
  for (const std::string& problem : tessera::problems(config.optimizer())) problems.add_located(origins, problem);
  Rules rules(origins, problems);
  const std::string& name = config.run().name();
  rules.require(!name.empty() && name.find('/') == std::string::npos && name != "." && name != "..", {"run.name"},
                fmt::format("run.name = \"{}\": must be a name for a directory, not empty and without /", name));
}

void check_available(const RunConfig& config, const Origins& origins, const Surroundings& surroundings,
                     Problems& problems) {
  Rules rules(origins, problems);
  const ParallelConfig& parallel = config.parallel();
  static const std::vector<std::string> wires = {"full", "bf16"};
  const std::string& wire = parallel.gradient_wire();
  rules.require(std::find(wires.begin(), wires.end(), wire) != wires.end(), {"parallel.gradient_wire"},
                fmt::format("parallel.gradient_wire = {}: unknown; {}", wire, did_you_mean(wire, wires)));

  static const std::vector<std::string> schedules = {
      "gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe-v", "v-half", "v-min", "file:PATH", "search"};
  const std::string& schedule = parallel.schedule();
  rules.require(is_schedule(schedule), {"parallel.schedule"},
                fmt::format("parallel.schedule = {}: unknown; {}", schedule, did_you_mean(schedule, schedules)));

  const bool cuda = surroundings.cuda == Surroundings::Cuda::Present;
  // Whether the GPU has such units is seen when it is opened (launch/run/gpu.h).
  rules.require(config.run().compute_dtype() != RunSection::FP8 || (cuda && config.run().device() != RunSection::CPU),
                {"run.compute_dtype", "run.device"},
                "run.compute_dtype = FP8: needs a GPU with FP8 matrix units; choose F64, F32 or BF16");
  if (config.run().device() == RunSection::CUDA && !cuda)
    rules.require(false, {"run.device"},
                  surroundings.cuda == Surroundings::Cuda::NotBuilt
                      ? "run.device = CUDA: this build has no CUDA; choose CPU or AUTO, or build with TESSERA_CUDA=ON"
                      : fmt::format("run.device = CUDA: {}; choose CPU or AUTO", surroundings.cuda_reason));
  static const std::vector<std::string> transports = {"auto", "nccl", "staged"};
  const std::string& transport = parallel.gpu_transport();
  rules.require(
      std::find(transports.begin(), transports.end(), transport) != transports.end(), {"parallel.gpu_transport"},
      fmt::format("parallel.gpu_transport = {}: unknown; {}", transport, did_you_mean(transport, transports)));
}

// What quantised products ask of the sizes on one rank (tensor/ops/gemm/gemm_fp8.h).
void check_fp8(const RunConfig& config, Rules& rules) {
  if (config.run().compute_dtype() != RunSection::FP8) return;
  const ModelConfig& model = config.model();
  const DataConfig& data = config.data();
  const int64_t tp = config.parallel().tp(), heads = model.num_attention_heads();
  rules.require(model.num_hidden_layers() >= 3, {"run.compute_dtype", "model.num_hidden_layers"},
                fmt::format("run.compute_dtype = FP8: the first and the last block stay in BF16, and "
                            "model.num_hidden_layers = {} leaves none between them; choose BF16, or 3 layers or more",
                            model.num_hidden_layers()));
  const auto check = [&](const std::string& path, const std::string& what, int64_t size) {
    rules.require(size % kFloat8Multiple == 0, {path, "run.compute_dtype"},
                  fmt::format("{} = {}: must be a multiple of {}, as run.compute_dtype = FP8 multiplies in such tiles; "
                              "choose sizes that make it {}, or BF16",
                              what, size, kFloat8Multiple, multiples_near(size, kFloat8Multiple)));
  };
  check("model.hidden_size", "model.hidden_size", model.hidden_size());
  if (model.intermediate_size() % tp == 0)
    check("model.intermediate_size", "model.intermediate_size / parallel.tp", model.intermediate_size() / tp);
  if (model.num_key_value_heads() % tp == 0 && heads % model.num_key_value_heads() == 0) {
    check("model.num_attention_heads", "model.num_attention_heads * model.head_dim / parallel.tp",
          heads / tp * model.head_dim());
    check("model.num_key_value_heads",
          "(model.num_attention_heads + 2 * model.num_key_value_heads) * model.head_dim / parallel.tp",
          (heads + 2 * model.num_key_value_heads()) / tp * model.head_dim());
  }
  if (config.parallel().cp() == 1)  // with more, a rank has whole attention tiles
    check("data.sequence_length", "data.micro_batch_size * data.sequence_length",
          data.micro_batch_size() * data.sequence_length());
}

std::optional<Layout> check_relations(const RunConfig& config, const Origins& origins, const Surroundings& surroundings,
                                      Problems& problems) {
  Rules rules(origins, problems);
  check_model(config, rules);
  check_layout(config, rules);
  check_context(config, rules);
  check_fp8(config, rules);
  std::optional<Layout> layout;
  if (problems.empty()) layout = check_pipeline(config, surroundings.world_size, rules);
  check_sources(config.data().train(), "data.train", rules);
  check_sources(config.data().validation(), "data.validation", rules);
  for (int i = 0; i < config.data().validation_size(); ++i) {
    const double weight = config.data().validation(i).weight();
    rules.require(
        weight == 1, {fmt::format("data.validation[{}].weight", i)},
        fmt::format("data.validation[{}].weight = {}: validation sets are evaluated one by one, so none has a "
                    "weight; leave it out",
                    i, weight));
  }
  rules.require(config.model().vocab_size() >= surroundings.tokenizer_vocab_size,
                {"model.vocab_size", "data.tokenizer"},
                fmt::format("model.vocab_size = {}: must be at least {}, the vocabulary of {}",
                            config.model().vocab_size(), surroundings.tokenizer_vocab_size,
                            config.data().has_tokenizer() ? config.data().tokenizer() : "the token shards"));
  if (surroundings.data == Surroundings::Data::Needed)
    rules.require(
        config.data().train_size() > 0, {"data.train"},
        "data.train is empty: name a token shard, e.g. --set data.train=PATH (`tessera data build` makes one)");
  for (const std::string& problem : tessera::problems(config.lr_schedule())) problems.add_located(origins, problem);
  return layout;
}

}  // namespace tessera
