// Attention forward on tensor cores. A block of four warps does one query tile of one head, a warp 16 of its rows; key
// and value tiles stream through shared memory, the next one arriving while this one is used. Scores, probabilities and
// sums stay in registers; probabilities are rounded to BF16 for their product with the values.
//
// FLOPs: 4 * 64 * 64 * D a pair of tiles and head. Bytes from the cache: 2 * 64 * D * 2 for as much.
#include <limits>

#include "tensor/ops/attention_mma.h"

namespace tessera {
namespace {

using namespace cuda;

constexpr int kThreads = 128;

template <int D>
constexpr int64_t kSharedBytes = (1 + 2 * kStages<D>) * kTileBytes<D>;  // Q; K and V

template <int D>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(AttentionInput in, const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  bf16* q_tile = shared_memory<bf16>();
  bf16* k_tiles = q_tile + kTileElements<D>;
  bf16* v_tiles = k_tiles + kStages<D> * kTileElements<D>;
  // The last tiles have most keys when attention is causal: they start first.
  const int tile = in.query_tiles - 1 - static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y), kv_head = head / (in.q_heads / in.kv_heads);
  const int row = static_cast<int>(threadIdx.x / 32) * 16;  // of the tile: this warp's first
  const int64_t first = int64_t{tile} * kTile;
  const int64_t left = in.queries - first;
  const int rows = static_cast<int>(left < kTile ? left : kTile);
  const bf16* k_head = k + kv_head * in.keys * in.head_dim;
  const bf16* v_head = v + kv_head * in.keys * in.head_dim;
  const float scale = static_cast<float>(in.scale * std::numbers::log2e);  // for powers of two

  const auto load_pair = [&](int pair, int stage) {
    const int64_t key = int64_t{in.key_tile[pair]} * kTile;
    const int keys = static_cast<int>(in.keys - key < kTile ? in.keys - key : kTile);
    load_tile<D>(k_tiles + stage * kTileElements<D>, k_head + key * in.head_dim, in.head_dim, keys, in.head_dim);
    load_tile<D>(v_tiles + stage * kTileElements<D>, v_head + key * in.head_dim, in.head_dim, keys, in.head_dim);
  };

  const int begin = in.offset[tile], end = in.offset[tile + 1];
  load_tile<D>(q_tile, q + (head * in.queries + first) * in.head_dim, in.head_dim, rows, in.head_dim);
  if (kStages<D> == 2 && begin < end) load_pair(begin, 0);
  commit_copies();

  Place place[2];
  for (int i = 0; i < 2; ++i) place[i] = query_place(in, first + row + fragment_row(2 * i));
  float most[2] = {-kInfinity, -kInfinity};  // of the scores so far, before scaling
  float total[2] = {0, 0};                   // this lane's part of the sum of exponentials
  float sums[D / 8][4] = {};
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
    float scores[kTile / 8][4] = {};
    multiply_rows<D>(scores, q_tile, row, k_tiles + stage * kTileElements<D>, 0);
    const int64_t key = int64_t{in.key_tile[pair]} * kTile;
    if (in.full[pair] == 0 || in.keys - key < kTile) {
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
        for (int c = 0; c < 2; ++c) {
          const Place seen = key_place(in, key + 8 * n + fragment_column(c));
          if (!visible(in, place[0], seen)) scores[n][c] = -kInfinity;
          if (!visible(in, place[1], seen)) scores[n][c + 2] = -kInfinity;
        }
      }
    }
    float rescale[2], shift[2];
    for (int i = 0; i < 2; ++i) {
      float largest = most[i];
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
        largest = fmaxf(largest, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
      }
      largest = fmaxf(largest, shuffle_xor(largest, 1));
      largest = fmaxf(largest, shuffle_xor(largest, 2));
      shift[i] = largest == -kInfinity ? 0 : largest * scale;
      rescale[i] = power_of_two(most[i] * scale - shift[i]);
      most[i] = largest;
      total[i] *= rescale[i];
    }
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      for (int i = 0; i < 4; ++i) {
        scores[n][i] = power_of_two(scores[n][i] * scale - shift[i / 2]);
        total[i / 2] += scores[n][i];
      }
    }
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      for (int i = 0; i < 4; ++i) sums[n][i] *= rescale[i / 2];
    }
#pragma unroll
    for (int j = 0; j < kTile / 16; ++j) {
      uint32_t a[4];
      as_left(a, scores[2 * j], scores[2 * j + 1]);
      multiply_into<D>(sums, a, v_tiles + stage * kTileElements<D>, 16 * j, 0);
    }
    __syncthreads();  // this stage may be written again
  }
  wait_copies<0>();
  __syncthreads();  // Q has arrived, also when there was no pair: its tile is scratch from here

  float factor[2];
  for (int i = 0; i < 2; ++i) {
    total[i] += shuffle_xor(total[i], 1);
    total[i] += shuffle_xor(total[i], 2);
    factor[i] = total[i] == 0 ? 0 : 1 / total[i];
    const int64_t at = first + row + fragment_row(2 * i);
    if (threadIdx.x % 4 == 0 && at < in.queries) {
      lse[head * in.queries + at] =
          total[i] == 0 ? -kInfinity : (most[i] * scale + log2f(total[i])) * std::numbers::ln2_v<float>;
    }
  }
  const int64_t stride = int64_t{in.q_heads} * in.head_dim;
  store_rows<D>(sums, factor, q_tile + row * kRowElements<D>, out + (first + row) * stride + head * in.head_dim, stride,
                0, left - row, in.head_dim);
}

}  // namespace

void cuda::attention_mma(const Context& context, const AttentionInput& in, const ConstTensor& q, const ConstTensor& k,
                         const ConstTensor& v, const Tensor& out, const Tensor& lse) {
  with_head_size(in.head_dim, [&](auto head_size) {
    constexpr int D = decltype(head_size)::value;
    launch(context, "attention", &forward_kernel<D>,
           dim3(static_cast<unsigned int>(in.query_tiles), static_cast<unsigned int>(in.q_heads)), kThreads,
           kSharedBytes<D>, in, q.as<bf16>(), k.as<bf16>(), v.as<bf16>(), out.as<bf16>(), lse.as<float>());
  });
}

}  // namespace tessera
