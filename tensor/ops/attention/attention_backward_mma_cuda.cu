// Attention backward on tensor cores, in two kernels without atomics, so that every sum has a fixed order: one owns
// query tiles and adds up dq, the other owns key tiles and adds up dk and dv. Each computes the scores anew: seven
// products where one kernel with atomic additions would need five.
//
// With s the scaled scores: P = exp(s - lse), dP = dO V^T, dS = P (dP - delta), and
//   dq = scale * dS K,   dk = scale * dS^T Q,   dv = P^T dO.
// P and dS are rounded to BF16 for their products.
#include <limits>

#include "tensor/ops/attention/attention_mma.h"

namespace tessera {
namespace {

using namespace cuda;

struct Operands {
  const bf16 *q, *k, *v, *dout;
  const float *lse, *delta;
  bf16 *dq, *dk, *dv;
};

constexpr int kQueryThreads = 128;
template <int D>
constexpr bool kSplitsColumns = D > 128;
template <int D>
constexpr int kGroups = kSplitsColumns<D> ? 2 : 1;  // warps that share 16 rows, each with half of the columns
template <int D>
constexpr int kKeyThreads = 128 * kGroups<D>;
constexpr int kWeightStride = kTile + 8;  // of P^T and dS^T, [64 keys, 64 queries], where warps exchange them
constexpr int kWeightTile = kTile * kWeightStride;
template <int D>
constexpr int kWeightElements = kSplitsColumns<D> ? kWeightTile : 0;

template <int D>
constexpr int64_t kQueryShared = int64_t{kTileBytes<D>} * (2 + 2 * kStages<D>);
template <int D>
constexpr int64_t kKeyShared =
    int64_t{kQueryShared<D>} + 2 * 2 * int{kWeightElements<D>} + 4 * kTile * 2 * int{kStages<D>};

// lse in powers of two; infinity for a query that saw nothing, whose probabilities are then 0.
__device__ __forceinline__ float log2_sum(float lse) {
  return lse == -std::numeric_limits<float>::infinity() ? -lse : lse * std::numbers::log2e_v<float>;
}

template <int D>
__global__ void __launch_bounds__(kQueryThreads) dq_kernel(AttentionInput in, Operands o) {
  bf16* q_tile = shared_memory<bf16>();
  bf16* do_tile = q_tile + kTileElements<D>;
  bf16* k_tiles = do_tile + kTileElements<D>;
  bf16* v_tiles = k_tiles + kStages<D> * kTileElements<D>;
  const int tile = in.query_tiles - 1 - static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y), kv_head = head / (in.q_heads / in.kv_heads);
  const int row = static_cast<int>(threadIdx.x / 32) * 16;
  const int64_t first = int64_t{tile} * kTile, left = in.queries - first;
  const int rows = static_cast<int>(left < kTile ? left : kTile);
  const int64_t stride = in.out_stride;
  const float scale = static_cast<float>(in.scale * std::numbers::log2e);

  const auto load_pair = [&](int pair, int stage) {
    const int64_t key = int64_t{in.key_tile[pair]} * kTile, at = (kv_head * in.keys + key) * in.head_dim;
    const int keys = static_cast<int>(in.keys - key < kTile ? in.keys - key : kTile);
    load_tile<D, kQueryThreads>(k_tiles + stage * kTileElements<D>, o.k + at, in.head_dim, keys, in.head_dim);
    load_tile<D, kQueryThreads>(v_tiles + stage * kTileElements<D>, o.v + at, in.head_dim, keys, in.head_dim);
  };
  const int begin = in.offset[tile], end = in.offset[tile + 1];
  load_tile<D, kQueryThreads>(q_tile, o.q + (head * in.queries + first) * in.head_dim, in.head_dim, rows, in.head_dim);
  load_tile<D, kQueryThreads>(do_tile, o.dout + first * stride + head * in.head_dim, stride, rows, in.head_dim);
  if (kStages<D> == 2 && begin < end) load_pair(begin, 0);
  commit_copies();

  Place place[2];
  float log_sum[2], delta[2];
  for (int i = 0; i < 2; ++i) {
    const int64_t query = first + row + fragment_row(2 * i);
    place[i] = query_place(in, query);
    const bool here = query < in.queries;
    log_sum[i] = here ? log2_sum(o.lse[head * in.queries + query]) : std::numeric_limits<float>::infinity();
    delta[i] = here ? o.delta[head * in.queries + query] : 0;
  }
  float sums[1][D / 8][4] = {};
  for (int pair = begin; pair < end; ++pair) {
    const int stage = kStages<D> == 2 ? (pair - begin) % 2 : 0;
    if constexpr (kStages<D> == 2) {
      if (pair + 1 < end) load_pair(pair + 1, 1 - stage);
      commit_copies();
      wait_copies<1>();
    } else {
      load_pair(pair, 0);
      commit_copies();
      wait_copies<0>();
    }
    __syncthreads();
    const bf16* k_tile = k_tiles + stage * kTileElements<D>;
    float scores[1][kTile / 8][4] = {}, gradients[1][kTile / 8][4] = {};
    multiply_rows<D>(scores, q_tile, row, k_tile, 0);
    multiply_rows<D>(gradients, do_tile, row, v_tiles + stage * kTileElements<D>, 0);
    const int64_t key = int64_t{in.key_tile[pair]} * kTile;
    const bool masked = in.full[pair] == 0 || in.keys - key < kTile;
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      for (int c = 0; c < 2; ++c) {
        Place seen{};
        if (masked) seen = key_place(in, key + 8 * n + fragment_column(c));
        for (int i = 0; i < 2; ++i) {
          const float p = power_of_two(scores[0][n][c + 2 * i] * scale - log_sum[i]);
          const float ds = p * (gradients[0][n][c + 2 * i] - delta[i]);
          gradients[0][n][c + 2 * i] = !masked || visible(in, place[i], seen) ? ds : 0;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kTile / 16; ++j) {
      uint32_t a[1][4];
      as_left(a[0], gradients[0][2 * j], gradients[0][2 * j + 1]);
      multiply_into<D>(sums, a, k_tile, 16 * j, 0);
    }
    __syncthreads();
  }
  wait_copies<0>();
  __syncthreads();
  const float factor[2] = {static_cast<float>(in.scale), static_cast<float>(in.scale)};
  store_rows<D>(sums[0], factor, q_tile + row * kRowElements<D>, o.dq + (head * in.queries + first + row) * in.head_dim,
                in.head_dim, 0, left - row, in.head_dim);
}

// Fragments here are of keys (rows) by queries (columns). Query tiles in ascending order, and for each the heads of the
// group.
template <int D>
__global__ void __launch_bounds__(kKeyThreads<D>) dkv_kernel(AttentionInput in, Operands o) {
  constexpr int kQueries = kTile / kGroups<D>;  // columns of a warp's scores
  constexpr int kColumns = D / kGroups<D>;      // of a warp's sums
  bf16* k_tile = shared_memory<bf16>();
  bf16* v_tile = k_tile + kTileElements<D>;
  bf16* q_tiles = v_tile + kTileElements<D>;
  bf16* do_tiles = q_tiles + kStages<D> * kTileElements<D>;
  bf16* p_tile = do_tiles + kStages<D> * kTileElements<D>;
  bf16* ds_tile = p_tile + kWeightElements<D>;
  float* log_sums = reinterpret_cast<float*>(ds_tile + kWeightElements<D>);    // [stages, 64]
  float* deltas = log_sums + kStages<D> * kTile;                               // [stages, 64]
  PairKind* kinds = reinterpret_cast<PairKind*>(deltas + kStages<D> * kTile);  // [query tiles]
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const int row = warp % 4 * 16, group = warp / 4;
  const int key_tile = static_cast<int>(blockIdx.x), kv_head = static_cast<int>(blockIdx.y);
  const int heads = in.q_heads / in.kv_heads;
  const int64_t first = int64_t{key_tile} * kTile, left = in.keys - first;
  const int rows = static_cast<int>(left < kTile ? left : kTile);
  const int64_t stride = in.out_stride;
  const float scale = static_cast<float>(in.scale * std::numbers::log2e);

  const int64_t kv_at = (kv_head * in.keys + first) * in.head_dim;
  load_tile<D, kKeyThreads<D>>(k_tile, o.k + kv_at, in.head_dim, rows, in.head_dim);
  load_tile<D, kKeyThreads<D>>(v_tile, o.v + kv_at, in.head_dim, rows, in.head_dim);
  for (int i = thread; i < in.query_tiles; i += kKeyThreads<D>) kinds[i] = pair_kind(in, i, key_tile);
  __syncthreads();
  const auto next_tile = [&](int tile) {
    do {
      ++tile;
    } while (tile < in.query_tiles && kinds[tile] == PairKind::None);
    return tile;
  };
  const auto load_queries = [&](int tile, int head, int stage) {
    const int64_t query = int64_t{tile} * kTile;
    const int queries = static_cast<int>(in.queries - query < kTile ? in.queries - query : kTile);
    load_tile<D, kKeyThreads<D>>(q_tiles + stage * kTileElements<D>, o.q + (head * in.queries + query) * in.head_dim,
                                 in.head_dim, queries, in.head_dim);
    load_tile<D, kKeyThreads<D>>(do_tiles + stage * kTileElements<D>, o.dout + query * stride + head * in.head_dim,
                                 stride, queries, in.head_dim);
    if (thread < kTile) {
      const int64_t at = head * in.queries + query + thread;
      const bool here = thread < queries;
      log_sums[stage * kTile + thread] = here ? log2_sum(o.lse[at]) : std::numeric_limits<float>::infinity();
      deltas[stage * kTile + thread] = here ? o.delta[at] : 0;
    }
  };

  Place place[2];
  for (int i = 0; i < 2; ++i) place[i] = key_place(in, first + row + fragment_row(2 * i));
  float dk_sums[1][kColumns / 8][4] = {}, dv_sums[1][kColumns / 8][4] = {};
  int tile = next_tile(-1), member = 0, stage = 0;
  if (kStages<D> == 2 && tile < in.query_tiles) load_queries(tile, kv_head * heads, 0);
  commit_copies();
  while (tile < in.query_tiles) {
    const int following = member + 1 < heads ? tile : next_tile(tile);
    const int following_member = member + 1 < heads ? member + 1 : 0;
    if constexpr (kStages<D> == 2) {
      if (following < in.query_tiles) load_queries(following, kv_head * heads + following_member, 1 - stage);
      commit_copies();
      wait_copies<1>();
    } else {
      load_queries(tile, kv_head * heads + member, 0);
      commit_copies();
      wait_copies<0>();
    }
    __syncthreads();
    const bf16* q_tile = q_tiles + stage * kTileElements<D>;
    const bf16* do_tile = do_tiles + stage * kTileElements<D>;
    const int64_t query = int64_t{tile} * kTile;
    const bool masked = kinds[tile] != PairKind::Full;
    float scores[1][kQueries / 8][4] = {}, gradients[1][kQueries / 8][4] = {};
    multiply_rows<D>(scores, k_tile, row, q_tile, group * kQueries);
    multiply_rows<D>(gradients, v_tile, row, do_tile, group * kQueries);
    uint32_t p_pairs[kQueries / 8][2], ds_pairs[kQueries / 8][2];  // as BF16
#pragma unroll
    for (int n = 0; n < kQueries / 8; ++n) {
      for (int c = 0; c < 2; ++c) {
        const int column = group * kQueries + 8 * n + fragment_column(c);
        const float log_sum = log_sums[stage * kTile + column], delta = deltas[stage * kTile + column];
        Place seeing{};
        if (masked) seeing = query_place(in, query + column);
        for (int i = 0; i < 2; ++i) {
          const bool seen = !masked || visible(in, seeing, place[i]);
          // Chosen after it is computed: a choice before would be a branch for each element.
          const float p = power_of_two(scores[0][n][c + 2 * i] * scale - log_sum);
          const float ds = p * (gradients[0][n][c + 2 * i] - delta);
          scores[0][n][c + 2 * i] = seen ? p : 0;
          gradients[0][n][c + 2 * i] = seen ? ds : 0;
        }
      }
      for (int i = 0; i < 2; ++i) {
        p_pairs[n][i] = pack_bf16(scores[0][n][2 * i], scores[0][n][2 * i + 1]);
        ds_pairs[n][i] = pack_bf16(gradients[0][n][2 * i], gradients[0][n][2 * i + 1]);
      }
    }
    if constexpr (kSplitsColumns<D>) {
      // Through shared memory, since warps of one row share its columns differently from here on.
      const int at = (row + fragment_row(0)) * kWeightStride + group * kQueries + fragment_column(0);
#pragma unroll
      for (int n = 0; n < kQueries / 8; ++n) {
        for (int i = 0; i < 2; ++i) {
          const int pair = at + 8 * n + i * 8 * kWeightStride;
          *reinterpret_cast<uint32_t*>(p_tile + pair) = p_pairs[n][i];
          *reinterpret_cast<uint32_t*>(ds_tile + pair) = ds_pairs[n][i];
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < kTile / 16; ++j) {
      uint32_t p[1][4], ds[1][4];
      if constexpr (kSplitsColumns<D>) {
        load_left<kWeightStride>(p[0], p_tile, row, 16 * j);
        load_left<kWeightStride>(ds[0], ds_tile, row, 16 * j);
      } else {
        // Two neighbouring fragments of sums are a left operand (as_left).
        for (int i = 0; i < 4; ++i) {
          p[0][i] = p_pairs[2 * j + i / 2][i % 2];
          ds[0][i] = ds_pairs[2 * j + i / 2][i % 2];
        }
      }
      multiply_into<D>(dv_sums, p, do_tile, 16 * j, group * kColumns);
      multiply_into<D>(dk_sums, ds, q_tile, 16 * j, group * kColumns);
    }
    __syncthreads();
    tile = following;
    member = following_member;
    stage = kStages<D> == 2 ? 1 - stage : 0;
  }
  wait_copies<0>();
  __syncthreads();
  const float one[2] = {1, 1}, factor[2] = {static_cast<float>(in.scale), static_cast<float>(in.scale)};
  const int64_t at = kv_at + int64_t{row} * in.head_dim;
  store_rows<D>(dk_sums[0], factor, k_tile + row * kRowElements<D>, o.dk + at, in.head_dim, group * kColumns,
                left - row, in.head_dim);
  store_rows<D>(dv_sums[0], one, v_tile + row * kRowElements<D>, o.dv + at, in.head_dim, group * kColumns, left - row,
                in.head_dim);
}

}  // namespace

int64_t cuda::attention_mma_shared_bytes(int64_t head_dim) {
  int64_t bytes = 0;
  // The forward kernel and that of dq need fewer tiles.
  with_head_size(head_dim, [&](auto head_size) { bytes = kKeyShared<decltype(head_size)::value>; });
  return bytes;
}

void cuda::attention_backward_mma(const Context& context, const AttentionInput& in, const AttentionTensors& t) {
  const Operands o{.q = t.q.as<bf16>(),
                   .k = t.k.as<bf16>(),
                   .v = t.v.as<bf16>(),
                   .dout = t.dout.as<bf16>(),
                   .lse = t.lse.as<float>(),
                   .delta = t.delta.as<float>(),
                   .dq = t.dq.as<bf16>(),
                   .dk = t.dk.as<bf16>(),
                   .dv = t.dv.as<bf16>()};
  with_head_size(in.head_dim, [&](auto head_size) {
    constexpr int D = decltype(head_size)::value;
    if (in.queries > 0) {
      launch(context, "attention_backward: dq", &dq_kernel<D>,
             dim3(static_cast<unsigned int>(in.query_tiles), static_cast<unsigned int>(in.q_heads)), kQueryThreads,
             kQueryShared<D>, in, o);
    }
    if (in.keys > 0) {
      launch(context, "attention_backward: dk and dv", &dkv_kernel<D>,
             dim3(static_cast<unsigned int>(in.key_tiles), static_cast<unsigned int>(in.kv_heads)), kKeyThreads<D>,
             kKeyShared<D> + in.query_tiles, in, o);
    }
  });
}

}  // namespace tessera
