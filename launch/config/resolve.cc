#include "launch/config/resolve.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <optional>

#include "launch/config/field.h"
#include "launch/config/ranges.h"
#include "launch/config/rules.h"
#include "launch/run.pb.h"
#include "parallel/mesh.h"
#include "tensor/check.h"

namespace tessera {
namespace {

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Writes down the schema's defaults, so that a saved config says everything and stays what it was when a default
// changes.
void set_schema_defaults(RunConfig& config) {
  using google::protobuf::FieldDescriptor;
  for_each_scalar(config, [](const std::string&, const FieldRef& ref) {
    if (is_set(ref) || !ref.field->has_default_value()) return;
    const auto& reflection = *ref.message->GetReflection();
    switch (ref.field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection.SetInt32(ref.message, ref.field, ref.field->default_value_int32());
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection.SetInt64(ref.message, ref.field, ref.field->default_value_int64());
      case FieldDescriptor::CPPTYPE_UINT32:
        return reflection.SetUInt32(ref.message, ref.field, ref.field->default_value_uint32());
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection.SetUInt64(ref.message, ref.field, ref.field->default_value_uint64());
      case FieldDescriptor::CPPTYPE_FLOAT:
        return reflection.SetFloat(ref.message, ref.field, ref.field->default_value_float());
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return reflection.SetDouble(ref.message, ref.field, ref.field->default_value_double());
      case FieldDescriptor::CPPTYPE_BOOL:
        return reflection.SetBool(ref.message, ref.field, ref.field->default_value_bool());
      case FieldDescriptor::CPPTYPE_ENUM:
        return reflection.SetEnum(ref.message, ref.field, ref.field->default_value_enum());
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection.SetString(ref.message, ref.field, ref.field->default_value_string());
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return;
    }
  });
}

void resolve_run(RunSection& run, const Surroundings& surroundings) {
  if (!run.has_dir()) run.set_dir("runs/" + run.name());
  if (run.device() == RunSection::AUTO)
    run.set_device(surroundings.cuda == Surroundings::Cuda::Present ? RunSection::CUDA : RunSection::CPU);
}

void resolve_model(RunConfig& config, const Origins& origins, const Surroundings& surroundings, Problems& problems) {
  ModelConfig& model = *config.mutable_model();
  const bool llama = model.family() == ModelConfig::LLAMA;
  const int64_t hidden = model.hidden_size(), heads = model.num_attention_heads();
  if (!model.has_num_key_value_heads()) model.set_num_key_value_heads(heads);
  if (!model.has_head_dim()) {
    if (hidden % heads != 0)
      problems.add(origins, {"model.num_attention_heads", "model.hidden_size"},
                   fmt::format("model.hidden_size = {}: must be a multiple of model.num_attention_heads = {}, as "
                               "model.head_dim is not set; choose {}, or set model.head_dim",
                               hidden, heads,
                               hidden > heads ? fmt::format("{} or {}", hidden / heads * heads, round_up(hidden, heads))
                                              : std::to_string(heads)));
    model.set_head_dim(std::max<int64_t>(1, hidden / heads));
  }
  if (!model.has_intermediate_size())
    model.set_intermediate_size(llama ? round_up((8 * hidden + 2) / 3, 64) : 4 * hidden);
  if (!model.has_max_position_embeddings()) model.set_max_position_embeddings(config.data().sequence_length());
  if (!model.has_tie_word_embeddings()) model.set_tie_word_embeddings(!llama);
  if (!model.has_vocab_size()) {
    if (surroundings.tokenizer_vocab_size > 0)
      model.set_vocab_size(surroundings.tokenizer_vocab_size);
    else if (config.data().has_tokenizer())
      problems.add(origins, {"data.tokenizer"},
                   fmt::format("model.vocab_size is not set, and data.tokenizer = {} is not there to take it from; set "
                               "it, or make the data first (a demo's by launch/quickstart.sh --data-only)",
                               config.data().tokenizer()));
    else
      problems.add(
          "model.vocab_size is not set, and neither data.tokenizer nor data.train is there to take it from; set one of "
          "them");
  }
}

// "shards/web/" -> "web", "a/b.h5" -> "b.h5".
std::string last_part(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || path.size() == 1 ? path : path.substr(slash + 1);
}

void resolve_schedule(LrScheduleConfig& schedule, int64_t steps) {
  if (schedule.kind() == LrScheduleConfig::CONSTANT) return;
  if (!schedule.has_decay_end_step()) schedule.set_decay_end_step(std::max(steps, schedule.warmup_steps()));
  if (schedule.kind() != LrScheduleConfig::WSD || schedule.has_decay_steps()) return;
  const int64_t tenth = round_up(schedule.decay_end_step(), 10) / 10;
  schedule.set_decay_steps(std::clamp<int64_t>(schedule.decay_end_step() - schedule.warmup_steps(), 0, tenth));
}

}  // namespace

Layout resolve(RunConfig& config, const Origins& origins, const Surroundings& surroundings) {
  Problems problems;
  check_ranges(config, origins, problems);
  check_fields(config, origins, problems);
  set_schema_defaults(config);
  check_available(config, origins, surroundings, problems);
  // What follows divides by the sizes.
  problems.throw_if_any();

  resolve_run(*config.mutable_run(), surroundings);
  resolve_model(config, origins, surroundings, problems);
  for (auto* sources : {config.mutable_data()->mutable_train(), config.mutable_data()->mutable_validation()}) {
    for (DataSource& source : *sources) {
      if (!source.has_name() && !source.path().empty()) source.set_name(last_part(source.path()));
    }
  }
  resolve_schedule(*config.mutable_lr_schedule(), config.run().steps());
  const size_t found = problems.messages().size();
  check_products(config, origins, problems);
  if (problems.messages().size() > found) problems.throw_if_any();  // what follows multiplies
  try {
    config.mutable_parallel()->set_dp(MeshShape::resolve(config.parallel(), surroundings.world_size).dp);
  } catch (const UsageError& error) {
    problems.add(origins, {"parallel.tp", "parallel.pp", "parallel.cp", "parallel.dp"}, error.what());
  }
  std::optional<Layout> layout;
  if (config.parallel().dp() > 0 && config.model().has_vocab_size())
    layout = check_relations(config, origins, surroundings, problems);
  problems.throw_if_any();
  TESSERA_CHECK(layout.has_value(), "a config without problems has a layout");
  return *std::move(layout);
}

}  // namespace tessera
