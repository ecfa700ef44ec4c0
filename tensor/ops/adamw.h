// AdamW (Loshchilov and Hutter 2019), one pass over the state.
//
//   g' = gradient_scale * g
//   m = beta1 m + (1 - beta1) g'          v = beta2 v + (1 - beta2) g'^2
//   w = w - lr * weight_decay * w - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

struct AdamWStep {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0;    // decoupled; 0 for norms and biases
  double gradient_scale = 1;  // clipping
  int64_t step = 1;           // t, from 1
};

// All of one size. master, exp_avg, exp_avg_sq (accumulation dtype) are updated in place; gradient (accumulation dtype)
// is read. compute receives master rounded to its dtype; it may be master itself.
void adamw(const Context& context, const AdamWStep& step, const ConstTensor& gradient, const Tensor& master,
           const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& compute);

}  // namespace tessera
