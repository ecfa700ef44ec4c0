// Context parallelism by a ring: blocks of keys and values go round, and partial results merge (Liu, Zaharia and
// Abbeel, "Ring Attention with Blockwise Transformers for Near-Infinite Context", 2023).
//
// A unit attends its queries to its own keys, then to the block that has come one hop, two hops and so on, while the
// next hop is under way; a block loses the rows that nobody farther on sees (parallel/context/ring_routes.h). Memory: two
// blocks of a group of heads, whatever the number of ranks, and a group's merged output; in backward also two blocks of
// gradient sums, and those that have come home.
#pragma once

#include "model/attention/attention_plan.h"
#include "model/layers/layer.h"

namespace tessera {

// Overwrites out [slots, q_heads, head_dim] and lse [q_heads, slots]. Partial outputs merge in the accumulation dtype
// and are rounded once.
void ring_attention(LayerRun run, const ExchangeShape& shape, const AttentionPlan& plan, const AttentionInputs& in,
                    const Tensor& out, const Tensor& lse);

// Overwrites the gradients. The sums of dk and dv travel with their block, in the accumulation dtype: units add their
// parts in the order of hops. From the last unit that sees a row they go straight home, where they are added to the
// owner's own part, and rounded once.
void ring_attention_backward(LayerRun run, const ExchangeShape& shape, const AttentionPlan& plan,
                             const AttentionInputs& in, const ConstTensor& out, const ConstTensor& lse,
                             const ConstTensor& dout, const AttentionGradients& gradients);

// Bytes of workspace, of either, whatever the packing.
int64_t ring_attention_workspace(Target target, const ExchangeShape& shape);

// Bytes sent, with n = 2 * kv_heads * head_dim numbers a row: forward n * size of the compute dtype for each row that
// is passed on, summed over hops; backward the same, and n * size of the accumulation dtype for each row that comes, as
// its sum goes on or home.
ContextTraffic ring_attention_sent(const ExchangeShape& shape, int64_t rows_passed_on, int64_t rows_come);
// The numbers of rows for a packing.
ContextTraffic ring_attention_sent(const ExchangeShape& shape, const RingRoutes& routes);

}  // namespace tessera
