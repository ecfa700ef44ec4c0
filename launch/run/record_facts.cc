#include "launch/run/record_facts.h"

#include "launch/config/text.h"
#include "launch/run.pb.h"
#include "launch/run/announcement.h"
#include "launch/run/phase.h"
#include "model/cost.h"
#include "scaling/training_record.pb.h"

namespace tessera {
namespace {

void add(const OpenSource& source, TrainingRecord::Source& fact) {
  fact.set_name(source.name);
  fact.set_weight(source.weight);
  fact.set_tokens(source.dataset.tokens());
  fact.set_identity(source.dataset.identity());
}

void set_model(TrainingRecord& facts, const ModelShape& shape, int64_t parameters) {
  const TableParameters tables = table_parameters(shape);
  facts.set_tied(shape.tied);
  facts.set_parameters(parameters);
  facts.set_embedding_parameters(tables.embedding);
  facts.set_head_parameters(tables.head);
}

}  // namespace

void set_facts(TrainingRecord& facts, const RunConfig& config, uint64_t seed, int ranks, Phase& phase) {
  facts.set_name(config.run().name());
  if (config.run().has_variant()) facts.set_variant(config.run().variant());
  facts.set_planned_steps(config.run().steps());
  set_model(facts, phase.assembly().shape(), phase.assembly().model_parameters());
  facts.set_sequence_length(config.data().sequence_length());
  facts.set_batch_tokens(config.data().global_batch_size() * config.data().sequence_length());
  facts.set_learning_rate(config.lr_schedule().learning_rate());
  facts.set_warmup_steps(config.lr_schedule().warmup_steps());
  facts.set_seed(seed);
  facts.set_config_hash(config_hash(config));
  facts.set_tokenizer(phase.loader().sources().front().dataset.tokenizer_fingerprint());
  for (const OpenSource& source : phase.loader().sources()) add(source, *facts.add_train());
  for (const ValidationSet& set : phase.validation()) add(set.loader->sources().front(), *facts.add_validation());
  facts.set_ranks(ranks);
  facts.set_layout(layout_text(phase.assembly().mesh().shape()));
  facts.set_compute_dtype(RunSection::ComputeDtype_Name(config.run().compute_dtype()));
}

}  // namespace tessera
