#include "model/attention/context_gather.h"

#include <algorithm>

#include "model/attention/context_heads.h"
#include "model/attention/context_tags.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"

namespace tessera {
namespace {

KeyValues take(Arena& arena, const ExchangeShape& shape, int64_t heads, int64_t rows) {
  return KeyValues::take(arena, heads, rows, shape.head_dim, shape.compute);
}

// Keys and values on their way here, a group of heads at a time.
class Gathering {
 public:
  Gathering(const ExchangeShape& shape, int64_t group, Arena& arena)
      : group_(group),
        gathered_{take(arena, shape, group, ContextRoutes::most_keys(shape.units)),
                  take(arena, shape, group, ContextRoutes::most_keys(shape.units))},
        packed_(take(arena, shape, group, ContextRoutes::most_sent(shape.units))) {}

  // Starts group g's journey. What the group before the last one had is overwritten.
  void start(LayerRun run, const ExchangeShape& shape, const ContextRoutes& routes, const AttentionInputs& in,
             int64_t g) {
    run.cp->outgoing(kContextData).wait();  // what was packed for the group before has been taken up
    const KeyValues to = keys(routes, g);
    for (const auto& [from, all, packed] : {std::tuple{in.k, to.k, packed_.k}, std::tuple{in.v, to.v, packed_.v}}) {
      for (int64_t h = 0; h < group_; ++h) {
        const ConstTensor own = head_of(from, g * group_ + h);
        const Tensor head = head_of(all, h), outgoing = head_of(packed, h);
        int64_t at = 0;
        for (int unit = 0; unit < shape.units.units; ++unit) {
          if (unit == shape.units.unit) continue;
          const std::span<const int32_t> rows = routes.sent(unit);
          const auto count = static_cast<int64_t>(rows.size());
          run.cp->incoming(kContextData)
              .receive(head.rows(routes.first_key(unit), routes.first_key(unit) + routes.received(unit)),
                       shape.rank_of(unit));
          const Tensor part = outgoing.rows(at, at + count);
          embedding(run.context, rows, own, 0, part);
          run.cp->outgoing(kContextData).send(part, shape.rank_of(unit));
          at += count;
        }
        cast(run.context, own, head.rows(0, own.dim(0)));
      }
    }
  }
  // Group g's keys and values; whole after incoming(kContextData).wait().
  KeyValues keys(const ContextRoutes& routes, int64_t g) const {
    const auto rows = static_cast<int64_t>(routes.keys().document.size());
    return gathered_[g % 2].with_rows(rows);
  }

 private:
  int64_t group_;
  KeyValues gathered_[2];
  KeyValues packed_;  // for all other units, one after another, in each head's memory
};

// Gradients of keys and values on their way to their owners.
class Homing {
 public:
  Homing(const ExchangeShape& shape, int64_t group, Arena& arena)
      : group_(group),
        made_{take(arena, shape, group, ContextRoutes::most_keys(shape.units)),
              take(arena, shape, group, ContextRoutes::most_keys(shape.units))},
        parts_(take(arena, shape, group, ContextRoutes::most_sent(shape.units))),
        sum_(arena.take({shape.units.slots, shape.head_dim}, accumulation_dtype(shape.compute))) {}

  // Where group g's gradients are made.
  KeyValues made(const ContextRoutes& routes, int64_t g) const {
    const auto rows = static_cast<int64_t>(routes.keys().document.size());
    return made_[g % 2].with_rows(rows);
  }
  void start(LayerRun run, const ExchangeShape& shape, const ContextRoutes& routes, int64_t g) {
    const KeyValues from = made(routes, g);
    for (const auto& [all, parts] : {std::pair{from.k, parts_.k}, std::pair{from.v, parts_.v}}) {
      for (int64_t h = 0; h < group_; ++h) {
        const Tensor head = head_of(all, h), incoming = head_of(parts, h);
        for_units(shape, routes, [&](int unit, int64_t begin, int64_t end) {
          run.cp->incoming(kContextHome).receive(incoming.rows(begin, end), shape.rank_of(unit));
          run.cp->outgoing(kContextHome)
              .send(head.rows(routes.first_key(unit), routes.first_key(unit) + routes.received(unit)),
                    shape.rank_of(unit));
        });
      }
    }
  }
  // Waits for group g's parts and overwrites its gradients with the sums.
  void finish(LayerRun run, const ExchangeShape& shape, const ContextRoutes& routes, int64_t g,
              const AttentionGradients& gradients) {
    run.cp->incoming(kContextHome).wait();
    const KeyValues from = made(routes, g);
    for (const auto& [all, parts, to] :
         {std::tuple{from.k, parts_.k, gradients.k}, std::tuple{from.v, parts_.v, gradients.v}}) {
      for (int64_t h = 0; h < group_; ++h) {
        cast(run.context, head_of(all, h).rows(0, shape.units.slots), sum_);
        const Tensor incoming = head_of(parts, h);
        for_units(shape, routes, [&](int unit, int64_t begin, int64_t end) {
          embedding_backward(run.context, routes.sent(unit), incoming.rows(begin, end), 0, sum_);
        });
        cast(run.context, sum_, head_of(to, g * group_ + h));
      }
    }
    run.cp->outgoing(kContextHome).wait();
  }

 private:
  // visit(unit, begin, end): the rows of parts_ that come from another unit.
  template <class Visit>
  static void for_units(const ExchangeShape& shape, const ContextRoutes& routes, Visit visit) {
    int64_t at = 0;
    for (int unit = 0; unit < shape.units.units; ++unit) {
      const auto count = static_cast<int64_t>(routes.sent(unit).size());
      if (unit != shape.units.unit) visit(unit, at, at + count);
      at += count;
    }
  }

  int64_t group_;
  KeyValues made_[2];
  KeyValues parts_;
  Tensor sum_;
};

}  // namespace

void gather_attention(LayerRun run, const ExchangeShape& shape, const AttentionPlan& plan, const AttentionInputs& in,
                      const Tensor& out, const Tensor& lse) {
  const ArenaScope scope(run.context.workspace());
  const int64_t heads = shape.group(ContextExchange::Outer::Gather, run.context.target()),
                groups = shape.kv_heads / heads;
  Gathering gathering(shape, heads, run.context.workspace());
  const ContextGroup::Scope messages(*run.cp);
  gathering.start(run, shape, plan.routes(), in, 0);
  for (int64_t g = 0; g < groups; ++g) {
    run.cp->incoming(kContextData).wait();
    if (g + 1 < groups) gathering.start(run, shape, plan.routes(), in, g + 1);
    const KeyValues keys = gathering.keys(plan.routes(), g);
    const HeadGroup group(shape, g, heads);
    attention(run.context, group.problem(plan.problem()), group.queries_in(in.q), keys.k, keys.v, out,
              group.queries_in(lse));
  }
  run.cp->outgoing(kContextData).wait();
}

void gather_attention_backward(LayerRun run, const ExchangeShape& shape, const AttentionPlan& plan,
                               const AttentionInputs& in, const ConstTensor& out, const ConstTensor& lse,
                               const ConstTensor& dout, const AttentionGradients& gradients) {
  const ArenaScope scope(run.context.workspace());
  const int64_t heads = shape.group(ContextExchange::Outer::Gather, run.context.target()),
                groups = shape.kv_heads / heads;
  Gathering gathering(shape, heads, run.context.workspace());
  Homing homing(shape, heads, run.context.workspace());
  const ContextGroup::Scope messages(*run.cp);
  gathering.start(run, shape, plan.routes(), in, 0);
  for (int64_t g = 0; g < groups; ++g) {
    run.cp->incoming(kContextData).wait();
    if (g + 1 < groups) gathering.start(run, shape, plan.routes(), in, g + 1);
    const KeyValues keys = gathering.keys(plan.routes(), g), made = homing.made(plan.routes(), g);
    const HeadGroup group(shape, g, heads);
    attention_backward(run.context, group.problem(plan.problem()), group.queries_in(in.q), keys.k, keys.v, out,
                       group.queries_in(lse), dout, group.queries_in(gradients.q), made.k, made.v);
    if (g > 0) homing.finish(run, shape, plan.routes(), g - 1, gradients);
    homing.start(run, shape, plan.routes(), g);
  }
  homing.finish(run, shape, plan.routes(), groups - 1, gradients);
  run.cp->outgoing(kContextData).wait();
}

int64_t gather_attention_workspace(Target target, const ExchangeShape& shape) {
  Arena tally = Arena::tally();
  const int64_t heads = shape.group(ContextExchange::Outer::Gather, target);
  Gathering(shape, heads, tally);
  Homing(shape, heads, tally);
  return tally.used() + attention_workspace(target, shape.units.slots, ContextRoutes::most_keys(shape.units),
                                            heads * shape.queries_per_key(), heads, shape.head_dim, shape.compute);
}

ContextTraffic gather_attention_sent(const ExchangeShape& shape, int64_t sent_rows, int64_t received_rows) {
  const int64_t row = 2 * shape.kv_heads * shape.head_dim * size_of(shape.compute);
  return {.forward = sent_rows * row, .backward = (sent_rows + received_rows) * row};
}

}  // namespace tessera
