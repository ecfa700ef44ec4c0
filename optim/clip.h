// The global L2 norm of the gradient, and clipping by it (Pascanu, Mikolov and Bengio 2013).
//
// norm = sqrt(sum over parameters, in name order, of the sum of squares of the global gradient)
//
// A parameter's sum is made of this rank's rows, added up over the axes that the parameter is split along; replicas
// hold equal gradients and count once. The sums are added in name order whatever order they were made in, so the norm
// is bitwise the same under any schedule, and on every rank.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/parameter.h"
#include "tensor/arena.h"
#include "tensor/context.h"

namespace tessera {

// What to multiply the gradient by so that its norm is at most max_norm; 1 when it is already, or when max_norm is 0
// (no clipping). Throws NumericalError when clipping is asked for and the norm is not finite.
double clip_scale(double norm, double max_norm);

class GradientNorm {
 public:
  // Takes bytes(parameters) from the arena. Asks the mesh for the groups that it needs (see Mesh::group).
  GradientNorm(Mesh& mesh, const Parameters& parameters, Arena& arena);
  static int64_t bytes(const Parameters& parameters);

  // Collective over the mesh; every gradient must be reduced over its replicas.
  double compute(const Context& context);

 private:
  struct Split {  // the parameters that are split along the same axes: one message for all
    Comm* group;
    std::vector<const Parameter*> parameters;
    Tensor sums;  // [parameters] F64
  };

  std::vector<Split> splits_;
  std::vector<const double*> in_name_order_;  // each parameter's sum
};

}  // namespace tessera
