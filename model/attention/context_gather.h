// Context parallelism by gathering: keys and values of a group of heads come from the ranks that have them while the
// group before is attended (as in Llama 3: Grattafiori et al. 2024, section 3.3.2, but only rows that are seen).
//
// Each rank attends its queries to all keys that they see, in one softmax. Backward gathers again; a group's gradients
// go home while the next group is computed. Memory: two groups' keys and values, one group's rows to send; in backward
// also two groups' gradients and one group's parts from the other ranks.
#pragma once

#include "model/attention/attention_plan.h"
#include "model/layers/layer.h"

namespace tessera {

// Overwrites out [slots, q_heads, head_dim] and lse [q_heads, slots].
void gather_attention(LayerRun run, const ExchangeShape& shape, const AttentionPlan& plan, const AttentionInputs& in,
                      const Tensor& out, const Tensor& lse);

// Overwrites the gradients. Parts of dk and dv travel in the compute dtype; the owner adds its own and then the other
// units' in their order, in the accumulation dtype, and rounds once.
void gather_attention_backward(LayerRun run, const ExchangeShape& shape, const AttentionPlan& plan,
                               const AttentionInputs& in, const ConstTensor& out, const ConstTensor& lse,
                               const ConstTensor& dout, const AttentionGradients& gradients);

// Bytes of workspace, of either, whatever the packing.
int64_t gather_attention_workspace(Target target, const ExchangeShape& shape);

// Bytes sent, with b = 2 * kv_heads * head_dim * size of the compute dtype for a row: forward b for each row that
// another unit sees; backward the same, and b for each row that comes.
ContextTraffic gather_attention_sent(const ExchangeShape& shape, int64_t sent_rows, int64_t received_rows);

}  // namespace tessera
