// A whole model on one pipeline rank, ready to run a microbatch.
#pragma once

#include <vector>

#include "model/transformer.h"
#include "tests/model/rig.h"

namespace tessera::testing {

constexpr int64_t kSlots = 32;
inline const std::vector<int> kDocuments{13, 1, 7, 8};  // and three slots of padding
constexpr double kScale = 1.0 / 25;                     // 29 tokens, of which 4 end a document

// Both gradients by two calls, or by the one that lets communication run beside compute.
enum class Backward : uint8_t { Apart, InARow };

// A model of one rank with memory, ready to run.
struct WholeModel {
  WholeModel(const ModelShape& shape, Comm& tp, Recompute recompute = Recompute::None, Overlap overlap = Overlap::On)
      : context({.threads = 1}),
        model(shape, {.part = {.last_block = shape.blocks()},
                      .recompute = std::vector<Recompute>(shape.layers.size(), recompute),
                      .areas = shape.blocks(),
                      .overlap = overlap}),
        memory((model.allocate(context, tp), context), model.parameters(), shape.compute) {
    context.resize_workspace(model.workspace_bytes(context.target()));
  }
  double step(const Batch& batch, Backward backward = Backward::Apart) {
    const double loss = forward(batch);
    model.recompute(context, batch, {}, all());
    if (backward == Backward::InARow) {
      model.backward(context, batch, {}, all());
    } else {
      model.backward_input(context, batch, {}, all());
      model.backward_weight(context, batch, {}, all());
    }
    return loss;
  }

  BlockRange all() const { return {0, model.blocks()}; }
  double forward(const Batch& batch) {
    model.clear_loss(context);
    model.forward(context, batch, {}, all(), kScale);
    return model.loss(context);
  }
  double evaluate(const Batch& batch) {
    model.clear_loss(context);
    model.evaluate(context, batch, {}, all(), kScale);
    return model.loss(context);
  }

  Context context;
  Transformer model;
  ParameterMemory memory;
};

inline std::vector<double> all_gradients(const Parameters& parameters) {
  std::vector<double> gradients;
  for (const Parameter* p : parameters) {
    const auto values = p->gradient.span<double>();
    gradients.insert(gradients.end(), values.begin(), values.end());
  }
  return gradients;
}

}  // namespace tessera::testing
