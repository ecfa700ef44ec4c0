#include "model/block.h"

#include <algorithm>

#include "model/sublayers.h"
#include "tensor/ops/elementwise.h"

namespace tessera {
namespace {

std::string block_name(int layer) { return "blocks." + std::to_string(layer); }

const Tensor& either(const Tensor& a, const Tensor& b) { return a.data() != nullptr ? a : b; }

Block::HalfSaved either(const Block::HalfSaved& a, const Block::HalfSaved& b) {
  Block::HalfSaved half{.norm = {either(a.norm.mean, b.norm.mean), either(a.norm.rstd, b.norm.rstd)},
                        .h = either(a.h, b.h),
                        .sublayer = {}};
  for (size_t i = 0; i < half.sublayer.size(); ++i) half.sublayer[i] = either(a.sublayer[i], b.sublayer[i]);
  return half;
}

}  // namespace

Block::Half::Half(const ModelShape& shape, const std::string& norm_name, std::unique_ptr<Sublayer> of)
    : norm(shape, norm_name), sublayer(std::move(of)) {}

void Block::Half::forward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const HalfSaved& saved,
                          const Tensor& y) const {
  norm.forward(run.context, x, saved.norm, saved.h);
  sublayer->forward(run, plan, saved.h, saved.sublayer, y);
  add(run.context, x, y, y);
}

void Block::Half::allocate(Arena& arena, SavedPart part, HalfSaved& saved) const {
  if (part == SavedPart::Projected)
    saved.norm = norm.allocate(arena);
  else
    saved.h = norm.take_output(arena);
  sublayer->allocate(arena, part, saved.sublayer);
}

Block::Block(const ModelShape& shape, int layer, Recompute recompute)
    : shape_(shape),
      recompute_(recompute),
      mixer_(shape, block_name(layer) + ".norm1", make_mixer(shape, layer)),
      feed_forward_(shape, block_name(layer) + ".norm2", make_feed_forward(shape, layer)) {}

void Block::forward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x0, const Saved& saved,
                    const Tensor& x2) const {
  mixer_.forward(run, plan, x0, saved.mixer, saved.x1);
  feed_forward_.forward(run, plan, saved.x1, saved.feed_forward, x2);
}

void Block::recompute(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x0, const Saved& saved) const {
  if (recompute_ == Recompute::None) return;
  if (makes_again(recompute_, SavedPart::Projected)) {
    mixer_.forward(run, plan, x0, saved.mixer, saved.x1);
  } else {
    mixer_.norm.forward(run.context, x0, saved.mixer.norm, saved.mixer.h);
    mixer_.sublayer->make_again(run, plan, saved.mixer.h, saved.mixer.sublayer, recompute_);
  }
  // x2 is needed no more, so the feed-forward's output is not made.
  feed_forward_.norm.forward(run.context, saved.x1, saved.feed_forward.norm, saved.feed_forward.h);
  feed_forward_.sublayer->make_again(run, plan, saved.feed_forward.h, saved.feed_forward.sublayer, recompute_);
}

void Block::backward_input(LayerRun run, const MicrobatchPlan& plan, const Tensor& x0, const Saved& saved,
                           const ConstTensor& dx2) {
  ArenaScope scope(run.context.workspace());
  const Tensor dh = take_residual(run.context.workspace());
  feed_forward_.sublayer->backward_input(run, plan, dx2, saved.feed_forward.sublayer, dh);
  feed_forward_.norm.backward(run.context, dh, saved.x1, saved.feed_forward.norm, dx2, saved.x1);
  mixer_.sublayer->backward_input(run, plan, saved.x1, saved.mixer.sublayer, dh);
  mixer_.norm.backward(run.context, dh, x0, saved.mixer.norm, saved.x1, x0);
}

void Block::backward_weight(LayerRun run, const Saved& saved, const ConstTensor& dx2, TokenGathers& all) {
  feed_forward_.sublayer->backward_weight(run, dx2, saved.feed_forward.h, saved.feed_forward.sublayer, all);
  mixer_.sublayer->backward_weight(run, saved.x1, saved.mixer.h, saved.mixer.sublayer, all);
}

void Block::backward(LayerRun run, const MicrobatchPlan& plan, const Tensor& x0, const Saved& saved,
                     const ConstTensor& dx2) {
  ArenaScope scope(run.context.workspace());
  const Tensor dh = take_residual(run.context.workspace());
  feed_forward_.sublayer->backward(run, plan, dx2, saved.feed_forward.h, saved.feed_forward.sublayer, dh);
  feed_forward_.norm.backward(run.context, dh, saved.x1, saved.feed_forward.norm, dx2, saved.x1);
  mixer_.sublayer->backward(run, plan, saved.x1, saved.mixer.h, saved.mixer.sublayer, dh);
  mixer_.norm.backward(run.context, dh, x0, saved.mixer.norm, saved.x1, x0);
}

Block::Saved Block::allocate(Arena& arena, Portion portion) const {
  Saved saved;
  for (const SavedPart part : kSavedParts) {
    if (makes_again(recompute_, part) != (portion == Portion::MadeAgain)) continue;
    mixer_.allocate(arena, part, saved.mixer);
    if (part == SavedPart::Projected) saved.x1 = take_residual(arena);
    feed_forward_.allocate(arena, part, saved.feed_forward);
  }
  return saved;
}

int64_t Block::saved_bytes(Portion portion) const {
  Arena tally = Arena::tally();
  allocate(tally, portion);
  return tally.used();
}

Block::Saved Block::joined(const Saved& kept, const Saved& made_again) {
  return {.mixer = either(kept.mixer, made_again.mixer),
          .x1 = either(kept.x1, made_again.x1),
          .feed_forward = either(kept.feed_forward, made_again.feed_forward)};
}

void Block::prepare(Context& context) const {
  mixer_.sublayer->prepare(context);
  feed_forward_.sublayer->prepare(context);
}

int64_t Block::forward_workspace(Target target) const {
  return std::max(mixer_.sublayer->forward_workspace(target), feed_forward_.sublayer->forward_workspace(target));
}

int64_t Block::backward_input_workspace(Target target) const {
  return residual_bytes() + std::max({mixer_.norm.workspace(target), mixer_.sublayer->backward_input_workspace(target),
                                      feed_forward_.sublayer->backward_input_workspace(target)});
}

int64_t Block::backward_weight_workspace(Target target) const {
  return std::max(mixer_.sublayer->backward_weight_workspace(target),
                  feed_forward_.sublayer->backward_weight_workspace(target));
}

int64_t Block::backward_workspace(Target target) const {
  return residual_bytes() + std::max({mixer_.norm.workspace(target), mixer_.sublayer->backward_workspace(target),
                                      feed_forward_.sublayer->backward_workspace(target)});
}

int64_t Block::most_exchanged() const {
  return std::max(mixer_.sublayer->most_exchanged(), feed_forward_.sublayer->most_exchanged());
}

Cost Block::cost() const {
  return mixer_.norm.cost() + mixer_.sublayer->cost() + feed_forward_.norm.cost() + feed_forward_.sublayer->cost();
}

void Block::add_parameters(Parameters& parameters) {
  for (Half* half : {&mixer_, &feed_forward_}) {
    half->norm.add_parameters(parameters);
    half->sublayer->add_parameters(parameters);
  }
}

int64_t parameter_count(const ModelShape& shape, int layer) {
  Parameters parameters;
  Block(shape, layer, Recompute::None).add_parameters(parameters);
  return static_cast<int64_t>(parameters.size());
}

}  // namespace tessera
