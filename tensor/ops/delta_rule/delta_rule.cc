#include "tensor/ops/delta_rule/delta_rule.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/delta_rule/delta_rule_kernels.h"
#include "tensor/ops/operand.h"
#include "tensor/ops/segments_kernels.h"

namespace tessera {
namespace {

void check(const Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input) {
  TESSERA_CHECK(input.q.rank() == 3 && input.v.rank() == 3,
                "delta_rule: q [key heads, tokens, key_dim] and v [value heads, tokens, value_dim] have three dims");
  const DeltaRuleSizes sizes = delta_rule_sizes(problem, input);
  const DType sums = accumulation_dtype(sizes.compute);
  TESSERA_CHECK(sizes.key_heads > 0 && sizes.key_dim > 0 && sizes.value_dim > 0,
                "delta_rule: there are heads, and they have elements");
  TESSERA_CHECK_EQ(sizes.value_heads % sizes.key_heads, int64_t{0}, "delta_rule: key heads divide value heads");
  TESSERA_CHECK(sizes.chunk >= 1 && sizes.chunk <= kMostDeltaRuleChunk, "delta_rule: a chunk has 1 to 64 tokens");
  check_operand(context, input.q, input.q.shape(), sizes.compute, "delta_rule: q");
  check_operand(context, input.k, input.q.shape(), sizes.compute, "delta_rule: k");
  check_operand(context, input.v, {sizes.value_heads, sizes.tokens, sizes.value_dim}, sizes.compute, "delta_rule: v");
  check_operand(context, input.log_decay, {sizes.value_heads, sizes.tokens}, sums, "delta_rule: log_decay");
  check_operand(context, input.beta, {sizes.value_heads, sizes.tokens}, sums, "delta_rule: beta");
  check_segments(context, problem.segments, sizes.tokens, "delta_rule");
}

void check_states(const Context& context, const ConstTensor& x, const DeltaRuleSizes& sizes, int64_t columns,
                  const char* what) {
  if (x.empty()) return;
  check_operand(context, x, {row_count(x), sizes.value_heads, sizes.key_dim, columns},
                accumulation_dtype(sizes.compute), what);
}

void check_kept(const Context& context, const ConstTensor& states, const DeltaRuleSizes& sizes) {
  check_operand(context, states, {sizes.value_heads, sizes.tokens / sizes.chunk, sizes.key_dim, sizes.value_dim},
                accumulation_dtype(sizes.compute), "delta_rule: states");
}

void check_out(const Context& context, const ConstTensor& out, const DeltaRuleSizes& sizes, const char* what) {
  check_operand(context, out, {sizes.tokens, sizes.value_heads, sizes.value_dim}, sizes.compute, what);
}

void check_fold(const Context& context, const ConstTensor& added, const ConstTensor& transfer,
                const ConstTensor& state) {
  TESSERA_CHECK_EQ(state.rank(), 3, "fold_delta_states: a state is [heads, key_dim, value_dim]");
  const DType dtype = accumulation_dtype(state.dtype());
  const int64_t parts = row_count(added), heads = state.dim(0), key_dim = state.dim(1);
  check_operand(context, state, state.shape(), dtype, "fold_delta_states: state");
  if (parts == 0) return;
  check_operand(context, added, {parts, heads, key_dim, state.dim(2)}, dtype, "fold_delta_states: added");
  check_operand(context, transfer, {parts, heads, key_dim, key_dim}, dtype, "fold_delta_states: transfer");
}

// Chunks of a sequence, none shorter than the others.
int64_t chunks(const DeltaRuleSizes& sizes) { return (sizes.tokens + sizes.chunk - 1) / sizes.chunk; }

}  // namespace

void delta_rule(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input, const Tensor& out,
                const Tensor& states, const Tensor& final) {
  check(context, problem, input);
  const DeltaRuleSizes sizes = delta_rule_sizes(problem, input);
  check_states(context, input.initial, sizes, sizes.value_dim, "delta_rule: initial");
  check_segment_rows(problem.segments.initial, problem.segments.count(), row_count(input.initial),
                     "delta_rule: initial");
  check_states(context, final, sizes, sizes.value_dim, "delta_rule: final");
  if (!final.empty())
    check_segment_rows(problem.segments.final, problem.segments.count(), row_count(final), "delta_rule: final");
  if (!out.empty()) check_out(context, out, sizes, "delta_rule: out");
  if (!states.empty()) check_kept(context, states, sizes);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::delta_rule(context, problem, input, out, states, final);
  }
  cpu::delta_rule(context, problem, input, out, states, final);
}

void delta_rule_backward(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                         const ConstTensor& states, const ConstTensor& dout, const ConstTensor& dfinal,
                         const DeltaRuleGradients& gradients) {
  check(context, problem, input);
  const DeltaRuleSizes sizes = delta_rule_sizes(problem, input);
  const DType sums = accumulation_dtype(sizes.compute);
  check_states(context, input.initial, sizes, sizes.value_dim, "delta_rule: initial");
  check_segment_rows(problem.segments.initial, problem.segments.count(), row_count(input.initial),
                     "delta_rule: initial");
  check_states(context, dfinal, sizes, sizes.value_dim, "delta_rule: dfinal");
  if (!dfinal.empty())
    check_segment_rows(problem.segments.final, problem.segments.count(), row_count(dfinal), "delta_rule: dfinal");
  check_kept(context, states, sizes);
  check_out(context, dout, sizes, "delta_rule: dout");
  check_operand(context, gradients.dq, input.q.shape(), sizes.compute, "delta_rule: dq");
  check_operand(context, gradients.dk, input.q.shape(), sizes.compute, "delta_rule: dk");
  check_operand(context, gradients.dv, input.v.shape(), sizes.compute, "delta_rule: dv");
  check_operand(context, gradients.dlog_decay, input.beta.shape(), sums, "delta_rule: dlog_decay");
  check_operand(context, gradients.dbeta, input.beta.shape(), sums, "delta_rule: dbeta");
  if (!problem.segments.initial.empty() && !input.initial.empty()) {
    check_operand(context, gradients.dinitial, input.initial.shape(), sums, "delta_rule: dinitial");
  }
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::delta_rule_backward(context, problem, input, states, dout, dfinal, gradients);
  }
  cpu::delta_rule_backward(context, problem, input, states, dout, dfinal, gradients);
}

void delta_rule_map(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input, const Tensor& added,
                    const Tensor& transfer) {
  check(context, problem, input);
  const DeltaRuleSizes sizes = delta_rule_sizes(problem, input);
  check_states(context, added, sizes, sizes.value_dim, "delta_rule: added");
  check_states(context, transfer, sizes, sizes.key_dim, "delta_rule: transfer");
  TESSERA_CHECK_EQ(row_count(added), row_count(transfer), "delta_rule: as many rows of added as of transfer");
  check_segment_rows(problem.segments.final, problem.segments.count(), row_count(added), "delta_rule: added");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::delta_rule_map(context, problem, input, added, transfer);
  }
  cpu::delta_rule_map(context, problem, input, added, transfer);
}

void delta_rule_map_backward(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                             const ConstTensor& dout, const Tensor& dadded) {
  check(context, problem, input);
  const DeltaRuleSizes sizes = delta_rule_sizes(problem, input);
  check_out(context, dout, sizes, "delta_rule: dout");
  check_states(context, dadded, sizes, sizes.value_dim, "delta_rule: dadded");
  check_segment_rows(problem.segments.initial, problem.segments.count(), row_count(dadded), "delta_rule: dadded");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::delta_rule_map_backward(context, problem, input, dout, dadded);
  }
  cpu::delta_rule_map_backward(context, problem, input, dout, dadded);
}

void fold_delta_states(Context& context, const ConstTensor& added, const ConstTensor& transfer, const Tensor& state) {
  check_fold(context, added, transfer, state);
  if (row_count(added) == 0) return;
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::fold_delta_states(context, added, transfer, state);
  }
  cpu::fold_delta_states(context, added, transfer, state);
}

void fold_delta_states_backward(Context& context, const ConstTensor& dadded, const ConstTensor& transfer,
                                const Tensor& dstate) {
  check_fold(context, dadded, transfer, dstate);
  if (row_count(dadded) == 0) return;
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::fold_delta_states_backward(context, dadded, transfer, dstate);
  }
  cpu::fold_delta_states_backward(context, dadded, transfer, dstate);
}

int64_t delta_rule_workspace(const Target& target, const DeltaRuleSizes& sizes) {
  if constexpr (kHasCuda) {
    if (target.device == Device::Cuda) return cuda::delta_rule_workspace(target, sizes);
  }
  return cpu::delta_rule_workspace(target, sizes);
}

int64_t delta_rule_fold_workspace(const Target& target, const DeltaRuleSizes& sizes) {
  if constexpr (kHasCuda) {
    if (target.device == Device::Cuda) return cuda::delta_rule_fold_workspace(target, sizes);
  }
  return cpu::delta_rule_fold_workspace(target, sizes);
}

int64_t delta_rule_forward_flops(const DeltaRuleSizes& sizes) {
  const int64_t c = sizes.chunk, key = sizes.key_dim, value = sizes.value_dim;
  return chunks(sizes) *
         (sizes.value_heads * (6 * c * key * value + 2 * c * c * value) + sizes.key_heads * 4 * c * c * key);
}

int64_t delta_rule_backward_flops(const DeltaRuleSizes& sizes) {
  const int64_t c = sizes.chunk, key = sizes.key_dim, value = sizes.value_dim;
  return chunks(sizes) * (sizes.value_heads * (14 * c * key * value + 7 * c * c * value + 4 * c * c * key) +
                          sizes.key_heads * 4 * c * c * key);
}

}  // namespace tessera
