// Tensor-parallel linear layers (Shoeybi et al. 2019, Megatron-LM), with sequence parallelism always on (Korthikanti et
// al. 2022): inputs and outputs on the residual side hold slots/tp tokens.
//
//   ColumnLinear  weight [out, in], rows of `out` over tp     x [slots/tp, in] -> y [slots, out/tp]     y = x W^T + b
//   RowLinear     weight [in, out], rows of `in` over tp      x [slots, in/tp] -> y [slots/tp, out]     y = x W + b
//
// Their weights' leading dim may be written as several ([kv_head, q_per_kv + 2, head_dim, hidden]); only dim 0 is
// split.
//
// Backward begins with what was gathered by the caller (Row's dy serves both of its gradients), and Column's dx ends
// under way: the caller has the other products to run meanwhile.
#pragma once

#include "model/layers/layer.h"
#include "model/layers/linear_products.h"

namespace tessera {

class ColumnLinear {
 public:
  // weight: global shape, last dim `in`; the bias has the weight's shape without its last dim.
  ColumnLinear(const ModelShape& shape, const std::string& name, const Shape& weight, LinearKind kind = {});
  // Its parameters' addresses are handed out.
  ColumnLinear(const ColumnLinear&) = delete;
  ColumnLinear& operator=(const ColumnLinear&) = delete;

  // Gathers x over tp; overwrites y.
  void forward(LayerRun run, const ConstTensor& x, const Tensor& y) const;
  // forward() with an activation behind it: overwrites before, what forward() gives, and y = gelu(before).
  void forward_gelu(LayerRun run, const ConstTensor& x, const Tensor& before, const Tensor& y) const;
  // Overwrites dx [slots/tp, in], summed over tp: it may be used after wait(), until which the ranks' own sums lie in
  // the context's workspace (the caller holds the scope).
  [[nodiscard]] Request backward_input(LayerRun run, const ConstTensor& dy, const Tensor& dx) const;
  // x: of all tokens, gathered again (cheaper than keeping it). Accumulates into the gradients.
  void backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x);

  // Generates the matrix products.
  void prepare(Context& context, LinearProducts::Gelu gelu = LinearProducts::Gelu::None) const;
  // Bytes, of each call; backward: of backward_input until its wait(), with backward_weight meanwhile.
  int64_t forward_workspace() const;
  int64_t backward_input_workspace() const;
  int64_t backward_weight_workspace() const { return products_.weight_gradient_workspace(); }
  int64_t backward_workspace() const;
  Cost cost() const;
  void add_parameters(Parameters& parameters);
  Parameter& weight() { return weight_; }

 private:
  ConstTensor bias() const;  // empty without one
  ConstTensor matrix() const { return weight_.value.reshape({out_, in_}); }
  int64_t all_tokens() const;  // bytes of x gathered, or of dx before it is summed

  ModelSizes shape_;
  BiasKind bias_kind_;
  int64_t in_, out_;  // out_ on this rank
  Parameter weight_, bias_;
  LinearProducts products_;
};

class RowLinear {
 public:
  // in, out: global. Writes to the residual stream, hence the smaller initial weights.
  RowLinear(const ModelShape& shape, const std::string& name, int64_t in, int64_t out, LinearKind kind = {});
  // Its parameters' addresses are handed out.
  RowLinear(const RowLinear&) = delete;
  RowLinear& operator=(const RowLinear&) = delete;

  // Overwrites y [slots/tp, out], summed over tp.
  void forward(LayerRun run, const ConstTensor& x, const Tensor& y) const;
  // dy: of all tokens. Overwrites dx [slots, in/tp].
  void backward_input(LayerRun run, const ConstTensor& dy, const Tensor& dx) const;
  // Where x is gelu(before): overwrites dbefore [slots, in/tp] with before's gradient; not before itself.
  void backward_input_gelu(LayerRun run, const ConstTensor& dy, const ConstTensor& before, const Tensor& dbefore) const;
  // dy: of all tokens. Accumulates into the gradients.
  void backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x);

  void prepare(Context& context, LinearProducts::Gelu gelu = LinearProducts::Gelu::None) const;
  // Bytes, of each call.
  int64_t forward_workspace() const;
  int64_t backward_input_workspace() const { return products_.input_gradient_workspace(); }
  int64_t backward_weight_workspace() const { return products_.weight_gradient_workspace(); }
  Cost cost() const;
  void add_parameters(Parameters& parameters);

 private:
  ModelSizes shape_;
  BiasKind bias_kind_;
  int64_t in_, out_;  // in_ on this rank
  Parameter weight_, bias_;
  LinearProducts products_;
};

}  // namespace tessera
