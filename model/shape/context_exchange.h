// How context-parallel ranks exchange what attention needs of each other's tokens, chosen for a run or layer by layer.
//
//   gather          keys and values of a group of heads come while the group before is attended; a rank attends its
//                   queries to all keys that they see (the default)
//   ring            blocks of keys and values go round; partial results merge (Liu, Zaharia and Abbeel 2023)
//   ulysses         each rank trades its tokens of other heads for all ranks' tokens of its own (Jacobs et al. 2023)
//   ulysses-ring:N  that inside units of N neighbouring ranks, a ring of units outside (Fang and Zhao 2024)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/context/sight.h"
#include "tensor/context/target.h"
#include "tensor/tensor.h"

namespace tessera {

struct ContextExchange {
  enum class Outer : uint8_t { Gather, Ring };

  Outer outer = Outer::Gather;  // between units
  int trading = 1;              // ranks of a unit, which trade tokens for heads; kAll: all of them
  static constexpr int kAll = 0;

  bool operator==(const ContextExchange&) const = default;
  int ranks_of_unit(int cp) const { return trading == kAll ? cp : trading; }
  bool is_ring(int cp) const { return outer == Outer::Ring && ranks_of_unit(cp) < cp; }
};
std::string name(const ContextExchange& exchange);

// The exchange of each of `blocks` blocks. Text: one for all, or a plan by blocks of the whole model,
// "ring:0-3,ulysses-ring:2:4-7", the others gathering. Throws UsageError saying what is wrong.
std::vector<ContextExchange> context_exchange_plan(const std::string& text, int blocks);

// Throws UsageError, with the rule and what would fit, where `cp` ranks with so many heads each cannot exchange so.
// q_heads, kv_heads: of a tensor-parallel rank. A rank gets q_heads / trading query heads; where that is less than a
// group of queries, several ranks get the same key/value head, and its gradient is the sum of theirs.
void check_exchange(const ContextExchange& exchange, int cp, int64_t q_heads, int64_t kv_heads);

// What one rank attends over: after the trade, if its unit has several ranks.
struct ExchangeShape {
  ContextUnits units;
  int member = 0;                     // this rank's number inside its unit
  int64_t q_heads = 0, kv_heads = 0;  // of this rank
  int64_t head_dim = 0;
  DType compute = DType::F32;

  int64_t queries_per_key() const { return q_heads / kv_heads; }
  int rank_of(int unit) const { return unit * units.ranks + member; }  // this rank's peer in a unit
  // Key/value heads that are done at once. On the CPU a thread's work in backward is a head at least. On a GPU all of
  // them, but where keys and values are gathered at most half: those of a group only come beside the attention of the
  // group before.
  int64_t group(ContextExchange::Outer outer, Target target) const;
};

// What a rank has of its own slots: q [q_heads, slots, head_dim], k and v [kv_heads, slots, head_dim]; its gradient.
struct AttentionInputs {
  ConstTensor q, k, v;
};
struct AttentionGradients {
  Tensor q, k, v;
};

// Bytes that a rank sends over cp for one layer and microbatch.
struct ContextTraffic {
  int64_t forward = 0, backward = 0;

  ContextTraffic& operator+=(const ContextTraffic& other) {
    forward += other.forward;
    backward += other.backward;
    return *this;
  }
};

// slots: of one rank; heads: as for check_exchange.
ExchangeShape exchange_shape(const ContextExchange& exchange, int cp, int cp_rank, int64_t slots, int64_t q_heads,
                             int64_t kv_heads, int64_t head_dim, DType compute);

}  // namespace tessera
