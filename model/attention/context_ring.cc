#include "model/attention/context_ring.h"

#include <algorithm>

#include "model/attention/context_heads.h"
#include "model/attention/context_tags.h"
#include "tensor/ops/attention/attention_merge.h"
#include "tensor/ops/columns.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"

namespace tessera {
namespace {

// This unit's neighbours, and whose block it has after some hops.
struct Ring {
  const ExchangeShape& shape;
  const RingRoutes& routes;

  int units() const { return shape.units.units; }
  int rank(int distance) const { return shape.rank_of((shape.units.unit + distance + units()) % units()); }
  int origin(int hops) const { return (shape.units.unit + units() - hops) % units(); }
  // Rows that this unit has after some hops, and how many of them it passes on.
  int64_t rows(int hops) const { return routes.length(origin(hops), hops); }
  int64_t passed_on(int hops) const { return routes.length(origin(hops), hops + 1); }
};

// Blocks of keys and values of one group of heads on their way round.
class Blocks {
 public:
  Blocks(const ExchangeShape& shape, int64_t heads, Arena& arena)
      : memory_{KeyValues::take(arena, heads, shape.units.slots, shape.head_dim, shape.compute),
                KeyValues::take(arena, heads, shape.units.slots, shape.head_dim, shape.compute)} {}

  // Packs this unit's own block of a group of heads.
  void pack(LayerRun run, const Ring& ring, const AttentionInputs& in, const HeadGroup& group) const {
    const KeyValues block = at(ring, 0);
    for (int64_t h = 0; h < group.size(); ++h) {
      embedding(run.context, ring.routes.rows(), head_of(in.k, group.begin + h), 0, head_of(block.k, h));
      embedding(run.context, ring.routes.rows(), head_of(in.v, group.begin + h), 0, head_of(block.v, h));
    }
  }
  // Starts a hop: the block of `hops` hops goes on, and the next one comes.
  void pass_on(LayerRun run, const Ring& ring, int hops) const {
    const KeyValues here = at(ring, hops), next = at(ring, hops + 1);
    for (const auto& [from, to] : {std::pair{here.k, next.k}, std::pair{here.v, next.v}}) {
      for (int64_t h = 0; h < from.dim(0); ++h) {
        run.cp->incoming(kContextData).receive(head_of(to, h), ring.rank(-1));
        run.cp->outgoing(kContextData).send(head_of(from, h).rows(0, ring.passed_on(hops)), ring.rank(1));
      }
    }
  }
  static void finish_hop(LayerRun run) {
    run.cp->incoming(kContextData).wait();
    run.cp->outgoing(kContextData).wait();
  }
  KeyValues at(const Ring& ring, int hops) const {
    return memory_[hops % 2].with_rows(hops == 0 ? ring.routes.length(ring.shape.units.unit, 1) : ring.rows(hops));
  }

 private:
  KeyValues memory_[2];
};

// A group's output while it is merged, and one part of it.
struct Merging {
  Merging(const ExchangeShape& shape, int64_t heads, Arena& arena) {
    const int64_t q_heads = heads * shape.queries_per_key(), slots = shape.units.slots;
    const DType sums = accumulation_dtype(shape.compute);
    out = arena.take({slots, q_heads, shape.head_dim}, sums);
    part_out = arena.take({slots, q_heads, shape.head_dim}, shape.compute);
    part_lse = arena.take({q_heads, slots}, sums);
  }
  Tensor out, part_out, part_lse;
};

// A group's gradients while they are added up.
struct Sums {
  Sums(const ExchangeShape& shape, int64_t heads, Arena& arena) {
    const int64_t q_heads = heads * shape.queries_per_key(), slots = shape.units.slots;
    const DType dtype = accumulation_dtype(shape.compute);
    dq = arena.take({q_heads, slots, shape.head_dim}, dtype);
    part_dq = arena.take({q_heads, slots, shape.head_dim}, shape.compute);
    part = KeyValues::take(arena, heads, slots, shape.head_dim, shape.compute);
    for (KeyValues& sums : travelling) sums = KeyValues::take(arena, heads, slots, shape.head_dim, dtype);
    home = KeyValues::take(arena, heads, slots, shape.head_dim, dtype);
    own = arena.take({slots, shape.head_dim}, dtype);
  }
  Tensor dq, part_dq;
  KeyValues part;           // of one block
  KeyValues travelling[2];  // sums of the block that is here, by hops
  KeyValues home;           // of this unit's block, come back
  Tensor own;               // of one head
};

template <class Visit>
void for_heads(const KeyValues& a, const KeyValues& b, Visit visit) {
  for (const auto& [x, y] : {std::pair{a.k, b.k}, std::pair{a.v, b.v}}) {
    for (int64_t h = 0; h < x.dim(0); ++h) visit(head_of(x, h), head_of(y, h));
  }
}

// Room for what comes home from each unit that is the last to see a row of this unit's block.
void await_home(LayerRun run, const Ring& ring, const KeyValues& home) {
  const int own = ring.shape.units.unit;
  for (int hops = 1; hops < ring.units(); ++hops) {
    for (const Tensor& sums : {home.k, home.v}) {
      for (int64_t h = 0; h < sums.dim(0); ++h) {
        run.cp->incoming(kContextHome)
            .receive(head_of(sums, h).rows(ring.routes.length(own, hops + 1), ring.routes.length(own, hops)),
                     ring.rank(hops));
      }
    }
  }
}

// Adds this unit's part to the sums of the block that is here, and sends them on: to the next unit what it sees too,
// and home what it does not.
void add_and_pass_on(LayerRun run, const Ring& ring, int hops, const KeyValues& part, const KeyValues& sums) {
  const int64_t rows = ring.rows(hops), passed_on = ring.passed_on(hops);
  run.cp->incoming(kContextSums).wait();
  for_heads(part, sums, [&](const Tensor& made, const Tensor& sum) {
    if (hops == 1)
      cast(run.context, made, sum);
    else
      accumulate(run.context, made, sum);
    run.cp->outgoing(kContextSums).send(sum.rows(0, passed_on), ring.rank(1));
    run.cp->outgoing(kContextHome).send(sum.rows(passed_on, rows), ring.rank(-hops));
  });
}

}  // namespace

void ring_attention(LayerRun run, const ExchangeShape& shape, const AttentionPlan& plan, const AttentionInputs& in,
                    const Tensor& out, const Tensor& lse) {
  const ArenaScope scope(run.context.workspace());
  const Ring ring{shape, plan.ring()};
  const int64_t heads = shape.group(ContextExchange::Outer::Ring, run.context.target());
  const Blocks blocks(shape, heads, run.context.workspace());
  const Merging merging(shape, heads, run.context.workspace());
  const ContextGroup::Scope messages(*run.cp);
  const auto columns = [&](const Tensor& x) { return x.reshape({x.dim(0), x.dim(1) * x.dim(2)}); };
  for (int64_t g = 0; g < shape.kv_heads / heads; ++g) {
    const HeadGroup group(shape, g, heads);
    const ConstTensor q = group.queries_in(in.q);
    const Tensor group_lse = group.queries_in(lse);
    blocks.pack(run, ring, in, group);
    attention_merge_start(run.context, merging.out, group_lse);
    for (int hops = 0; hops < ring.units(); ++hops) {
      if (hops + 1 < ring.units()) blocks.pass_on(run, ring, hops);
      const KeyValues block = blocks.at(ring, hops);
      const ConstTensor k = hops == 0 ? group.keys_in(in.k) : ConstTensor(block.k);
      const ConstTensor v = hops == 0 ? group.keys_in(in.v) : ConstTensor(block.v);
      attention(run.context, plan.block(hops), q, k, v, merging.part_out, merging.part_lse);
      attention_merge(run.context, merging.part_out, merging.part_lse, merging.out, group_lse);
      Blocks::finish_hop(run);
    }
    copy_columns(run.context, columns(merging.out), 0, group.q_size() * shape.head_dim, columns(out),
                 group.q_begin * shape.head_dim);
  }
}

void ring_attention_backward(LayerRun run, const ExchangeShape& shape, const AttentionPlan& plan,
                             const AttentionInputs& in, const ConstTensor& out, const ConstTensor& lse,
                             const ConstTensor& dout, const AttentionGradients& gradients) {
  const ArenaScope scope(run.context.workspace());
  const Ring ring{shape, plan.ring()};
  const int64_t heads = shape.group(ContextExchange::Outer::Ring, run.context.target());
  const Blocks blocks(shape, heads, run.context.workspace());
  const Sums sums(shape, heads, run.context.workspace());
  const ContextGroup::Scope messages(*run.cp);
  const KeyValues home = sums.home.with_rows(ring.routes.length(shape.units.unit, 1));
  for (int64_t g = 0; g < shape.kv_heads / heads; ++g) {
    const HeadGroup group(shape, g, heads);
    const KeyValues own{group.keys_in(gradients.k), group.keys_in(gradients.v)};
    const auto kernel = [&](int hops, const ConstTensor& k, const ConstTensor& v, const KeyValues& made) {
      attention_backward(run.context, group.problem(plan.block(hops)), group.queries_in(in.q), k, v, out,
                         group.queries_in(lse), dout, sums.part_dq, made.k, made.v);
    };
    await_home(run, ring, home);
    blocks.pack(run, ring, in, group);
    blocks.pass_on(run, ring, 0);
    kernel(0, group.keys_in(in.k), group.keys_in(in.v), own);
    cast(run.context, sums.part_dq, sums.dq);
    Blocks::finish_hop(run);
    for (int hops = 1; hops < ring.units(); ++hops) {
      const KeyValues block = blocks.at(ring, hops), part = sums.part.with_rows(ring.rows(hops));
      const KeyValues travelling = sums.travelling[hops % 2].with_rows(ring.rows(hops));
      if (hops + 1 < ring.units()) blocks.pass_on(run, ring, hops);
      if (hops > 1) {
        for_heads(travelling, travelling, [&](const Tensor& sum, const Tensor&) {
          run.cp->incoming(kContextSums).receive(sum, ring.rank(-1));
        });
      }
      kernel(hops, block.k, block.v, part);
      accumulate(run.context, sums.part_dq, sums.dq);
      run.cp->outgoing(kContextSums).wait();  // of the hop before, whose memory takes the next hop's
      run.cp->outgoing(kContextHome).wait();
      add_and_pass_on(run, ring, hops, part, travelling);
      Blocks::finish_hop(run);
    }
    run.cp->incoming(kContextHome).wait();
    for_heads(own, home, [&](const Tensor& gradient, const Tensor& come_back) {
      cast(run.context, gradient, sums.own);
      embedding_backward(run.context, ring.routes.rows(), come_back, 0, sums.own);
      cast(run.context, sums.own, gradient);
    });
    cast(run.context, sums.dq, group.queries_in(gradients.q));
    run.cp->outgoing(kContextSums).wait();
    run.cp->outgoing(kContextHome).wait();
  }
}

int64_t ring_attention_workspace(Target target, const ExchangeShape& shape) {
  const int64_t heads = shape.group(ContextExchange::Outer::Ring, target);
  Arena forward = Arena::tally(), backward = Arena::tally();
  Blocks(shape, heads, forward);
  Merging(shape, heads, forward);
  Blocks(shape, heads, backward);
  Sums(shape, heads, backward);
  return std::max(forward.used(), backward.used()) + attention_workspace(target, shape.units.slots, shape.units.slots,
                                                                         heads * shape.queries_per_key(), heads,
                                                                         shape.head_dim, shape.compute);
}

ContextTraffic ring_attention_sent(const ExchangeShape& shape, int64_t rows_passed_on, int64_t rows_come) {
  const int64_t row = 2 * shape.kv_heads * shape.head_dim;
  const int64_t passed_on = rows_passed_on * row * size_of(shape.compute);
  const int64_t sums = rows_come * row * size_of(accumulation_dtype(shape.compute));
  return {.forward = passed_on, .backward = passed_on + sums};
}

ContextTraffic ring_attention_sent(const ExchangeShape& shape, const RingRoutes& routes) {
  const Ring ring{shape, routes};
  int64_t passed_on = ring.passed_on(0), come = 0;
  for (int hops = 1; hops < ring.units(); ++hops) {
    passed_on += ring.passed_on(hops);
    come += ring.rows(hops);
  }
  return ring_attention_sent(shape, passed_on, come);
}

}  // namespace tessera
