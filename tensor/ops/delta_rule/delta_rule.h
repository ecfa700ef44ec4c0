// The gated delta rule: a state of fixed size for each head instead of keys and values that grow with the document.
//
//   S_t = a_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,   a_t = exp(log_decay_t) in [0, 1]
//   o_t = scale * S_t^T q_t
//
// Yang, Kautz and Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule", 2024. It is computed by chunks
// of tokens, as dense products and one triangular system a chunk: Yang, Wang, Zhang, Shen and Kim, "Parallelizing
// Linear Transformers with the Delta Rule over Sequence Length", 2024. With G_ri = a_{i+1} ... a_r (0 above the
// diagonal), g_r = a_1 ... a_r, w_r = G_Cr, and S the state before the chunk of C tokens:
//
//   E = V - diag(g) K S,   (I + diag(beta) StrictTril(K K^T . G)) U = diag(beta) E
//   O = scale * (diag(g) Q S + Tril(Q K^T . G) U),   S_C = g_C S + K^T diag(w) U
//
// G is made by products of decays, never by differences of their logarithms: nothing overflows, a decay of exactly 0
// (a logarithm of minus infinity) is allowed, and a strong decay costs its successors no digits. Keys of length one and
// beta in [0, 1] keep the state bounded; neither is required.
//
// Tokens come in segments: documents, or the parts of documents that lie on this rank. A chunk never crosses a segment,
// so what one segment holds changes no bit of another. A segment starts with a state of zero or a given one.
//
// Sums, states and gradients of states are of the accumulation dtype. Value head h reads key head h / group, where
// group = value heads / key heads. Heads are independent of each other: with tensor parallelism each rank has its own.
#pragma once

#include <cstdint>

#include "tensor/context/context.h"
#include "tensor/ops/segments.h"
#include "tensor/tensor.h"

namespace tessera {

constexpr int64_t kMostDeltaRuleChunk = 64;

struct DeltaRuleProblem {
  double scale = 1.0;                   // of the queries: 1/sqrt(key_dim)
  int64_t chunk = kMostDeltaRuleChunk;  // tokens of a chunk, 1 to 64
  TokenSegments segments;               // initial and final rows are rows of states
};

// What the rule reads. Heads are those of this rank.
struct DeltaRuleInput {
  ConstTensor q;          // [key_heads/tp, tokens, key_dim]
  ConstTensor k;          // [key_heads/tp, tokens, key_dim]
  ConstTensor v;          // [value_heads/tp, tokens, value_dim]
  ConstTensor log_decay;  // [value_heads/tp, tokens], accumulation dtype, at most 0
  ConstTensor beta;       // [value_heads/tp, tokens], accumulation dtype
  // [rows, value_heads/tp, key_dim, value_dim], accumulation dtype; empty when no segment names a row.
  ConstTensor initial{};
};

// Overwrites, where not empty (what is empty is not computed):
//   out     [tokens, value_heads/tp, value_dim]
//   states  [value_heads/tp, tokens / chunk, key_dim, value_dim], accumulation dtype: the state before each chunk but the
//           first of a segment, which backward reads. The chunk that starts at token t has row t / chunk - 1; rows that
//           belong to no chunk keep what they hold.
//   final   [rows, value_heads/tp, key_dim, value_dim], accumulation dtype: the rows that problem.segments.final names
// Nothing aliases. With `out` empty this is the scan that makes the states again for a backward that did not keep them.
// Workspace: delta_rule_workspace(). Threads share the work by (key head, segment).
void delta_rule(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input, const Tensor& out,
                const Tensor& states, const Tensor& final);

struct DeltaRuleGradients {
  Tensor dq, dk, dv;         // as q, k, v (compute dtype; sums over a group's value heads are rounded once)
  Tensor dlog_decay, dbeta;  // as log_decay and beta
  Tensor dinitial{};         // as initial; empty when no segment names one
};

// dout as out; dfinal as final, read where problem.segments.final names a row (empty: zero); states as delta_rule left them.
// Overwrites all gradients (of dinitial the rows that problem.segments.initial names). Nothing aliases. Workspace:
// delta_rule_workspace().
void delta_rule_backward(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                         const ConstTensor& states, const ConstTensor& dout, const ConstTensor& dfinal,
                         const DeltaRuleGradients& gradients);

// Context parallelism by passing the state. A segment is an affine map of the state before it, and its backward one of
// the gradient behind it:
//
//   S_end = transfer S_start + added,   dS_start = transfer^T dS_end + dadded
//
// So ranks exchange (added, transfer) of the parts of a document, fold what precedes, and run delta_rule from there;
// backwards they exchange dadded, fold what follows, and run delta_rule_backward. The bytes do not depend on the number
// of tokens. The chain of transfers is kept in the accumulation dtype.

// For each segment s with problem.segments.final[s] = row >= 0 overwrites that row of added [rows, value_heads/tp, key_dim,
// value_dim] and transfer [rows, value_heads/tp, key_dim, key_dim] (accumulation dtype). Initial states are not read.
// Workspace: delta_rule_workspace().
void delta_rule_map(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input, const Tensor& added,
                    const Tensor& transfer);

// For each segment s with problem.segments.initial[s] = row >= 0 overwrites that row of dadded [rows, value_heads/tp, key_dim,
// value_dim] (accumulation dtype): the gradient of the state before it when the state behind it has none. It needs no
// states. Workspace: delta_rule_workspace().
void delta_rule_map_backward(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                             const ConstTensor& dout, const Tensor& dadded);

// The state behind parts that follow each other in a document: added [parts, heads, key_dim, value_dim], transfer
// [parts, heads, key_dim, key_dim]; state [heads, key_dim, value_dim] is the state before the first part, and becomes
// the one behind the last. All of the accumulation dtype. Workspace: delta_rule_fold_workspace().
void fold_delta_states(Context& context, const ConstTensor& added, const ConstTensor& transfer, const Tensor& state);

// Backwards: dstate is the gradient of the state behind the last part, and becomes that of the state before the first;
// dadded as added. Workspace: delta_rule_fold_workspace().
void fold_delta_states_backward(Context& context, const ConstTensor& dadded, const ConstTensor& transfer,
                                const Tensor& dstate);

struct DeltaRuleSizes {
  int64_t tokens = 0;
  int64_t key_heads = 0;  // on this rank
  int64_t value_heads = 0;
  int64_t key_dim = 0;
  int64_t value_dim = 0;
  int64_t chunk = kMostDeltaRuleChunk;
  DType compute = DType::F32;

  int64_t group() const { return value_heads / key_heads; }
};

// Bytes that the largest of the operations on segments takes from the workspace, whatever the segments.
int64_t delta_rule_workspace(const Target& target, const DeltaRuleSizes& sizes);
int64_t delta_rule_fold_workspace(const Target& target, const DeltaRuleSizes& sizes);

// FLOPs when every chunk is full and every segment starts with a state. A product with a triangle counts as half. For a
// chunk of C tokens, K = key_dim and V = value_dim:
//   forward    6 C K V + 2 C^2 V              for a value head, and 4 C^2 K for a key head
//   backward  14 C K V + 7 C^2 V + 4 C^2 K    for a value head, and 4 C^2 K for a key head
// Bytes that must move: forward reads q, k, v and the gates and writes out and states, once each. Backward reads all of
// these and dout, and writes the gradients.
int64_t delta_rule_forward_flops(const DeltaRuleSizes& sizes);
int64_t delta_rule_backward_flops(const DeltaRuleSizes& sizes);

}  // namespace tessera
