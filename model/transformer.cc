#include "model/transformer.h"

#include <algorithm>

namespace tessera {

Transformer::Transformer(const ModelShape& shape, int microbatch_slots)
    : shape_(shape),
      microbatch_slots_(microbatch_slots),
      embedding_(shape),
      head_(shape, shape.tied ? &embedding_.table() : nullptr) {
  for (int i = 0; i < shape.layers; ++i) blocks_.push_back(std::make_unique<Block>(shape, i));
  embedding_.add_parameters(parameters_);
  for (const auto& block : blocks_) block->add_parameters(parameters_);
  head_.add_parameters(parameters_);
}

int64_t Transformer::weights_bytes() const {
  int64_t bytes = 0;
  for (const Parameter* parameter : parameters_) bytes += Arena::bytes(parameter->local_shape(), shape_.compute);
  return bytes;
}

int64_t Transformer::activations_bytes() const {
  const int64_t last = Arena::bytes({shape_.local_slots(), shape_.hidden}, shape_.compute);
  return microbatch_slots_ * (MicrobatchPlan::bytes(shape_) + cost().saved_bytes + last);
}

int64_t Transformer::workspace_bytes(const Context& context) const {
  int64_t bytes = std::max(embedding_.workspace(), head_.workspace(context));
  if (!blocks_.empty()) bytes = std::max(bytes, blocks_.front()->workspace(context));
  return bytes;
}

Cost Transformer::cost() const {
  Cost cost = embedding_.cost() + head_.cost();
  if (!blocks_.empty()) cost += shape_.layers * blocks_.front()->cost();
  return cost;
}

void Transformer::allocate(Context& context, Comm& tp) {
  TESSERA_CHECK_EQ(tp.size(), shape_.tp, "tensor-parallel ranks");
  TESSERA_CHECK_EQ(tp.rank(), shape_.tp_rank, "tensor-parallel rank");
  tp_ = &tp;
  weights_ = Arena("weights", context.device(), weights_bytes());
  for (Parameter* parameter : parameters_) parameter->value = weights_.take(parameter->local_shape(), shape_.compute);
  activations_ = Arena("activations", context.device(), activations_bytes());
  slots_.resize(microbatch_slots_);
  for (Slot& slot : slots_) {
    slot.plan = MicrobatchPlan(shape_, activations_);
    for (const auto& block : blocks_) slot.blocks.push_back(block->allocate(activations_));
    slot.last = activations_.take({shape_.local_slots(), shape_.hidden}, shape_.compute);
    slot.head = head_.allocate(activations_);
  }
  TESSERA_CHECK_EQ(activations_.used(), activations_.capacity(), "the layers' statements of saved bytes");
  if (!blocks_.empty()) blocks_.front()->prepare(context);
  head_.prepare(context);
}

void Transformer::forward_blocks(Context& context, const Batch& batch, Slot& slot) {
  TESSERA_CHECK_EQ(batch.slots(), shape_.slots, "token slots of a microbatch");
  slot.plan.make(shape_, context, batch);
  embedding_.forward(run(context), batch, residual(slot, 0));
  for (size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i]->forward(run(context), slot.plan, slot.blocks[i], residual(slot, i + 1));
  }
}

double Transformer::forward(Context& context, const Batch& batch, int slot, double loss_scale) {
  Slot& saved = slots_.at(slot);
  forward_blocks(context, batch, saved);
  return head_.forward(run(context), batch, saved.last, saved.head, loss_scale, Head::Mode::Train);
}

double Transformer::evaluate(Context& context, const Batch& batch, double loss_scale) {
  Slot& scratch = slots_.front();  // no microbatch is alive between steps
  forward_blocks(context, batch, scratch);
  return head_.forward(run(context), batch, scratch.last, scratch.head, loss_scale, Head::Mode::Evaluate);
}

void Transformer::backward_input(Context& context, const Batch&, int slot) {
  Slot& saved = slots_.at(slot);
  head_.backward_input(run(context), saved.last, saved.head);
  for (size_t i = blocks_.size(); i-- > 0;) {
    blocks_[i]->backward_input(run(context), saved.plan, saved.blocks[i], residual(saved, i + 1));
  }
}

void Transformer::backward_weight(Context& context, const Batch& batch, int slot) {
  Slot& saved = slots_.at(slot);
  for (size_t i = blocks_.size(); i-- > 0;) {
    blocks_[i]->backward_weight(run(context), saved.blocks[i], residual(saved, i + 1));
  }
  embedding_.backward_weight(run(context), batch, residual(saved, 0));
}

void Transformer::logits(Context& context, const Batch& batch, int64_t first, const Tensor& logits) {
  Slot& scratch = slots_.front();
  forward_blocks(context, batch, scratch);
  head_.logits(run(context), scratch.last, first, logits);
}

}  // namespace tessera
