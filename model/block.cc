#include "model/block.h"

#include <algorithm>

#include "tensor/ops/elementwise.h"

namespace tessera {
namespace {

std::string block_name(int index) { return "blocks." + std::to_string(index); }

const Tensor& either(const Tensor& a, const Tensor& b) { return a.data() != nullptr ? a : b; }

}  // namespace

Block::Block(const ModelShape& shape, int index, Recompute recompute)
    : shape_(shape),
      recompute_(recompute),
      norm1_(shape, block_name(index) + ".norm1"),
      attention_(shape, shape.attention_of(index), block_name(index) + ".attention", shape.products_of(index)),
      norm2_(shape, block_name(index) + ".norm2"),
      mlp_(shape, block_name(index) + ".mlp", shape.products_of(index)) {}

void Block::forward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x0, const Saved& saved,
                    const Tensor& x2) const {
  norm1_.forward(run.context, x0, saved.norm1, saved.h1);
  attention_.forward(run, plan, saved.h1, saved.attention, saved.x1);
  add(run.context, x0, saved.x1, saved.x1);
  norm2_.forward(run.context, saved.x1, saved.norm2, saved.h2);
  mlp_.forward(run, saved.h2, saved.mlp, x2);
  add(run.context, saved.x1, x2, x2);
}

void Block::recompute(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x0, const Saved& saved) const {
  if (recompute_ == Recompute::None) return;
  const bool full = recompute_ == Recompute::Full;
  norm1_.forward(run.context, x0, saved.norm1, saved.h1);
  if (full) attention_.project(run, plan, saved.h1, saved.attention);
  attention_.attend(run, plan, saved.attention);
  if (full) {
    attention_.output(run, saved.attention, saved.x1);
    add(run.context, x0, saved.x1, saved.x1);
  }
  norm2_.forward(run.context, saved.x1, saved.norm2, saved.h2);
  // x2 is needed no more, so the down projection is not repeated.
  full ? mlp_.expand(run, saved.h2, saved.mlp) : mlp_.activate(run, saved.mlp);
}

void Block::backward_input(LayerRun run, const MicrobatchPlan& plan, const Tensor& x0, const Saved& saved,
                           const ConstTensor& dx2) {
  ArenaScope scope(run.context.workspace());
  const Tensor dh = take_residual(run.context.workspace());
  mlp_.backward_input(run, dx2, saved.mlp, dh);
  norm2_.backward(run.context, dh, saved.x1, saved.norm2, dx2, saved.x1);
  attention_.backward_input(run, plan, saved.x1, saved.attention, dh);
  norm1_.backward(run.context, dh, x0, saved.norm1, saved.x1, x0);
}

void Block::backward_weight(LayerRun run, const Saved& saved, const ConstTensor& dx2, TokenGathers& all) {
  mlp_.backward_weight(run, dx2, saved.h2, saved.mlp, all);
  attention_.backward_weight(run, saved.x1, saved.h1, saved.attention, all);
}

void Block::backward(LayerRun run, const MicrobatchPlan& plan, const Tensor& x0, const Saved& saved,
                     const ConstTensor& dx2) {
  ArenaScope scope(run.context.workspace());
  const Tensor dh = take_residual(run.context.workspace());
  mlp_.backward(run, dx2, saved.h2, saved.mlp, dh);
  norm2_.backward(run.context, dh, saved.x1, saved.norm2, dx2, saved.x1);
  attention_.backward(run, plan, saved.x1, saved.h1, saved.attention, dh);
  norm1_.backward(run.context, dh, x0, saved.norm1, saved.x1, x0);
}

Block::Saved Block::allocate(Arena& arena, Portion portion) const {
  const auto wanted = [&](bool made_again) { return made_again == (portion == Portion::MadeAgain); };
  Saved saved;
  if (wanted(recompute_ == Recompute::Full)) {
    saved.norm1 = norm1_.allocate(arena);
    attention_.allocate_projected(arena, saved.attention);
    saved.x1 = take_residual(arena);
    saved.norm2 = norm2_.allocate(arena);
    mlp_.allocate_expanded(arena, saved.mlp);
  }
  if (wanted(recompute_ != Recompute::None)) {
    saved.h1 = take_residual(arena);
    attention_.allocate_attended(arena, saved.attention);
    saved.h2 = take_residual(arena);
    mlp_.allocate_activated(arena, saved.mlp);
  }
  return saved;
}

int64_t Block::saved_bytes(Portion portion) const {
  Arena tally = Arena::tally();
  allocate(tally, portion);
  return tally.used();
}

Block::Saved Block::joined(const Saved& kept, const Saved& made_again) {
  const auto norm = [](const Norm::Saved& a, const Norm::Saved& b) {
    return Norm::Saved{either(a.mean, b.mean), either(a.rstd, b.rstd)};
  };
  const Saved &a = kept, &b = made_again;
  return {.norm1 = norm(a.norm1, b.norm1),
          .h1 = either(a.h1, b.h1),
          .attention = {either(a.attention.qkv, b.attention.qkv), either(a.attention.out, b.attention.out),
                        either(a.attention.lse, b.attention.lse)},
          .x1 = either(a.x1, b.x1),
          .norm2 = norm(a.norm2, b.norm2),
          .h2 = either(a.h2, b.h2),
          .mlp = {either(a.mlp.up, b.mlp.up), either(a.mlp.activation, b.mlp.activation)}};
}

void Block::prepare(Context& context) const {
  attention_.prepare(context);
  mlp_.prepare(context);
}

int64_t Block::workspace(Target target) const {
  const int64_t forward = std::max(attention_.forward_workspace(target), mlp_.forward_workspace());
  const int64_t backward_input = std::max(
      {norm1_.workspace(target), attention_.backward_input_workspace(target), mlp_.backward_input_workspace()});
  return std::max(forward, Arena::bytes({shape_.local_slots(), shape_.hidden}, shape_.compute) + backward_input);
}

int64_t Block::backward_weight_workspace() const {
  return std::max(attention_.backward_weight_workspace(), mlp_.backward_weight_workspace());
}

int64_t Block::backward_workspace(Target target) const {
  return Arena::bytes({shape_.local_slots(), shape_.hidden}, shape_.compute) +
         std::max({norm1_.workspace(target), attention_.backward_workspace(target), mlp_.backward_workspace()});
}

Cost Block::cost() const { return norm1_.cost() + attention_.cost() + norm2_.cost() + mlp_.cost(); }

void Block::add_parameters(Parameters& parameters) {
  norm1_.add_parameters(parameters);
  attention_.add_parameters(parameters);
  norm2_.add_parameters(parameters);
  mlp_.add_parameters(parameters);
}

}  // namespace tessera
