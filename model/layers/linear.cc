#include "model/layers/linear.h"

#include <algorithm>

#include "parallel/regions.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm/gemm.h"
#include "tensor/ops/reduce.h"

namespace tessera {
namespace {

Shape without_last(const Shape& shape) { return Shape(shape.dims().first(shape.rank() - 1)); }

}  // namespace

ColumnLinear::ColumnLinear(const ModelShape& shape, const std::string& name, const Shape& weight, LinearKind kind)
    : shape_(shape),
      bias_kind_(kind.bias),
      in_(weight[weight.rank() - 1]),
      out_(weight.size() / in_ / shape.tp),
      weight_(split_parameter(shape, name, weight)),
      products_(kind.format, LinearProducts::Weight::OutIn, shape.slots, in_, out_, shape.compute) {
  weight_.standard_deviation = shape.matrix_deviation();
  weight_.learning_rate_factor = 1 / shape.width_ratio;
  if (bias_kind_ == BiasKind::Bias) {
    bias_ = split_parameter(shape, name + ".bias", without_last(weight));
    bias_.initialisation = Initialisation::Zero;
    bias_.decay = false;
  }
}

void ColumnLinear::forward(LayerRun run, const ConstTensor& x, const Tensor& y) const {
  ArenaScope scope(run.context.workspace());
  products_.forward(run.context, gather_tokens(run.context, run.tp, x), matrix(), y, bias());
}

void ColumnLinear::forward_gelu(LayerRun run, const ConstTensor& x, const Tensor& before, const Tensor& y) const {
  ArenaScope scope(run.context.workspace());
  products_.forward_gelu(run.context, gather_tokens(run.context, run.tp, x), matrix(), before, y, bias());
}

ConstTensor ColumnLinear::bias() const {
  return bias_kind_ == BiasKind::Bias ? ConstTensor(bias_.value.reshape({out_})) : ConstTensor();
}

Request ColumnLinear::backward_input(LayerRun run, const ConstTensor& dy, const Tensor& dx) const {
  const Tensor partial = shape_.tp == 1 ? dx : run.context.workspace().take({shape_.slots, in_}, shape_.compute);
  products_.input_gradient(run.context, dy, matrix(), partial);
  return start_scatter_sum_tokens(run.context, run.tp, partial, dx);
}

void ColumnLinear::backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x) {
  products_.weight_gradient(run.context, dy, x, weight_.gradient.reshape({out_, in_}));
  if (bias_kind_ == BiasKind::Bias) add_column_sums(run.context, dy, bias_.gradient.reshape({out_}));
}

void ColumnLinear::prepare(Context& context, LinearProducts::Gelu gelu) const {
  using Bias = LinearProducts::Bias;
  products_.prepare(context, bias_kind_ == BiasKind::Bias ? Bias::Added : Bias::None, gelu);
}

int64_t ColumnLinear::all_tokens() const {
  return gather_workspace(shape_.tp, {shape_.local_slots(), in_}, shape_.compute);
}

int64_t ColumnLinear::forward_workspace() const { return all_tokens() + products_.forward_workspace(); }

int64_t ColumnLinear::backward_input_workspace() const { return all_tokens() + products_.input_gradient_workspace(); }

int64_t ColumnLinear::backward_workspace() const {
  return all_tokens() + std::max(products_.input_gradient_workspace(), products_.weight_gradient_workspace());
}

Cost ColumnLinear::cost() const {
  const int64_t moved = tp_sent(shape_, shape_.slots * in_);
  return {.parameters = out_ * (in_ + (bias_kind_ == BiasKind::Bias ? 1 : 0)),
          .matrix_flops = gemm_flops(shape_.slots, out_, in_),
          .forward_sent = moved,
          .backward_input_sent = moved,
          .backward_weight_sent = moved,
          .backward_sent = 2 * moved};
}

void ColumnLinear::add_parameters(Parameters& parameters) {
  parameters.push_back(&weight_);
  if (bias_kind_ == BiasKind::Bias) parameters.push_back(&bias_);
}

RowLinear::RowLinear(const ModelShape& shape, const std::string& name, int64_t in, int64_t out, LinearKind kind)
    : shape_(shape),
      bias_kind_(kind.bias),
      in_(in / shape.tp),
      out_(out),
      weight_(split_parameter(shape, name, {in, out})),
      products_(kind.format, LinearProducts::Weight::InOut, shape.slots, in_, out_, shape.compute) {
  weight_.standard_deviation = shape.residual_deviation();
  weight_.learning_rate_factor = 1 / shape.width_ratio;
  if (bias_kind_ == BiasKind::Bias) {
    bias_ = whole_parameter(name + ".bias", {out});
    bias_.initialisation = Initialisation::Zero;
    bias_.decay = false;
  }
}

void RowLinear::forward(LayerRun run, const ConstTensor& x, const Tensor& y) const {
  ArenaScope scope(run.context.workspace());
  const Tensor partial = shape_.tp == 1 ? y : run.context.workspace().take({shape_.slots, out_}, shape_.compute);
  products_.forward(run.context, x, weight_.value, partial);
  scatter_sum_tokens(run.context, run.tp, partial, y);
  if (bias_kind_ == BiasKind::Bias) add_bias(run.context, bias_.value, y);
}

void RowLinear::backward_input(LayerRun run, const ConstTensor& dy, const Tensor& dx) const {
  products_.input_gradient(run.context, dy, weight_.value, dx);
}

void RowLinear::backward_input_gelu(LayerRun run, const ConstTensor& dy, const ConstTensor& before,
                                    const Tensor& dbefore) const {
  products_.input_gradient_gelu(run.context, dy, weight_.value, before, dbefore);
}

void RowLinear::backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x) {
  products_.weight_gradient(run.context, dy, x, weight_.gradient);
  // The bias belongs to every token once: each rank adds its own tokens, and the reduction over tp adds the ranks.
  if (bias_kind_ == BiasKind::Bias) add_column_sums(run.context, own_tokens(shape_, dy), bias_.gradient);
}

void RowLinear::prepare(Context& context, LinearProducts::Gelu gelu) const {
  products_.prepare(context, LinearProducts::Bias::None, gelu);
}

int64_t RowLinear::forward_workspace() const {
  return gather_workspace(shape_.tp, {shape_.local_slots(), out_}, shape_.compute) + products_.forward_workspace();
}

Cost RowLinear::cost() const {
  const int64_t moved = tp_sent(shape_, shape_.slots * out_);
  return {.parameters = in_ * out_ + (bias_kind_ == BiasKind::Bias ? out_ : 0),
          .matrix_flops = gemm_flops(shape_.slots, out_, in_),
          .forward_sent = moved,
          .backward_input_sent = moved,
          .backward_weight_sent = moved,
          .backward_sent = moved};  // dy is gathered once
}

void RowLinear::add_parameters(Parameters& parameters) {
  parameters.push_back(&weight_);
  if (bias_kind_ == BiasKind::Bias) parameters.push_back(&bias_);
}

}  // namespace tessera
