#include "model/attention/context_trade.h"

#include "model/attention/context_heads.h"
#include "model/attention/context_tags.h"
#include "tensor/ops/columns.h"
#include "tensor/ops/elementwise.h"

namespace tessera {
namespace {

// Token-major heads as a matrix with a row a token.
template <class AnyTensor>
AnyTensor by_token(const AnyTensor& x) {
  return x.reshape({x.dim(0), x.dim(1) * x.dim(2)});
}

Tensor take_heads(Arena& arena, const ExchangeShape& shape, int64_t heads) {
  return arena.take({heads, shape.units.slots, shape.head_dim}, shape.compute);
}
Tensor take_out(Arena& arena, const ExchangeShape& shape) {
  return arena.take({shape.units.slots, shape.q_heads, shape.head_dim}, shape.compute);
}

}  // namespace

HeadTrade::Forward HeadTrade::take_forward(Arena& arena) const {
  Forward memory;
  memory.q = take_heads(arena, unit_, unit_.q_heads);
  memory.k = take_heads(arena, unit_, unit_.kv_heads);
  memory.v = take_heads(arena, unit_, unit_.kv_heads);
  memory.out = take_out(arena, unit_);
  memory.columns = take_out(arena, unit_);
  return memory;
}

HeadTrade::Backward HeadTrade::take_backward(Arena& arena) const {
  Backward memory;
  for (Tensor* q : {&memory.q, &memory.dq}) *q = take_heads(arena, unit_, unit_.q_heads);
  for (Tensor* kv : {&memory.k, &memory.v, &memory.dk, &memory.dv}) *kv = take_heads(arena, unit_, unit_.kv_heads);
  for (Tensor* out : {&memory.out, &memory.dout, &memory.columns}) *out = take_out(arena, unit_);
  memory.parts = arena.take({2 * rank_.kv_heads, ranks(), slots(), unit_.head_dim}, unit_.compute);
  memory.sum = arena.take({slots(), unit_.head_dim}, accumulation_dtype(unit_.compute));
  return memory;
}

template <class AnyTensor>
AnyTensor HeadTrade::slots_of(const AnyTensor& traded, int64_t head, int member) const {
  return head_of(traded, head).rows(member * slots(), (member + 1) * slots());
}

void HeadTrade::give(LayerRun run, const AttentionInputs& in, const Tensor& q, const Tensor& k, const Tensor& v) const {
  const auto give_heads = [&](const ConstTensor& all, const Tensor& traded, auto first) {
    for (int member = 0; member < ranks(); ++member) {
      for (int64_t h = 0; h < traded.dim(0); ++h) {
        const ConstTensor theirs = head_of(all, (this->*first)(member) + h);
        if (member == unit_.member) {
          cast(run.context, theirs, slots_of(traded, h, member));
        } else {
          run.cp->incoming(kContextData).receive(slots_of(traded, h, member), peer(member));
          run.cp->outgoing(kContextData).send(theirs, peer(member));
        }
      }
    }
  };
  give_heads(in.q, q, &HeadTrade::first_query);
  give_heads(in.k, k, &HeadTrade::first_key);
  give_heads(in.v, v, &HeadTrade::first_key);
}

void HeadTrade::give_outputs(LayerRun run, const ConstTensor& all, const Tensor& columns, const Tensor& traded) const {
  const int64_t width = unit_.q_heads * unit_.head_dim;
  for (int member = 0; member < ranks(); ++member) {
    const auto rows_of = [&](const Tensor& x) { return by_token(x).rows(member * slots(), (member + 1) * slots()); };
    const Tensor theirs = rows_of(member == unit_.member ? traded : columns);
    copy_columns(run.context, by_token(all), first_query(member) * unit_.head_dim, width, theirs, 0);
    if (member == unit_.member) continue;
    run.cp->incoming(kContextData).receive(rows_of(traded), peer(member));
    run.cp->outgoing(kContextData).send(theirs, peer(member));
  }
}

void HeadTrade::return_outputs(LayerRun run, const ConstTensor& traded, const Tensor& columns,
                               const Tensor& all) const {
  const int64_t width = unit_.q_heads * unit_.head_dim;
  const auto rows_of = [&](const auto& x, int member) {
    return by_token(x).rows(member * slots(), (member + 1) * slots());
  };
  for (int member = 0; member < ranks(); ++member) {
    if (member == unit_.member) continue;
    run.cp->incoming(kContextHome).receive(rows_of(columns, member), peer(member));
    run.cp->outgoing(kContextHome).send(rows_of(traded, member), peer(member));
  }
  run.cp->incoming(kContextHome).wait();
  for (int member = 0; member < ranks(); ++member) {
    const ConstTensor theirs = member == unit_.member ? rows_of(traded, member) : ConstTensor(rows_of(columns, member));
    copy_columns(run.context, theirs, 0, width, by_token(all), first_query(member) * unit_.head_dim);
  }
  run.cp->outgoing(kContextHome).wait();
}

void HeadTrade::return_gradients(LayerRun run, const Backward& made, const AttentionGradients& gradients) const {
  // A key/value head's gradient comes in parts, one from each rank that had the head.
  const auto part = [&](int64_t head, int member) {
    const int64_t at = (head * ranks() + member) * slots();
    return made.parts.reshape({2 * rank_.kv_heads * ranks() * slots(), unit_.head_dim}).rows(at, at + slots());
  };
  const auto for_keys = [&](auto visit) {  // visit(made, gradient, first head of the parts)
    visit(made.dk, gradients.k, int64_t{0});
    visit(made.dv, gradients.v, rank_.kv_heads);
  };
  for (int member = 0; member < ranks(); ++member) {
    const bool own = member == unit_.member;
    for (int64_t h = 0; h < unit_.q_heads; ++h) {
      const Tensor to = head_of(gradients.q, first_query(member) + h);
      if (own) {
        cast(run.context, slots_of(made.dq, h, member), to);
      } else {
        run.cp->incoming(kContextHome).receive(to, peer(member));
        run.cp->outgoing(kContextHome).send(slots_of(made.dq, h, member), peer(member));
      }
    }
    for_keys([&](const Tensor& from, const Tensor&, int64_t first) {
      for (int64_t h = 0; h < unit_.kv_heads; ++h) {
        const Tensor to = part(first + first_key(member) + h, member);
        if (own) {
          cast(run.context, slots_of(from, h, member), to);
        } else {
          run.cp->incoming(kContextHome).receive(to, peer(member));
          run.cp->outgoing(kContextHome).send(slots_of(from, h, member), peer(member));
        }
      }
    });
  }
  run.cp->incoming(kContextHome).wait();
  for_keys([&](const Tensor&, const Tensor& gradient, int64_t first) {
    for (int64_t h = 0; h < rank_.kv_heads; ++h) {
      bool any = false;
      for (int member = 0; member < ranks(); ++member) {
        if (h < first_key(member) || h >= first_key(member) + unit_.kv_heads) continue;
        if (any)
          accumulate(run.context, part(first + h, member), made.sum);
        else
          cast(run.context, part(first + h, member), made.sum);
        any = true;
      }
      cast(run.context, made.sum, head_of(gradient, h));
    }
  });
  run.cp->outgoing(kContextHome).wait();
}

ContextTraffic HeadTrade::sent() const {
  const int64_t head = (ranks() - 1) * slots() * unit_.head_dim * size_of(unit_.compute);
  const int64_t q = unit_.q_heads, kv = unit_.kv_heads;
  return {.forward = (2 * q + 2 * kv) * head, .backward = (4 * q + 4 * kv) * head};
}

}  // namespace tessera
