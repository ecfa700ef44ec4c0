// Attention forward on tensor cores. A block of four warps does one head of two neighbouring query tiles (one for heads
// above 128), a warp 32 (16) rows of one of them, so that a fragment of keys or values serves two products. Key and
// value tiles stream through shared memory, the next one arriving while this one is used. Scores, probabilities and
// sums stay in registers; probabilities are rounded to BF16 for their product with the values.
//
// FLOPs: 4 * 64 * 64 * D a pair of tiles and head. Bytes from the cache: 2 * 64 * D * 2 for two pairs.
#include <limits>

#include "tensor/ops/attention/attention_mma.h"

namespace tessera {
namespace {

using namespace cuda;

constexpr int kThreads = 128;
template <int D>
constexpr int kTiles = D > 128 ? 1 : 2;  // query tiles of a block; also a warp's blocks of 16 rows
template <int D>
constexpr int64_t kSharedBytes = int64_t{kTileBytes<D>} * (kTiles<D> + 2 * kStages<D>);  // Q; K and V

// The key tiles that a block's query tiles look at, in ascending order: their lists, merged.
template <int R>
struct KeyTiles {
  const AttentionInput& in;
  int pair[R], end[R];

  __device__ KeyTiles(const AttentionInput& input, int first_tile) : in(input) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int tile = first_tile + r;
      pair[r] = tile < in.query_tiles ? in.offset[tile] : 0;
      end[r] = tile < in.query_tiles ? in.offset[tile + 1] : 0;
    }
  }
  // The next key tile, or key_tiles when there is none.
  __device__ int key_tile() const {
    int next = in.key_tiles;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (pair[r] < end[r] && in.key_tile[pair[r]] < next) next = in.key_tile[pair[r]];
    }
    return next;
  }
  // How query tile r sees key tile `key_tile`, the next one.
  __device__ PairKind kind(int r, int key_tile) const {
    if (pair[r] == end[r] || in.key_tile[pair[r]] != key_tile) return PairKind::None;
    return in.full[pair[r]] != 0 ? PairKind::Full : PairKind::Masked;
  }
  __device__ void advance(int key_tile) {
#pragma unroll
    for (int r = 0; r < R; ++r) pair[r] += pair[r] < end[r] && in.key_tile[pair[r]] == key_tile ? 1 : 0;
  }
};

// 16 rows of the online softmax. Of a lane's two rows: the largest score so far, scaled and rounded, and the lane's
// part of the sum of exponentials. What is subtracted from it is itself scaled and rounded, never a product that a
// fused multiply-add leaves exact: while the largest stays, earlier keys are then scaled by exactly one. The difference
// of the two would come again with every tile, and with an attention sink's large score they are thousands.
struct Softmax {
  static constexpr float kNone = -std::numeric_limits<float>::infinity();
  float most[2] = {kNone, kNone};
  float total[2] = {0, 0};

  // Scores become exponentials, and what was summed with earlier ones is scaled to match.
  template <int N, int M>
  __device__ __forceinline__ void take(float (&scores)[N][4], float scale, float (&sums)[M][4]) {
    float rescale[2], shift[2];
    for (int i = 0; i < 2; ++i) {
      float largest = kNone;
#pragma unroll
      for (int n = 0; n < N; ++n) largest = fmaxf(largest, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
      largest = fmaxf(largest, shuffle_xor(largest, 1));
      largest = fmaxf(largest, shuffle_xor(largest, 2));
      largest = fmaxf(most[i], largest * scale);
      shift[i] = largest == kNone ? 0 : largest;
      rescale[i] = power_of_two(most[i] - shift[i]);
      most[i] = largest;
      total[i] *= rescale[i];
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
      for (int i = 0; i < 4; ++i) {
        scores[n][i] = power_of_two(scores[n][i] * scale - shift[i / 2]);
        total[i / 2] += scores[n][i];
      }
    }
#pragma unroll
    for (int n = 0; n < M; ++n) {
      for (int i = 0; i < 4; ++i) sums[n][i] *= rescale[i / 2];
    }
  }
};

template <int D>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(AttentionInput in, const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr int R = kTiles<D>;
  bf16* q_tiles = shared_memory<bf16>();
  bf16* k_tiles = q_tiles + R * kTileElements<D>;
  bf16* v_tiles = k_tiles + kStages<D> * kTileElements<D>;
  // The last tiles have most keys when attention is causal: they start first.
  const int first_tile = (static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x)) * R;
  const int head = static_cast<int>(blockIdx.y), kv_head = head / (in.q_heads / in.kv_heads);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int part = warp * R / 4;            // this warp's query tile
  const int row = warp % (4 / R) * 16 * R;  // and its first row there
  const int64_t first = int64_t{first_tile + part} * kTile;
  bf16* q_tile = q_tiles + part * kTileElements<D>;
  const bf16* k_head = k + kv_head * in.keys * in.head_dim;
  const bf16* v_head = v + kv_head * in.keys * in.head_dim;
  const float scale = static_cast<float>(in.scale * std::numbers::log2e);  // for powers of two

  const auto load_keys = [&](int key_tile, int stage) {
    const int64_t key = int64_t{key_tile} * kTile;
    const int keys = static_cast<int>(in.keys - key < kTile ? in.keys - key : kTile);
    load_tile<D, kThreads>(k_tiles + stage * kTileElements<D>, k_head + key * in.head_dim, in.head_dim, keys,
                           in.head_dim);
    load_tile<D, kThreads>(v_tiles + stage * kTileElements<D>, v_head + key * in.head_dim, in.head_dim, keys,
                           in.head_dim);
  };
  KeyTiles<R> list(in, first_tile);
  int key_tile = list.key_tile(), stage = 0;
  for (int r = 0; r < R; ++r) {
    const int64_t at = int64_t{first_tile + r} * kTile;
    const int64_t rows = in.queries - at < kTile ? in.queries - at : kTile;  // none of a tile past the end
    load_tile<D, kThreads>(q_tiles + r * kTileElements<D>, rows > 0 ? q + (head * in.queries + at) * in.head_dim : q,
                           in.head_dim, static_cast<int>(rows), in.head_dim);
  }
  if (kStages<D> == 2 && key_tile < in.key_tiles) load_keys(key_tile, 0);
  commit_copies();

  Place place[R][2];
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int i = 0; i < 2; ++i) place[r][i] = query_place(in, first + row + 16 * r + fragment_row(2 * i));
  }
  Softmax softmax[R];
  float sums[R][D / 8][4] = {};
  while (key_tile < in.key_tiles) {
    PairKind kind = PairKind::None;
#pragma unroll
    for (int r = 0; r < R; ++r) {  // with constant indices, so that the lists stay in registers
      if (r == part) kind = list.kind(r, key_tile);
    }
    list.advance(key_tile);
    const int following = list.key_tile();
    if constexpr (kStages<D> == 2) {
      if (following < in.key_tiles) load_keys(following, 1 - stage);
      commit_copies();
      wait_copies<1>();
    } else {
      load_keys(key_tile, 0);
      commit_copies();
      wait_copies<0>();
    }
    __syncthreads();
    if (kind != PairKind::None) {  // the same for all lanes of a warp
      float scores[R][kTile / 8][4] = {};
      multiply_rows<D>(scores, q_tile, row, k_tiles + stage * kTileElements<D>, 0);
      const int64_t key = int64_t{key_tile} * kTile;
      if (kind == PairKind::Masked || in.keys - key < kTile) {
#pragma unroll
        for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            const Place seen = key_place(in, key + 8 * n + fragment_column(c));
#pragma unroll
            for (int r = 0; r < R; ++r) {
              if (!visible(in, place[r][0], seen)) scores[r][n][c] = -kInfinity;
              if (!visible(in, place[r][1], seen)) scores[r][n][c + 2] = -kInfinity;
            }
          }
        }
      }
#pragma unroll
      for (int r = 0; r < R; ++r) softmax[r].take(scores[r], scale, sums[r]);
#pragma unroll
      for (int j = 0; j < kTile / 16; ++j) {
        uint32_t a[R][4];
#pragma unroll
        for (int r = 0; r < R; ++r) as_left(a[r], scores[r][2 * j], scores[r][2 * j + 1]);
        multiply_into<D>(sums, a, v_tiles + stage * kTileElements<D>, 16 * j, 0);
      }
    }
    __syncthreads();  // this stage may be written again
    key_tile = following;
    stage = kStages<D> == 2 ? 1 - stage : 0;
  }
  wait_copies<0>();
  __syncthreads();  // Q has arrived, also when there was no key tile: its tile is scratch from here

  const int64_t stride = in.out_stride;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    float factor[2];
    for (int i = 0; i < 2; ++i) {
      float total = softmax[r].total[i];
      total += shuffle_xor(total, 1);
      total += shuffle_xor(total, 2);
      factor[i] = total == 0 ? 0 : 1 / total;
      const int64_t at = first + row + 16 * r + fragment_row(2 * i);
      if (threadIdx.x % 4 == 0 && at < in.queries) {
        lse[head * in.queries + at] =
            total == 0 ? -kInfinity : (softmax[r].most[i] + log2f(total)) * std::numbers::ln2_v<float>;
      }
    }
    const int64_t at = first + row + 16 * r;
    store_rows<D>(sums[r], factor, q_tile + (row + 16 * r) * kRowElements<D>, out + at * stride + head * in.head_dim,
                  stride, 0, in.queries - at, in.head_dim);
  }
}

}  // namespace

void cuda::attention_mma(const Context& context, const AttentionInput& in, const ConstTensor& q, const ConstTensor& k,
                         const ConstTensor& v, const Tensor& out, const Tensor& lse) {
  with_head_size(in.head_dim, [&](auto head_size) {
    constexpr int D = decltype(head_size)::value;
    launch(
        context, "attention", &forward_kernel<D>,
        dim3(static_cast<unsigned int>(ceil_divide(in.query_tiles, kTiles<D>)), static_cast<unsigned int>(in.q_heads)),
        kThreads, kSharedBytes<D>, in, q.as<bf16>(), k.as<bf16>(), v.as<bf16>(), out.as<bf16>(), lse.as<float>());
  });
}

}  // namespace tessera
