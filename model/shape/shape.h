// The sizes of a model on one rank, worked out once from the resolved config and the rank's place in the mesh.
//
// Letters used in the headers of this folder:
//   slots    token slots of a microbatch on this context-parallel rank (parallel/context/plan.h)
//   hidden   width of the residual stream
//   ffn      width of the MLP
//   tp       tensor-parallel ranks; between blocks a rank holds slots/tp tokens
//   cp       context-parallel ranks
//
// Maximal update parametrisation (Yang et al. 2022, "Tensor Programs V", table 8, for Adam): with r = hidden /
// mup_base_width, m the output and a the attention multiplier,
//
//                                        standard            maximal update
//   embedding, positions, norms, biases  as stated           as stated: deviation and learning rate know no width
//   matrices inside blocks: deviation    initializer_range   initializer_range / sqrt(r)
//                           learning     learning_rate       learning_rate / r, and weight decay as if it were not
//   logits                               W h                 (m / r) W h
//   attention scores                     q k / sqrt(d)       a q k / d
//
// Nothing else knows of it: a shard of a matrix has its deviation and its rate, whatever the mesh.
#pragma once

#include <cstdint>
#include <vector>

#include "model/shape/layer_kind.h"
#include "parallel/context/plan.h"
#include "tensor/dtype.h"
#include "tensor/interval.h"
#include "tensor/ops/rope.h"

namespace tessera {

class ModelConfig;  // model/model.proto

enum class NormKind : uint8_t { Rms, Layer };
enum class PositionKind : uint8_t { Rope, Learned };

// What all layers of a model share, on one rank.
struct ModelSizes {
  // The family's choices.
  NormKind norm = NormKind::Rms;
  PositionKind position = PositionKind::Rope;  // where positions enter: by the layers' rotations, or with the embedding
  bool tied = false;                           // head and embedding share one table

  // Global sizes.
  int64_t hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0, positions = 0;
  double norm_epsilon = 1e-5, initializer_range = 0.02;
  // What the parametrisation chooses.
  double width_ratio = 1;           // r
  double output_scale = 1;          // of the logits
  double attention_multiplier = 0;  // a; 0: the standard scale

  // This rank.
  int tp = 1, tp_rank = 0;
  int cp = 1, cp_rank = 0;
  int64_t slots = 0;
  DType compute = DType::F32;

  DType accumulation() const { return accumulation_dtype(compute); }
  int64_t local_slots() const { return slots / tp; }
  int64_t local_ffn() const { return ffn / tp; }
  HeadLayout local_heads() const { return {kv_heads / tp, heads / kv_heads, head_dim}; }
  ExchangeShape exchange_shape(const ContextExchange& exchange) const {
    const HeadLayout local = local_heads();
    return tessera::exchange_shape(exchange, cp, cp_rank, slots, local.q_heads(), local.kv_heads, head_dim, compute);
  }
  Interval vocab_rows() const { return shard({0, vocab}, tp, tp_rank); }
  double attention_scale() const;   // of q k
  double matrix_deviation() const;  // initial standard deviation of the matrices that read the residual stream
};

// A model on one rank. A layer keeps the sizes alone, so that a model's memory does not grow with the square of its
// depth.
struct ModelShape : ModelSizes {
  std::vector<LayerKind> layers;  // of the whole model, in order

  int blocks() const { return static_cast<int>(layers.size()); }
  // Initial standard deviation of the matrices that write to the residual stream, of which a layer has two (Radford et
  // al. 2019).
  double residual_deviation() const;
};

// The windows of a model's layers of attention, each with how many layers have it.
std::vector<AttentionKind> attention_kinds(const ModelShape& shape);

// What a run chooses beside the model's config: this rank's place, and how the model is run.
struct ShapeRequest {
  int tp = 1, tp_rank = 0;
  int cp = 1, cp_rank = 0;
  int64_t slots = 0;  // of this context-parallel rank
  DType compute = DType::F32;
  // What the linear layers between the first layer and the last multiply. Those two, the embedding and the head keep
  // to the compute dtype: what enters and leaves the network is the most sensitive to rounding.
  ProductFormat inner_products = ProductFormat::Compute;
  std::vector<ContextExchange> exchanges = {};  // by layer; empty: all gather
};

// config: resolved (every field that may be unset is set). Throws UsageError naming the rule where sizes do not fit.
ModelShape model_shape(const ModelConfig& config, const ShapeRequest& request);

// The same model and slots on one rank that has all of every layer.
ModelShape whole_shape(ModelShape shape);

}  // namespace tessera
