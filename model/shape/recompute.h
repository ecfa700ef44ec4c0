// Which activations a block keeps from forward to backward, and which it makes again.
//
// Chen, Xu, Zhang and Guestrin 2016 (checkpointing); Korthikanti et al. 2022 (selective). Floating-point results do not
// depend on it: what is made again is made by the same operations on the same operands. One exception: Selective makes
// GELU again by itself, where a GPU in BF16 made it with the product (tensor/ops/gemm/gemm_gelu.h), and the activation that
// the gradient of the down projection sees differs by a rounding.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

enum class Recompute : uint8_t {
  None,       // everything is kept
  Selective,  // kept: projections and residuals. Made again: norms' outputs, attention's output (for which
              // context-parallel ranks exchange again), the activation; no product with weights, nothing over tp
  Full,       // kept: the block's input only
};
const char* name(Recompute mode);

// How a tensor that backward needs is made: with products of weights or communication over tp, or from tensors of the
// same layer without either.
enum class SavedPart : uint8_t { Projected, Derived };
constexpr SavedPart kSavedParts[] = {SavedPart::Projected, SavedPart::Derived};
// Whether a block of that mode makes the part again, instead of keeping it.
constexpr bool makes_again(Recompute mode, SavedPart part) {
  return mode == Recompute::Full || (mode == Recompute::Selective && part == SavedPart::Derived);
}

// The mode of each of `blocks` blocks. Text: "none", "selective", "full" for all, or a plan by blocks of the whole
// model, "full:0-3,selective:4-7,full:10", the others keeping everything. Throws UsageError saying what is wrong.
std::vector<Recompute> recompute_plan(const std::string& text, int blocks);

}  // namespace tessera
