#include "model/linear.h"

#include "parallel/regions.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm.h"
#include "tensor/ops/reduce.h"

namespace tessera {
namespace {

constexpr GemmOptions kXWt{.b = Transpose::Yes};                             // x W^T, and dy W^T
constexpr GemmOptions kXW{};                                                 // x W, and dy W
constexpr GemmOptions kWeight{.a = Transpose::Yes, .c = Write::Accumulate};  // dW += dy^T x

Shape without_last(const Shape& shape) { return Shape(shape.dims().first(shape.rank() - 1)); }

}  // namespace

ColumnLinear::ColumnLinear(const ModelShape& shape, const std::string& name, const Shape& weight)
    : shape_(shape), in_(weight[weight.rank() - 1]), weight_(split_parameter(shape, name, weight)) {
  out_ = weight_.local_shape().size() / in_;
  weight_.standard_deviation = shape.matrix_deviation();
  weight_.learning_rate_factor = 1 / shape.width_ratio;
  if (shape.bias == BiasKind::Bias) {
    bias_ = split_parameter(shape, name + ".bias", without_last(weight));
    bias_.initialisation = Initialisation::Zero;
    bias_.decay = false;
  }
}

void ColumnLinear::forward(LayerRun run, const ConstTensor& x, const Tensor& y) const {
  ArenaScope scope(run.context.workspace());
  const ConstTensor all = gather_tokens(run.context, run.tp, x);
  const bool biased = shape_.bias == BiasKind::Bias;
  gemm(run.context, all, matrix(), y, kXWt, biased ? bias_.value.reshape({out_}) : ConstTensor());
}

Request ColumnLinear::backward_input(LayerRun run, const ConstTensor& dy, const Tensor& dx) const {
  const Tensor partial = shape_.tp == 1 ? dx : run.context.workspace().take({shape_.slots, in_}, shape_.compute);
  gemm(run.context, dy, matrix(), partial, kXW);
  return start_scatter_sum_tokens(run.context, run.tp, partial, dx);
}

void ColumnLinear::backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x) {
  gemm(run.context, dy, x, weight_.gradient.reshape({out_, in_}), kWeight);
  if (shape_.bias == BiasKind::Bias) add_column_sums(run.context, dy, bias_.gradient.reshape({out_}));
}

void ColumnLinear::prepare(Context& context) const {
  const DType compute = shape_.compute, sums = shape_.accumulation();
  const ConstTensor x(nullptr, {shape_.slots, in_}, compute), y(nullptr, {shape_.slots, out_}, compute);
  const ConstTensor w(nullptr, {out_, in_}, compute), dw(nullptr, {out_, in_}, sums), b(nullptr, {out_}, compute);
  gemm_prepare(context, x, w, y, kXWt, shape_.bias == BiasKind::Bias ? b : ConstTensor());
  gemm_prepare(context, y, w, x, kXW);
  gemm_prepare(context, y, x, dw, kWeight);
}

int64_t ColumnLinear::workspace() const {
  return gather_workspace(shape_.tp, {shape_.local_slots(), in_}, shape_.compute);
}

Cost ColumnLinear::cost() const {
  const int64_t moved = tp_sent(shape_, shape_.slots * in_);
  return {.parameters = out_ * (in_ + (shape_.bias == BiasKind::Bias ? 1 : 0)),
          .matrix_flops = gemm_flops(shape_.slots, out_, in_),
          .forward_sent = moved,
          .backward_input_sent = moved,
          .backward_weight_sent = moved,
          .backward_sent = 2 * moved};
}

void ColumnLinear::add_parameters(Parameters& parameters) {
  parameters.push_back(&weight_);
  if (shape_.bias == BiasKind::Bias) parameters.push_back(&bias_);
}

RowLinear::RowLinear(const ModelShape& shape, const std::string& name, int64_t in, int64_t out)
    : shape_(shape), in_(in / shape.tp), out_(out), weight_(split_parameter(shape, name, {in, out})) {
  weight_.standard_deviation = shape.residual_deviation();
  weight_.learning_rate_factor = 1 / shape.width_ratio;
  if (shape.bias == BiasKind::Bias) {
    bias_ = whole_parameter(name + ".bias", {out});
    bias_.initialisation = Initialisation::Zero;
    bias_.decay = false;
  }
}

void RowLinear::forward(LayerRun run, const ConstTensor& x, const Tensor& y) const {
  ArenaScope scope(run.context.workspace());
  const Tensor partial = shape_.tp == 1 ? y : run.context.workspace().take({shape_.slots, out_}, shape_.compute);
  gemm(run.context, x, weight_.value, partial, kXW);
  scatter_sum_tokens(run.context, run.tp, partial, y);
  if (shape_.bias == BiasKind::Bias) add_bias(run.context, bias_.value, y);
}

void RowLinear::backward_input(LayerRun run, const ConstTensor& dy, const Tensor& dx) const {
  gemm(run.context, dy, weight_.value, dx, kXWt);
}

void RowLinear::backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x) {
  gemm(run.context, x, dy, weight_.gradient, kWeight);
  // The bias belongs to every token once: each rank adds its own tokens, and the reduction over tp adds the ranks.
  if (shape_.bias == BiasKind::Bias) add_column_sums(run.context, own_tokens(shape_, dy), bias_.gradient);
}

void RowLinear::prepare(Context& context) const {
  const DType compute = shape_.compute, sums = shape_.accumulation();
  const ConstTensor x(nullptr, {shape_.slots, in_}, compute), y(nullptr, {shape_.slots, out_}, compute);
  const ConstTensor w(nullptr, {in_, out_}, compute), dw(nullptr, {in_, out_}, sums);
  gemm_prepare(context, x, w, y, kXW);
  gemm_prepare(context, y, w, x, kXWt);
  gemm_prepare(context, x, y, dw, kWeight);
}

int64_t RowLinear::workspace() const {
  return gather_workspace(shape_.tp, {shape_.local_slots(), out_}, shape_.compute);
}

Cost RowLinear::cost() const {
  const int64_t moved = tp_sent(shape_, shape_.slots * out_);
  return {.parameters = in_ * out_ + (shape_.bias == BiasKind::Bias ? out_ : 0),
          .matrix_flops = gemm_flops(shape_.slots, out_, in_),
          .forward_sent = moved,
          .backward_input_sent = moved,
          .backward_weight_sent = moved,
          .backward_sent = moved};  // dy is gathered once
}

void RowLinear::add_parameters(Parameters& parameters) {
  parameters.push_back(&weight_);
  if (shape_.bias == BiasKind::Bias) parameters.push_back(&bias_);
}

}  // namespace tessera
