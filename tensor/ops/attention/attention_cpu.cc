#include "tensor/ops/attention/attention_cpu.h"

#include <cmath>
#include <limits>

#include "tensor/context/threads.h"

namespace tessera {
namespace {

using namespace attention_detail;

// Elements of scratch that one worker needs: Q^T, scores, O^T, and K and V when they have to be converted.
template <class T>
int64_t scratch_elements(int64_t head_dim) {
  const int64_t converted = std::is_same_v<T, Acc<T>> ? 0 : 2 * kTile * head_dim;
  return 2 * kTile * head_dim + kTile * kTile + converted;
}

template <class T>
struct Forward {
  using A = Acc<T>;
  using S = Simd<A>;
  using Vector = typename S::Vector;

  const AttentionProblem& problem;
  AttentionSizes sizes;
  const T* q;
  const T* k;
  const T* v;
  T* out;
  A* lse;

  // One tile of queries of one head.
  void run(int64_t head, int64_t tile, A* scratch) const {
    const int64_t head_dim = sizes.head_dim;
    const int64_t kv_head = head / (sizes.q_heads / sizes.kv_heads);
    const int64_t first = tile * kTile;
    const int64_t rows = tile_rows(sizes.queries, tile);
    A* q_columns = take(scratch, kTile * head_dim);
    A* scores = take(scratch, kTile * kTile);
    A* o_columns = take(scratch, kTile * head_dim);
    A* k_scratch = scratch;
    A* v_scratch = scratch + kTile * head_dim;

    pack_columns(q + (head * sizes.queries + first) * head_dim, head_dim, rows, head_dim,
                 static_cast<A>(problem.scale * std::numbers::log2e), q_columns);
    const Visibility<A> visibility(problem, tile, rows);
    alignas(kVectorBytes) A top[kTile];     // largest score so far, times log2(e)
    alignas(kVectorBytes) A sum[kTile];     // of exp(score - top)
    alignas(kVectorBytes) A factor[kTile];  // that brings earlier sums to a new top
    std::fill_n(top, kTile, -std::numeric_limits<A>::infinity());
    std::fill_n(sum, kTile, A{0});
    std::fill_n(o_columns, kTile * head_dim, A{0});

    for (int32_t pair = problem.tiles.offset[tile]; pair < problem.tiles.offset[tile + 1]; ++pair) {
      const int64_t key = problem.tiles.key_tile[pair] * kTile;
      const int64_t keys = tile_rows(sizes.keys, problem.tiles.key_tile[pair]);
      const int64_t kv_offset = (kv_head * sizes.keys + key) * head_dim;
      const A* k_rows = accumulation_rows(k + kv_offset, keys, head_dim, k_scratch);
      const A* v_rows = accumulation_rows(v + kv_offset, keys, head_dim, v_scratch);
      tile_product<A>(keys, kTile, head_dim, {k_rows, head_dim, Transpose::No}, {q_columns, kTile}, {scores, kTile},
                      Write::Overwrite);
      if (problem.tiles.full[pair] == 0) hide(visibility, key, keys, scores);
      exponentials(keys, scores, top, sum, factor);
      rescale(factor, o_columns);
      tile_product<A>(head_dim, kTile, keys, {v_rows, head_dim, Transpose::Yes}, {scores, kTile}, {o_columns, kTile},
                      Write::Accumulate);
    }

    for (int64_t i = 0; i < rows; ++i) {
      // A query that sees a key has sum >= 1, because its largest score contributes exp(0).
      const bool blind = sum[i] == A{0};
      factor[i] = blind ? A{0} : A{1} / sum[i];
      lse[head * sizes.queries + first + i] =
          blind ? -std::numeric_limits<A>::infinity() : top[i] * std::numbers::ln2_v<A> + std::log(sum[i]);
    }
    unpack_columns(o_columns, rows, head_dim, factor,
                   out + (first * sizes.out_heads + sizes.first_head + head) * head_dim, sizes.out_heads * head_dim);
  }

  static void hide(const Visibility<A>& visibility, int64_t key, int64_t keys, A* scores) {
    const Vector hidden = S::all(-std::numeric_limits<A>::infinity());
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t lane = 0; lane < kTile; lane += S::kLanes) {
        A* s = scores + j * kTile + lane;
        S::store(s, visibility.select(key + j, lane, S::load(s), hidden));
      }
    }
  }

  // Scores become exp(score - top), with top, sum and factor brought up to date.
  static void exponentials(int64_t keys, A* scores, A* top, A* sum, A* factor) {
    const Vector hidden = S::all(-std::numeric_limits<A>::infinity());
    for (int64_t lane = 0; lane < kTile; lane += S::kLanes) {
      A* s = scores + lane;
      Vector even = S::load(top + lane);
      Vector odd = even;
      for (int64_t j = 0; j + 1 < keys; j += 2) {
        even = S::max(even, S::load(s + j * kTile));
        odd = S::max(odd, S::load(s + (j + 1) * kTile));
      }
      if (keys % 2 != 0) even = S::max(even, S::load(s + (keys - 1) * kTile));
      const Vector new_top = S::max(even, odd);
      // Nothing seen yet: any finite number will do, and all exponentials are exp(-infinity) = 0.
      const Vector shift = new_top == hidden ? Vector{} : new_top;
      const Vector rescaling = exp2(S::load(top + lane) - shift);
      Vector total = S::load(sum + lane) * rescaling;
      for (int64_t j = 0; j < keys; ++j) {
        const Vector p = exp2(S::load(s + j * kTile) - shift);
        total += p;
        S::store(s + j * kTile, p);
      }
      S::store(top + lane, new_top);
      S::store(sum + lane, total);
      S::store(factor + lane, rescaling);
    }
  }

  void rescale(const A* factor, A* o_columns) const {
    if (std::all_of(factor, factor + kTile, [](A x) { return x == A{1}; })) return;
    for (int64_t d = 0; d < sizes.head_dim; ++d) {
      for (int64_t lane = 0; lane < kTile; lane += S::kLanes) {
        A* o = o_columns + d * kTile + lane;
        S::store(o, S::load(o) * S::load(factor + lane));
      }
    }
  }
};

template <class T>
void forward(Context& context, const AttentionProblem& problem, const AttentionSizes& sizes, const ConstTensor& q,
             const ConstTensor& k, const ConstTensor& v, const Tensor& out, const Tensor& lse) {
  using A = Acc<T>;
  const int64_t tiles = tile_count(sizes.queries);
  const ArenaScope scope(context.workspace());
  const int64_t elements = scratch_elements<T>(sizes.head_dim);
  const Tensor scratch = context.workspace().take({context.threads(), elements}, dtype_of<A>());
  const Forward<T> body{problem, sizes, q.as<T>(), k.as<T>(), v.as<T>(), out.as<T>(), lse.as<A>()};
  // Neighbouring tasks share their keys and values while these are in the cache. Within a head the last tiles, which
  // see most keys, come first, so that threads end together.
  parallel_tasks(context, tiles * sizes.q_heads, [&](int64_t task, int worker) {
    body.run(task / tiles, tiles - 1 - task % tiles, scratch.as<A>() + worker * elements);
  });
}

}  // namespace

void cpu::attention(Context& context, const AttentionProblem& problem, const ConstTensor& q, const ConstTensor& k,
                    const ConstTensor& v, const Tensor& out, const Tensor& lse) {
  const AttentionSizes sizes = attention_sizes(problem, q, k, out);
  dispatch_float(q.dtype(), [&](auto type) { forward<decltype(type)>(context, problem, sizes, q, k, v, out, lse); });
}

int64_t attention_forward_workspace(int threads, const AttentionSizes& sizes) {
  const int64_t elements =
      dispatch_float(sizes.compute, [&](auto type) { return scratch_elements<decltype(type)>(sizes.head_dim); });
  return Arena::bytes({threads, elements}, accumulation_dtype(sizes.compute));
}

int64_t cpu::attention_workspace(Target target, int64_t queries, int64_t keys, int64_t q_heads, int64_t kv_heads,
                                 int64_t head_dim, DType compute) {
  const AttentionSizes sizes = {.queries = queries,
                                .keys = keys,
                                .q_heads = q_heads,
                                .kv_heads = kv_heads,
                                .head_dim = head_dim,
                                .compute = compute,
                                .out_heads = q_heads,
                                .first_head = 0};
  return std::max(attention_forward_workspace(target.threads, sizes),
                  attention_backward_workspace(target.threads, sizes));
}

}  // namespace tessera
