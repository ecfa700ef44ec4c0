// What one layer of a model is: its mixer with its settings, its feed-forward, and what its linear layers are made of.
//
// A ModelShape has one for each layer. So a layer that differs from its neighbours is an entry of a list: what layers
// share (plans of a microbatch, numbers of parameters, costs) is found by comparing kinds.
#pragma once

#include <cstdint>

#include "model/shape/context_exchange.h"

namespace tessera {

// The half of a block in which tokens see each other.
enum class MixerKind : uint8_t { Attention };
constexpr int kMixerKinds = 1;

// The half in which each token is on its own.
enum class FeedForwardKind : uint8_t { SwiGlu, Gelu };

// What the products of a linear layer multiply: its operands as they are, or quantised to 8 bits
// (model/layers/linear_products.h).
enum class ProductFormat : uint8_t { Compute, Fp8 };
enum class BiasKind : uint8_t { None, Bias };

struct LinearKind {
  ProductFormat format = ProductFormat::Compute;
  BiasKind bias = BiasKind::None;

  bool operator==(const LinearKind&) const = default;
};

// How a layer attends.
struct LayerAttention {
  int64_t window = 0;  // keys that a query sees back, itself included; 0: all of its document
  ContextExchange exchange = {};
  double rope_theta = 10000;  // base of the rotations of queries and keys (Su et al. 2021); 0: they are not rotated

  bool operator==(const LayerAttention&) const = default;
};

struct LayerKind {
  MixerKind mixer = MixerKind::Attention;
  LayerAttention attention = {};  // where the mixer is attention
  FeedForwardKind feed_forward = FeedForwardKind::SwiGlu;
  LinearKind linear = {};  // of all its matrices

  bool operator==(const LayerKind&) const = default;
};

}  // namespace tessera
