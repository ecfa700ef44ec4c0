#include <limits>

#include "tensor/context/threads.h"
#include "tensor/ops/attention/attention_cpu.h"
#include "tensor/ops/attention/attention_groups.h"

namespace tessera {
namespace {

using namespace attention_detail;

// dK and dV are summed in place when they have the accumulation dtype and rows of whole vectors.
template <class T>
bool sums_in_place(int64_t head_dim) {
  return std::is_same_v<T, Acc<T>> && head_dim == padded(head_dim);
}

// Elements of scratch that one worker needs: Q^T, dO^T, dQ^T, padded Q and dO, probabilities and their gradients, and
// K and V when they have to be converted.
template <class T>
int64_t scratch_elements(int64_t head_dim) {
  const int64_t converted = std::is_same_v<T, Acc<T>> ? 0 : 2 * kTile * head_dim;
  return 3 * kTile * head_dim + 2 * kTile * padded(head_dim) + 2 * kTile * kTile + converted;
}

template <class T>
struct Backward {
  using A = Acc<T>;
  using S = Simd<A>;
  using Vector = typename S::Vector;

  const AttentionProblem& problem;
  const TileGroups& groups;
  AttentionSizes sizes;
  const T* q;
  const T* k;
  const T* v;
  const T* out;
  const A* lse;
  const T* dout;
  T* dq;
  T* dk;
  T* dv;
  A* dk_sum;  // [kv_heads, keys, padded(head_dim)]
  A* dv_sum;

  struct Scratch {
    A* q_columns;   // [head_dim, tile], times scale * log2(e)
    A* do_columns;  // [head_dim, tile]
    A* dq_columns;  // [head_dim, tile]
    A* q_rows;      // [tile, padded(head_dim)], times scale
    A* do_rows;     // [tile, padded(head_dim)]
    A* p;           // [tile, tile] transposed scores, then probabilities
    A* ds;          // [tile, tile] transposed gradient of the probabilities, then of the scores
    A* k;
    A* v;
  };
  struct Queries {
    alignas(kVectorBytes) A lse[kTile];    // log2 of the sum of exponentials; infinity for a query that sees nothing
    alignas(kVectorBytes) A delta[kTile];  // dout . out
  };

  // One group of tiles of one key/value head, in a fixed order: query tiles, heads of the group, key tiles.
  void run(int64_t group, int64_t kv_head, A* memory) const {
    const int64_t head_dim = sizes.head_dim;
    const int64_t heads = sizes.q_heads / sizes.kv_heads;
    Scratch scratch;
    scratch.q_columns = take(memory, kTile * head_dim);
    scratch.do_columns = take(memory, kTile * head_dim);
    scratch.dq_columns = take(memory, kTile * head_dim);
    scratch.q_rows = take(memory, kTile * padded(head_dim));
    scratch.do_rows = take(memory, kTile * padded(head_dim));
    scratch.p = take(memory, kTile * kTile);
    scratch.ds = take(memory, kTile * kTile);
    scratch.k = memory;
    scratch.v = memory + kTile * head_dim;

    for (const int32_t node : groups.key_nodes(group)) {
      const int64_t first = kv_head * sizes.keys + groups.key_tile(node) * kTile;
      const int64_t elements = tile_rows(sizes.keys, groups.key_tile(node)) * padded(head_dim);
      std::fill_n(dk_sum + first * padded(head_dim), elements, A{0});
      std::fill_n(dv_sum + first * padded(head_dim), elements, A{0});
    }
    for (const int32_t tile : groups.query_tiles(group)) {
      const Visibility<A> visibility(problem, tile, tile_rows(sizes.queries, tile));
      for (int64_t head = kv_head * heads; head < (kv_head + 1) * heads; ++head) {
        query_tile(head, kv_head, tile, visibility, scratch);
      }
    }
    if (sums_in_place<T>(head_dim)) return;
    for (const int32_t node : groups.key_nodes(group)) {
      const int64_t first = kv_head * sizes.keys + groups.key_tile(node) * kTile;
      const int64_t rows = tile_rows(sizes.keys, groups.key_tile(node));
      for (int64_t row = first; row < first + rows; ++row) {
        for (int64_t d = 0; d < head_dim; ++d) {
          dk[row * head_dim + d] = static_cast<T>(dk_sum[row * padded(head_dim) + d]);
          dv[row * head_dim + d] = static_cast<T>(dv_sum[row * padded(head_dim) + d]);
        }
      }
    }
  }

  void query_tile(int64_t head, int64_t kv_head, int64_t tile, const Visibility<A>& visibility,
                  const Scratch& scratch) const {
    const int64_t head_dim = sizes.head_dim;
    const int64_t width = padded(head_dim);
    const int64_t rows = tile_rows(sizes.queries, tile);
    Queries queries;
    load_queries(head, tile, rows, scratch, queries);
    std::fill_n(scratch.dq_columns, kTile * head_dim, A{0});

    for (int32_t pair = problem.tiles.offset[tile]; pair < problem.tiles.offset[tile + 1]; ++pair) {
      const int64_t key = problem.tiles.key_tile[pair] * kTile;
      const int64_t keys = tile_rows(sizes.keys, problem.tiles.key_tile[pair]);
      const int64_t row = kv_head * sizes.keys + key;
      const A* k_rows = accumulation_rows(k + row * head_dim, keys, head_dim, scratch.k);
      const A* v_rows = accumulation_rows(v + row * head_dim, keys, head_dim, scratch.v);
      const LeftMatrix<A> k_left = {k_rows, head_dim, Transpose::No};
      const LeftMatrix<A> v_left = {v_rows, head_dim, Transpose::No};
      const LeftMatrix<A> k_turned = {k_rows, head_dim, Transpose::Yes};
      const LeftMatrix<A> p_left = {scratch.p, kTile, Transpose::No};
      const LeftMatrix<A> ds_left = {scratch.ds, kTile, Transpose::No};
      tile_product<A>(keys, kTile, head_dim, k_left, {scratch.q_columns, kTile}, {scratch.p, kTile}, Write::Overwrite);
      tile_product<A>(keys, kTile, head_dim, v_left, {scratch.do_columns, kTile}, {scratch.ds, kTile},
                      Write::Overwrite);
      if (problem.tiles.full[pair] != 0)
        score_gradients<true>(visibility, key, keys, queries, scratch);
      else
        score_gradients<false>(visibility, key, keys, queries, scratch);
      tile_product<A>(keys, width, rows, p_left, {scratch.do_rows, width}, {dv_sum + row * width, width},
                      Write::Accumulate);
      tile_product<A>(keys, width, rows, ds_left, {scratch.q_rows, width}, {dk_sum + row * width, width},
                      Write::Accumulate);
      tile_product<A>(head_dim, kTile, keys, k_turned, {scratch.ds, kTile}, {scratch.dq_columns, kTile},
                      Write::Accumulate);
    }
    A factor[kTile];
    std::fill_n(factor, kTile, static_cast<A>(problem.scale));
    unpack_columns(scratch.dq_columns, rows, head_dim, factor, dq + (head * sizes.queries + tile * kTile) * head_dim,
                   head_dim);
  }

  void load_queries(int64_t head, int64_t tile, int64_t rows, const Scratch& scratch, Queries& queries) const {
    const int64_t head_dim = sizes.head_dim;
    const int64_t width = padded(head_dim);
    const int64_t first = tile * kTile;
    const int64_t stride = sizes.out_heads * head_dim;
    const int64_t place = first * stride + (sizes.first_head + head) * head_dim;
    const T* q_tile = q + (head * sizes.queries + first) * head_dim;
    const T* out_tile = out + place;
    const T* dout_tile = dout + place;
    pack_columns(q_tile, head_dim, rows, head_dim, static_cast<A>(problem.scale * std::numbers::log2e),
                 scratch.q_columns);
    pack_columns(dout_tile, stride, rows, head_dim, A{1}, scratch.do_columns);
    std::fill_n(queries.lse, kTile, std::numeric_limits<A>::infinity());
    std::fill_n(queries.delta, kTile, A{0});
    const A scale = static_cast<A>(problem.scale);
    A* out_row = scratch.p;
    for (int64_t i = 0; i < rows; ++i) {
      A* q_row = scratch.q_rows + i * width;
      A* do_row = scratch.do_rows + i * width;
      for (int64_t d = 0; d < head_dim; ++d) {
        q_row[d] = scale * static_cast<A>(q_tile[i * head_dim + d]);
        do_row[d] = static_cast<A>(dout_tile[i * stride + d]);
        out_row[d] = static_cast<A>(out_tile[i * stride + d]);
      }
      for (int64_t d = head_dim; d < width; ++d) q_row[d] = do_row[d] = out_row[d] = A{0};
      Vector delta{};
      for (int64_t d = 0; d < width; d += S::kLanes) delta += S::load(do_row + d) * S::load(out_row + d);
      queries.delta[i] = sum_lanes<A>(delta);
      const A x = lse[head * sizes.queries + first + i];
      if (x != -std::numeric_limits<A>::infinity()) queries.lse[i] = x * std::numbers::log2e_v<A>;
    }
  }

  // p: scores -> probabilities; ds: dP -> P * (dP - delta).
  template <bool kFull>
  static void score_gradients(const Visibility<A>& visibility, int64_t key, int64_t keys, const Queries& queries,
                              const Scratch& scratch) {
    for (int64_t lane = 0; lane < kTile; lane += S::kLanes) {
      const Vector log_sum = S::load(queries.lse + lane);
      const Vector delta = S::load(queries.delta + lane);
      for (int64_t j = 0; j < keys; ++j) {
        A* p = scratch.p + j * kTile + lane;
        A* ds = scratch.ds + j * kTile + lane;
        Vector probability = exp2(S::load(p) - log_sum);
        if constexpr (!kFull) probability = visibility.select(key + j, lane, probability, Vector{});
        S::store(p, probability);
        S::store(ds, probability * (S::load(ds) - delta));
      }
    }
  }
};

template <class T>
void backward(Context& context, const AttentionProblem& problem, const AttentionSizes& sizes, const ConstTensor& q,
              const ConstTensor& k, const ConstTensor& v, const ConstTensor& out, const ConstTensor& lse,
              const ConstTensor& dout, const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  using A = Acc<T>;
  const ArenaScope scope(context.workspace());
  const int64_t elements = scratch_elements<T>(sizes.head_dim);
  const Tensor scratch = context.workspace().take({context.threads(), elements}, dtype_of<A>());
  const Tensor memory = context.workspace().take({TileGroups::elements(sizes)}, DType::I32);
  Tensor dk_sum = dk;
  Tensor dv_sum = dv;
  if (!sums_in_place<T>(sizes.head_dim)) {
    const Shape shape = {sizes.kv_heads, sizes.keys, padded(sizes.head_dim)};
    dk_sum = context.workspace().take(shape, dtype_of<A>());
    dv_sum = context.workspace().take(shape, dtype_of<A>());
  }
  const TileGroups groups(problem.tiles, sizes, memory.span<int32_t>());
  const Backward<T> body{problem,     groups,       sizes,      q.as<T>(),  k.as<T>(),  v.as<T>(),      out.as<T>(),
                         lse.as<A>(), dout.as<T>(), dq.as<T>(), dk.as<T>(), dv.as<T>(), dk_sum.as<A>(), dv_sum.as<A>()};
  parallel_tasks(context, groups.size() * sizes.kv_heads, [&](int64_t task, int worker) {
    body.run(groups.order()[task / sizes.kv_heads], task % sizes.kv_heads, scratch.as<A>() + worker * elements);
  });
}

}  // namespace

void cpu::attention_backward(Context& context, const AttentionProblem& problem, const ConstTensor& q,
                             const ConstTensor& k, const ConstTensor& v, const ConstTensor& out, const ConstTensor& lse,
                             const ConstTensor& dout, const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  const AttentionSizes sizes = attention_sizes(problem, q, k, out);
  dispatch_float(q.dtype(), [&](auto type) {
    backward<decltype(type)>(context, problem, sizes, q, k, v, out, lse, dout, dq, dk, dv);
  });
}

int64_t attention_backward_workspace(int threads, const AttentionSizes& sizes) {
  const DType accumulation = accumulation_dtype(sizes.compute);
  return dispatch_float(sizes.compute, [&](auto type) {
    using T = decltype(type);
    const Shape sum = {sizes.kv_heads, sizes.keys, padded(sizes.head_dim)};
    return Arena::bytes({threads, scratch_elements<T>(sizes.head_dim)}, accumulation) +
           Arena::bytes({TileGroups::elements(sizes)}, DType::I32) +
           (sums_in_place<T>(sizes.head_dim) ? 0 : 2 * Arena::bytes(sum, accumulation));
  });
}

}  // namespace tessera
