// The three matrix products of a linear layer, in the format that its operands are multiplied in.
//
//   y  = x w^T [+ bias]     dx = dy w     dw += dy^T x       x [tokens, in], y [tokens, out], w [out, in]
//
// Fp8: operands are quantised for each product, from BF16, with a scale of their own (tensor/ops/quantise.h): x and w
// to E4M3, gradients to E5M2 (Micikevicius et al. 2022, "FP8 Formats for Deep Learning", section 4.1). y and dx are
// BF16, dw is F32. Nothing in 8 bits outlives a product, so the optimizer, checkpoints and communication know nothing
// of it; the price is that a weight is quantised twice for each microbatch. A product of n elements in its operands
// takes n bytes of the workspace and moves 5 n bytes of device memory to fill them (each element of BF16 is read twice,
// for the largest magnitude and for itself).
#pragma once

#include "model/shape/shape.h"
#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

class LinearProducts {
 public:
  // How the weight is stored: out by in, or in by out, which turns the formulas' w over.
  enum class Weight : uint8_t { OutIn, InOut };

  // Sizes on this rank.
  LinearProducts(ProductFormat format, Weight stored, int64_t tokens, int64_t in, int64_t out, DType compute)
      : format_(format), stored_(stored), tokens_(tokens), in_(in), out_(out), compute_(compute) {}

  // Overwrites y. bias: empty, or [out].
  void forward(Context& context, const ConstTensor& x, const ConstTensor& w, const Tensor& y,
               const ConstTensor& bias = {}) const;
  // forward() with an activation behind it: overwrites before = x w^T [+ bias] and y = gelu(before). In 8 bits GELU is
  // an operation of its own.
  void forward_gelu(Context& context, const ConstTensor& x, const ConstTensor& w, const Tensor& before, const Tensor& y,
                    const ConstTensor& bias = {}) const;
  // Overwrites dx.
  void input_gradient(Context& context, const ConstTensor& dy, const ConstTensor& w, const Tensor& dx) const;
  // Where x is gelu(before): overwrites dbefore = (dy w) gelu'(before), which is not before itself.
  void input_gradient_gelu(Context& context, const ConstTensor& dy, const ConstTensor& w, const ConstTensor& before,
                           const Tensor& dbefore) const;
  // Accumulates into dw, stored like the weight, in the accumulation dtype.
  void weight_gradient(Context& context, const ConstTensor& dy, const ConstTensor& x, const Tensor& dw) const;

  enum class Bias : uint8_t { None, Added };
  // Which of the products go through forward_gelu() or input_gradient_gelu().
  enum class Gelu : uint8_t { None, OnOutput, OnInput };
  // Generates the products.
  void prepare(Context& context, Bias bias, Gelu gelu = Gelu::None) const;

  // Bytes, of each product.
  int64_t forward_workspace() const { return operands(tokens_ * in_, in_ * out_); }
  int64_t input_gradient_workspace() const { return operands(tokens_ * out_, in_ * out_); }
  int64_t weight_gradient_workspace() const { return operands(tokens_ * out_, tokens_ * in_); }

 private:
  int64_t operands(int64_t left, int64_t right) const;  // of so many elements

  ProductFormat format_;
  Weight stored_;
  int64_t tokens_, in_, out_;
  DType compute_;
};

}  // namespace tessera
