#include "model/layers/embedding.h"

#include "parallel/regions.h"
#include "tensor/ops/embedding.h"

namespace tessera {

Embedding::Embedding(const ModelShape& shape)
    : shape_(shape), table_(split_parameter(shape, "embedding", {shape.vocab, shape.hidden})) {
  table_.forward_reads_alone = true;
  if (shape.position == PositionKind::Learned) {
    positions_ = whole_parameter("positions", {shape.positions, shape.hidden});
    positions_.standard_deviation = shape.initializer_range;
    positions_.forward_reads_alone = true;
  }
}

std::span<const int32_t> Embedding::local_positions(const Batch& batch) const {
  return batch.position.subspan(shape_.tp_rank * shape_.local_slots(), shape_.local_slots());
}

void Embedding::forward(LayerRun run, const Batch& batch, const Tensor& x) const {
  ArenaScope scope(run.context.workspace());
  const Tensor partial =
      shape_.tp == 1 ? x : run.context.workspace().take({shape_.slots, shape_.hidden}, shape_.compute);
  embedding(run.context, batch.tokens, table_.value, table_.rows.begin, partial);
  scatter_sum_tokens(run.context, run.tp, partial, x);
  if (shape_.position == PositionKind::Learned) {
    embedding_add(run.context, local_positions(batch), positions_.value, 0, x);
  }
}

void Embedding::backward_weight(LayerRun run, const Batch& batch, const ConstTensor& dx) {
  embedding_backward(run.context, batch.tokens, dx, table_.rows.begin, table_.gradient);
  if (shape_.position == PositionKind::Learned) {
    embedding_backward(run.context, local_positions(batch), own_tokens(shape_, dx), 0, positions_.gradient);
  }
}

int64_t Embedding::workspace() const {
  return gather_workspace(shape_.tp, {shape_.local_slots(), shape_.hidden}, shape_.compute);
}

Cost Embedding::cost() const {
  const int64_t moved = tp_sent(shape_, shape_.slots * shape_.hidden);
  const int64_t learned = shape_.position == PositionKind::Learned ? shape_.positions * shape_.hidden : 0;
  const int64_t elements = table_.rows.size() * shape_.hidden + learned;
  return {.parameters = elements,
          .table_parameters = elements,
          .forward_sent = moved,
          .backward_weight_sent = moved,
          .backward_sent = moved};
}

void Embedding::add_parameters(Parameters& parameters) {
  parameters.push_back(&table_);
  if (shape_.position == PositionKind::Learned) parameters.push_back(&positions_);
}

}  // namespace tessera
