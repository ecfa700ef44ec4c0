// The global L2 norm of the gradient, and clipping by it (Pascanu, Mikolov and Bengio 2013).
//
// norm = sqrt(sum over parameters, in the model's order, of the sum of squares of the global gradient)
//
// A rank sums the squares of the rows that it owns; where several own the same ones, each takes a part of them, and
// every element counts once. All ranks add up one vector, an element a parameter, in rank order; its sum is made in the
// model's order. So the norm is bitwise the same under any schedule of one layout, and on every rank.
#pragma once

#include <cstdint>
#include <vector>

#include "optim/gradients.h"
#include "optim/square_sums.h"
#include "tensor/context/context.h"

namespace tessera {

// What to multiply the gradient by so that its norm is at most max_norm; 1 when it is already, or when max_norm is 0
// (no clipping). Throws NumericalError when clipping is asked for and the norm is not finite.
double clip_scale(double norm, double max_norm);

class GradientNorm {
 public:
  // device: where the gradients lie.
  GradientNorm(Comm& world, const Parameters& parameters, Device device);

  // Collective over the world; every sum must be whole (Gradients::join). Waits for a device once.
  double compute(const Context& context, const std::vector<GradientShare>& shares);

  int64_t bytes() const { return sums_.bytes(); }  // where the gradients lie
  static int64_t bytes(const Parameters& parameters);

 private:
  Comm& world_;
  SquareSums sums_;  // by ordinal
};

}  // namespace tessera
