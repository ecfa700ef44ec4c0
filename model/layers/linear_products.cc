#include "model/layers/linear_products.h"

#include "tensor/ops/activation.h"
#include "tensor/ops/gemm/gemm.h"
#include "tensor/ops/gemm/gemm_fp8.h"
#include "tensor/ops/gemm/gemm_gelu.h"

namespace tessera {
namespace {

constexpr GemmOptions kRowsByRows{.b = Transpose::Yes};                       // x w^T
constexpr GemmOptions kRowsByColumns{};                                       // dy w
constexpr GemmOptions kColumns{.a = Transpose::Yes, .c = Write::Accumulate};  // dy^T x

constexpr DType kForward = DType::E4M3, kGradient = DType::E5M2;

// An 8-bit product sums along the rows of both operands: whose rows are they?
enum class Sum : uint8_t { AlongRows, AlongColumns };

Quantised quantised(Context& context, const ConstTensor& x, DType format, Sum sum) {
  Arena& workspace = context.workspace();
  const Tensor scale = workspace.take({1}, DType::F32);
  if (sum == Sum::AlongRows) {
    const Tensor values = workspace.take(x.shape(), format);
    quantise(context, x, values, {}, scale);
    return {values, scale};
  }
  const Tensor transposed = workspace.take({x.dim(1), x.dim(0)}, format);
  quantise(context, x, {}, transposed, scale);
  return {transposed, scale};
}

}  // namespace

void LinearProducts::forward(Context& context, const ConstTensor& x, const ConstTensor& w, const Tensor& y,
                             const ConstTensor& bias) const {
  const bool out_in = stored_ == Weight::OutIn;
  if (format_ == ProductFormat::Compute) return gemm(context, x, w, y, out_in ? kRowsByRows : kRowsByColumns, bias);
  ArenaScope scope(context.workspace());
  const Quantised a = quantised(context, x, kForward, Sum::AlongRows);
  const Quantised b = quantised(context, w, kForward, out_in ? Sum::AlongRows : Sum::AlongColumns);
  gemm_fp8(context, a, b, y, Write::Overwrite, bias);
}

void LinearProducts::forward_gelu(Context& context, const ConstTensor& x, const ConstTensor& w, const Tensor& before,
                                  const Tensor& y, const ConstTensor& bias) const {
  if (format_ == ProductFormat::Compute)
    return gemm_gelu(context, x, w, before, y, stored_ == Weight::OutIn ? kRowsByRows : kRowsByColumns, bias);
  forward(context, x, w, before, bias);
  gelu(context, before, y);
}

void LinearProducts::input_gradient(Context& context, const ConstTensor& dy, const ConstTensor& w,
                                    const Tensor& dx) const {
  const bool out_in = stored_ == Weight::OutIn;
  if (format_ == ProductFormat::Compute) return gemm(context, dy, w, dx, out_in ? kRowsByColumns : kRowsByRows);
  ArenaScope scope(context.workspace());
  const Quantised a = quantised(context, dy, kGradient, Sum::AlongRows);
  const Quantised b = quantised(context, w, kForward, out_in ? Sum::AlongColumns : Sum::AlongRows);
  gemm_fp8(context, a, b, dx, Write::Overwrite);
}

void LinearProducts::input_gradient_gelu(Context& context, const ConstTensor& dy, const ConstTensor& w,
                                         const ConstTensor& before, const Tensor& dbefore) const {
  if (format_ == ProductFormat::Compute)
    return gemm_gelu_backward(context, dy, w, before, dbefore, stored_ == Weight::OutIn ? kRowsByColumns : kRowsByRows);
  input_gradient(context, dy, w, dbefore);
  gelu_backward(context, dbefore, before, dbefore);
}

void LinearProducts::weight_gradient(Context& context, const ConstTensor& dy, const ConstTensor& x,
                                     const Tensor& dw) const {
  const bool out_in = stored_ == Weight::OutIn;
  if (format_ == ProductFormat::Compute)
    return out_in ? gemm(context, dy, x, dw, kColumns) : gemm(context, x, dy, dw, kColumns);
  ArenaScope scope(context.workspace());
  const Quantised gradient = quantised(context, dy, kGradient, Sum::AlongColumns);
  const Quantised input = quantised(context, x, kForward, Sum::AlongColumns);
  gemm_fp8(context, out_in ? gradient : input, out_in ? input : gradient, dw, Write::Accumulate);
}

void LinearProducts::prepare(Context& context, Bias bias, Gelu gelu) const {
  const bool out_in = stored_ == Weight::OutIn, plain = format_ == ProductFormat::Compute;
  const DType sums = accumulation_dtype(compute_);
  const ConstTensor x(nullptr, {tokens_, in_}, compute_), y(nullptr, {tokens_, out_}, compute_);
  const Shape weight = out_in ? Shape{out_, in_} : Shape{in_, out_};
  const ConstTensor w(nullptr, weight, compute_), dw(nullptr, weight, sums);
  const ConstTensor b = bias == Bias::Added ? ConstTensor(nullptr, {out_}, compute_) : ConstTensor();
  if (plain) {
    const GemmOptions &forward = out_in ? kRowsByRows : kRowsByColumns, &back = out_in ? kRowsByColumns : kRowsByRows;
    gelu == Gelu::OnOutput ? gemm_gelu_prepare(context, x, w, y, forward, b)
                           : gemm_prepare(context, x, w, y, forward, b);
    gelu == Gelu::OnInput ? gemm_gelu_backward_prepare(context, y, w, x, back) : gemm_prepare(context, y, w, x, back);
    gemm_prepare(context, out_in ? y : x, out_in ? x : y, dw, kColumns);
    return;
  }
  const auto in_8_bits = [](int64_t rows, int64_t columns, DType format) {
    return Quantised{ConstTensor(nullptr, {rows, columns}, format), ConstTensor(nullptr, {1}, DType::F32)};
  };
  gemm_fp8_prepare(context, in_8_bits(tokens_, in_, kForward), in_8_bits(out_, in_, kForward), y, Write::Overwrite, b);
  gemm_fp8_prepare(context, in_8_bits(tokens_, out_, kGradient), in_8_bits(in_, out_, kForward), x, Write::Overwrite);
  const Quantised gradient = in_8_bits(out_, tokens_, kGradient), input = in_8_bits(in_, tokens_, kForward);
  gemm_fp8_prepare(context, out_in ? gradient : input, out_in ? input : gradient, dw, Write::Accumulate);
}

int64_t LinearProducts::operands(int64_t left, int64_t right) const {
  if (format_ == ProductFormat::Compute) return 0;
  return Arena::bytes({left}, kForward) + Arena::bytes({right}, kForward) + 2 * Arena::bytes({1}, DType::F32);
}

}  // namespace tessera
