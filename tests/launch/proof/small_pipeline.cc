#include "tests/launch/proof/small_pipeline.h"

#include <algorithm>

#include "launch/config/override.h"
#include "launch/config/resolve.h"
#include "launch/run.pb.h"

namespace tessera::testing {

RunConfig config_of(int family, bool tied, const std::vector<std::string>& fields, const SmallSizes& sizes) {
  RunConfig config;
  config.mutable_run()->set_compute_dtype(RunSection::F64);
  ModelConfig& model = *config.mutable_model();
  model.set_family(static_cast<ModelConfig::Family>(family));
  model.set_hidden_size(sizes.hidden);
  model.set_num_hidden_layers(sizes.layers);
  model.set_num_attention_heads(sizes.heads);
  model.set_num_key_value_heads(family == ModelConfig::LLAMA ? sizes.kv_heads : sizes.heads);
  model.set_vocab_size(sizes.vocab);
  model.set_intermediate_size(sizes.ffn);
  model.set_max_position_embeddings(sizes.sequence);
  model.set_tie_word_embeddings(tied);
  model.set_initializer_range(0.1);
  config.mutable_data()->set_sequence_length(sizes.sequence);
  config.mutable_data()->set_global_batch_size(sizes.batch);
  config.mutable_lr_schedule()->set_learning_rate(1e-2);
  config.mutable_lr_schedule()->set_kind(LrScheduleConfig::CONSTANT);
  Origins origins;
  Problems problems;
  for (const std::string& field : fields) apply_override("parallel." + field, config, origins, problems);
  problems.throw_if_any();
  const ParallelConfig& parallel = config.parallel();
  const int ranks = parallel.tp() * parallel.cp() * parallel.pp() * std::max(1, parallel.dp());
  resolve(config, origins, {.world_size = ranks, .data = Surroundings::Data::NotNeeded});
  return config;
}

}  // namespace tessera::testing
