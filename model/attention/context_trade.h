// Trading tokens for heads inside a unit of neighbouring ranks, before and after attention (Jacobs et al., "DeepSpeed
// Ulysses", 2023): a rank gives its slots of the heads that others have, and gets the others' slots of its own heads.
//
//   q, k, v   [heads, slots, head_dim] -> [heads of this rank, slots of the unit, head_dim]      out: back again
//
// All slots travel, padding too: work is even between the ranks of a unit because it is divided by heads, whatever the
// plan. Where query heads of one key/value head go to several ranks, each gets a copy of that head, and its gradient is
// the sum of theirs.
#pragma once

#include "model/layers/layer.h"

namespace tessera {

class HeadTrade {
 public:
  // rank: what a rank has before (a unit of one); unit: after.
  HeadTrade(const ExchangeShape& rank, const ExchangeShape& unit) : rank_(rank), unit_(unit) {}

  // Tensors after the trade.
  struct Forward {
    Tensor q, k, v, out;
    Tensor columns;  // [ranks, slots, heads of a rank, head_dim] of outputs, on their way
  };
  struct Backward {
    Tensor q, k, v, out, dout, dq, dk, dv;
    Tensor columns;  // as above
    Tensor parts;    // [2 * kv_heads, ranks, slots, head_dim] of dk and dv, from each rank that had a head
    Tensor sum;      // [slots, head_dim] accumulation dtype
  };
  Forward take_forward(Arena& arena) const;
  Backward take_backward(Arena& arena) const;

  void give(LayerRun run, const AttentionInputs& in, const Tensor& q, const Tensor& k, const Tensor& v) const;
  // Outputs (or their gradients) [slots, q_heads, head_dim] -> [slots of the unit, q_heads of this rank, head_dim].
  void give_outputs(LayerRun run, const ConstTensor& all, const Tensor& columns, const Tensor& traded) const;
  // The reverse of give_outputs: overwrites `all` with the outputs of every head for this rank's slots.
  void return_outputs(LayerRun run, const ConstTensor& traded, const Tensor& columns, const Tensor& all) const;
  // Overwrites the gradients with what came back; sums over copies of a head in the order of ranks, in the accumulation
  // dtype.
  void return_gradients(LayerRun run, const Backward& made, const AttentionGradients& gradients) const;

  // Bytes sent, with b = (ranks of the unit - 1) * slots * head_dim * size of the compute dtype for a head of this
  // rank: forward b for each of q, k, v and out; backward for those again, dout, and the gradients of q, k and v.
  ContextTraffic sent() const;

 private:
  int ranks() const { return unit_.units.ranks; }
  int peer(int member) const { return unit_.units.unit * ranks() + member; }
  int64_t slots() const { return rank_.units.slots; }
  // The first of a rank's heads in a tensor of all, and the part of a traded head that is another rank's.
  int64_t first_query(int member) const { return member * unit_.q_heads; }
  int64_t first_key(int member) const { return first_query(member) / rank_.queries_per_key(); }
  template <class AnyTensor>
  AnyTensor slots_of(const AnyTensor& traded, int64_t head, int member) const;

  ExchangeShape rank_, unit_;
};

}  // namespace tessera
