// What the model tests share: small shapes of both families, batches of packed documents, and parameters with memory.
#pragma once

#include <string>
#include <vector>

#include "model/layers/layer.h"
#include "model/sublayers.h"
#include "parallel/batch_memory.h"
#include "tensor/context/random.h"

namespace tessera::testing {

enum class Family : uint8_t { Llama, Gpt2 };
inline const char* name(Family family) { return family == Family::Llama ? "llama" : "gpt2"; }

inline ModelShape small_shape(Family family, int64_t slots, DType compute = DType::F64, int tp = 1, int tp_rank = 0) {
  ModelShape shape;
  LayerKind layer;
  if (family == Family::Gpt2) {
    shape.norm = NormKind::Layer;
    shape.position = PositionKind::Learned;
    shape.tied = true;
    layer.attention.rope_theta = 0;
    layer.feed_forward = FeedForwardKind::Gelu;
    layer.linear.bias = BiasKind::Bias;
  }
  shape.layers = {layer, layer};
  shape.hidden = 32;
  shape.heads = 8;
  shape.kv_heads = family == Family::Llama ? 4 : 8;
  shape.head_dim = 4;
  shape.ffn = 48;
  shape.vocab = 53;  // divides by nothing
  shape.positions = 64;
  shape.initializer_range = 0.2;  // large enough that every part of the network matters
  shape.compute = compute;
  shape.slots = slots;
  shape.tp = tp;
  shape.tp_rank = tp_rank;
  return shape;
}

inline void set_layers(ModelShape& shape, int layers) { shape.layers.resize(layers, shape.layers.front()); }
// Layer i of the model gets window i.
inline void set_windows(ModelShape& shape, const std::vector<int64_t>& windows) {
  for (size_t i = 0; i < windows.size(); ++i) shape.layers.at(i).attention.window = windows[i];
}
// All layers between the first and the last.
inline void set_inner_products(ModelShape& shape, ProductFormat format) {
  for (size_t i = 1; i + 1 < shape.layers.size(); ++i) shape.layers[i].linear.format = format;
}
inline MicrobatchPlan plan_of(const ModelShape& shape, Arena& arena) {
  return make_microbatch_plan(shape, shape.layers, arena, arena);
}

// A microbatch of packed documents of the given lengths, then padding, with random tokens.
struct PackedBatch : BatchMemory {
  PackedBatch(int64_t slots, const std::vector<int>& lengths, int64_t vocab, uint64_t seed = 1) : BatchMemory(slots) {
    const RandomStream random(seed, "tokens");
    const std::span<int32_t> tokens = array(&Batch::tokens), targets = array(&Batch::targets);
    int32_t document = 0, slot = 0;
    for (const int length : lengths) {
      add_document(slot, slot + length, document++);
      for (const int32_t end = slot + length; slot < end; ++slot) {
        tokens[slot] = static_cast<int32_t>(random.below(2 * slot, vocab));
        if (slot + 1 < end) targets[slot] = static_cast<int32_t>(random.below(2 * slot + 1, vocab));
      }
    }
  }
};

// Gives parameters memory: random values of the accumulation dtype rounded to `compute`, and zero gradients.
class ParameterMemory {
 public:
  ParameterMemory(Context& context, const Parameters& parameters, DType compute, uint64_t seed = 3) {
    int64_t bytes = 0;
    for (const Parameter* p : parameters) {
      bytes += Arena::bytes(p->local_shape(), compute) + Arena::bytes(p->local_shape(), accumulation_dtype(compute));
    }
    arena_ = Arena("test parameters", Device::Cpu, bytes);
    for (Parameter* p : parameters) {
      p->value = arena_.take(p->local_shape(), compute);
      p->gradient = arena_.take(p->local_shape(), accumulation_dtype(compute));
      initialise(context, *p, p->rows, seed, p->value);
    }
  }

 private:
  Arena arena_;
};

}  // namespace tessera::testing
