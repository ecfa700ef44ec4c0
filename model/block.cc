#include "model/block.h"

#include <algorithm>

#include "tensor/ops/elementwise.h"

namespace tessera {
namespace {

std::string block_name(int index) { return "blocks." + std::to_string(index); }

}  // namespace

Block::Block(const ModelShape& shape, int index)
    : shape_(shape),
      norm1_(shape, block_name(index) + ".norm1", index),
      attention_(shape, block_name(index) + ".attention", index),
      norm2_(shape, block_name(index) + ".norm2", index),
      mlp_(shape, block_name(index) + ".mlp", index) {}

void Block::forward(LayerRun run, const MicrobatchPlan& plan, const Saved& saved, const Tensor& x2) const {
  norm1_.forward(run.context, saved.x0, saved.norm1, saved.h1);
  attention_.forward(run, plan, saved.h1, saved.attention, saved.x1);
  add(run.context, saved.x0, saved.x1, saved.x1);
  norm2_.forward(run.context, saved.x1, saved.norm2, saved.h2);
  mlp_.forward(run, saved.h2, saved.mlp, x2);
  add(run.context, saved.x1, x2, x2);
}

void Block::backward_input(LayerRun run, const MicrobatchPlan& plan, const Saved& saved, const ConstTensor& dx2) {
  ArenaScope scope(run.context.workspace());
  const Tensor dh = take_residual(run.context.workspace());
  mlp_.backward_input(run, dx2, saved.mlp, dh);
  norm2_.backward(run.context, dh, saved.x1, saved.norm2, dx2, saved.x1);
  attention_.backward_input(run, plan, saved.x1, saved.attention, dh);
  norm1_.backward(run.context, dh, saved.x0, saved.norm1, saved.x1, saved.x0);
}

void Block::backward_weight(LayerRun run, const Saved& saved, const ConstTensor& dx2) {
  mlp_.backward_weight(run, dx2, saved.h2, saved.mlp);
  attention_.backward_weight(run, saved.x1, saved.h1, saved.attention);
}

Block::Saved Block::allocate(Arena& arena) const {
  Saved saved;
  saved.x0 = take_residual(arena);
  saved.norm1 = norm1_.allocate(arena);
  saved.h1 = take_residual(arena);
  saved.attention = attention_.allocate(arena);
  saved.x1 = take_residual(arena);
  saved.norm2 = norm2_.allocate(arena);
  saved.h2 = take_residual(arena);
  saved.mlp = mlp_.allocate(arena);
  return saved;
}

void Block::prepare(Context& context) const {
  attention_.prepare(context);
  mlp_.prepare(context);
}

int64_t Block::workspace(const Context& context) const {
  return Arena::bytes({shape_.local_slots(), shape_.hidden}, shape_.compute) +
         std::max({norm1_.workspace(context), attention_.workspace(context), mlp_.workspace()});
}

Cost Block::cost() const {
  Cost cost = norm1_.cost() + attention_.cost() + norm2_.cost() + mlp_.cost();
  cost.saved_bytes += 4 * Arena::bytes({shape_.local_slots(), shape_.hidden}, shape_.compute);
  return cost;
}

void Block::add_parameters(Parameters& parameters) {
  norm1_.add_parameters(parameters);
  attention_.add_parameters(parameters);
  norm2_.add_parameters(parameters);
  mlp_.add_parameters(parameters);
}

}  // namespace tessera
