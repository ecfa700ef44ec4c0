// The kernels behind delta_rule.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/delta_rule/delta_rule.h"

namespace tessera {

// What the operands say about sizes.
inline DeltaRuleSizes delta_rule_sizes(const DeltaRuleProblem& problem, const DeltaRuleInput& input) {
  return {.tokens = input.q.dim(1),
          .key_heads = input.q.dim(0),
          .value_heads = input.v.dim(0),
          .key_dim = input.q.dim(2),
          .value_dim = input.v.dim(2),
          .chunk = problem.chunk,
          .compute = input.q.dtype()};
}

}  // namespace tessera

namespace tessera::cpu {
decltype(tessera::delta_rule) delta_rule;
decltype(tessera::delta_rule_backward) delta_rule_backward;
decltype(tessera::delta_rule_map) delta_rule_map;
decltype(tessera::delta_rule_map_backward) delta_rule_map_backward;
decltype(tessera::fold_delta_states) fold_delta_states;
decltype(tessera::fold_delta_states_backward) fold_delta_states_backward;
decltype(tessera::delta_rule_workspace) delta_rule_workspace;
decltype(tessera::delta_rule_fold_workspace) delta_rule_fold_workspace;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::delta_rule) delta_rule;
decltype(tessera::delta_rule_backward) delta_rule_backward;
decltype(tessera::delta_rule_map) delta_rule_map;
decltype(tessera::delta_rule_map_backward) delta_rule_map_backward;
decltype(tessera::fold_delta_states) fold_delta_states;
decltype(tessera::fold_delta_states_backward) fold_delta_states_backward;
decltype(tessera::delta_rule_workspace) delta_rule_workspace;
decltype(tessera::delta_rule_fold_workspace) delta_rule_fold_workspace;
}  // namespace tessera::cuda
