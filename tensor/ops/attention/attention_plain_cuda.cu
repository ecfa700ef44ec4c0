// Attention for any dtype and head size. A block does one query (or, for dk and dv, one key): its threads take the 64
// tokens of the other side's tile for scores, then the elements of the head for sums. Nothing is kept in registers that
// depends on the head size, and all sums have a fixed order.
#include <cmath>
#include <limits>

#include "tensor/kernels/block_sum.h"
#include "tensor/ops/attention/attention_cuda.h"

namespace tessera {
namespace {

using namespace cuda;

constexpr int kThreads = static_cast<int>(kAttentionTile);

template <class T>
__device__ __forceinline__ Acc<T> dot(const T* a, const Acc<T>* b, int32_t n) {
  Acc<T> sum = Acc<T>(0);
  for (int32_t d = 0; d < n; ++d) sum += static_cast<Acc<T>>(a[d]) * b[d];
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(AttentionInput in, Acc<T> scale, const T* q, const T* k, const T* v, T* out, Acc<T>* lse) {
  using A = Acc<T>;
  constexpr A kInfinity = std::numeric_limits<A>::infinity();
  A* query = shared_memory<A>();  // [head_dim]
  A* sum = query + in.head_dim;   // [head_dim], not yet divided
  A* weight = sum + in.head_dim;  // [64]
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t i = blockIdx.x;
  const int32_t head = static_cast<int32_t>(blockIdx.y), kv_head = head / (in.q_heads / in.kv_heads);
  const Place place = query_place(in, i);
  for (int32_t d = thread; d < in.head_dim; d += kThreads) {
    query[d] = static_cast<A>(q[(head * in.queries + i) * in.head_dim + d]);
    sum[d] = A(0);
  }
  __syncthreads();
  A most = -kInfinity, total = A(0);
  const int32_t tile = static_cast<int32_t>(i / kAttentionTile);
  for (int32_t pair = in.offset[tile]; pair < in.offset[tile + 1]; ++pair) {
    const int64_t first = in.key_tile[pair] * kAttentionTile, j = first + thread;
    A score = -kInfinity;
    if (visible(in, place, key_place(in, j))) {
      score = scale * dot(k + (kv_head * in.keys + j) * in.head_dim, query, in.head_dim);
    }
    const A before = most;
    most = larger(block_max(score), most);
    const A shift = most == -kInfinity ? A(0) : most;
    A exponential[1] = {std::exp(score - shift)};
    weight[thread] = exponential[0];
    block_sums(exponential);  // its barriers also show `weight` to all
    const A rescale = std::exp(before - shift);
    total = total * rescale + exponential[0];
    const int tokens = static_cast<int>(in.keys - first < kAttentionTile ? in.keys - first : kAttentionTile);
    for (int32_t d = thread; d < in.head_dim; d += kThreads) {
      A value = sum[d] * rescale;
      for (int n = 0; n < tokens; ++n) {
        // A key that is not seen may hold anything.
        if (weight[n] != A(0))
          value += weight[n] * static_cast<A>(v[(kv_head * in.keys + first + n) * in.head_dim + d]);
      }
      sum[d] = value;
    }
    __syncthreads();
  }
  for (int32_t d = thread; d < in.head_dim; d += kThreads) {
    out[i * in.out_stride + head * in.head_dim + d] = rounded<T>(total == A(0) ? A(0) : sum[d] / total);
  }
  if (thread == 0) lse[head * in.queries + i] = total == A(0) ? -kInfinity : most + std::log(total);
}

template <class T>
struct Backward {
  AttentionInput in;
  Acc<T> scale;
  const T *q, *k, *v, *dout;
  const Acc<T>*lse, *delta;
  T *dq, *dk, *dv;
};

// Probability of a visible key, and the gradient of its score.
template <class A>
struct Gradient {
  A probability, score;
};
template <class A>
__device__ __forceinline__ Gradient<A> gradient(A score, A lse, A dprobability, A delta) {
  // -infinity: the query saw nothing when lse was made.
  const A p = lse == -std::numeric_limits<A>::infinity() ? A(0) : std::exp(score - lse);
  return {p, p * (dprobability - delta)};
}

template <class T>
__global__ void __launch_bounds__(kThreads) dq_kernel(Backward<T> b) {
  using A = Acc<T>;
  const AttentionInput& in = b.in;
  A* query = shared_memory<A>();  // [head_dim]
  A* dout = query + in.head_dim;  // [head_dim]
  A* sum = dout + in.head_dim;    // [head_dim]
  A* weight = sum + in.head_dim;  // [64]
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t i = blockIdx.x;
  const int32_t head = static_cast<int32_t>(blockIdx.y), kv_head = head / (in.q_heads / in.kv_heads);
  const Place place = query_place(in, i);
  for (int32_t d = thread; d < in.head_dim; d += kThreads) {
    query[d] = static_cast<A>(b.q[(head * in.queries + i) * in.head_dim + d]);
    dout[d] = static_cast<A>(b.dout[i * in.out_stride + head * in.head_dim + d]);
    sum[d] = A(0);
  }
  __syncthreads();
  const A lse = b.lse[head * in.queries + i], delta = b.delta[head * in.queries + i];
  const int32_t tile = static_cast<int32_t>(i / kAttentionTile);
  for (int32_t pair = in.offset[tile]; pair < in.offset[tile + 1]; ++pair) {
    const int64_t first = in.key_tile[pair] * kAttentionTile, j = first + thread;
    A ds = A(0);
    const bool seen = visible(in, place, key_place(in, j));
    if (seen) {
      const int64_t row = (kv_head * in.keys + j) * in.head_dim;
      ds = gradient(b.scale * dot(b.k + row, query, in.head_dim), lse, dot(b.v + row, dout, in.head_dim), delta).score;
    }
    weight[thread] = ds;
    __syncthreads();
    const int tokens = static_cast<int>(in.keys - first < kAttentionTile ? in.keys - first : kAttentionTile);
    for (int32_t d = thread; d < in.head_dim; d += kThreads) {
      A value = sum[d];
      for (int n = 0; n < tokens; ++n) {
        value += weight[n] * static_cast<A>(b.k[(kv_head * in.keys + first + n) * in.head_dim + d]);
      }
      sum[d] = value;
    }
    __syncthreads();
  }
  for (int32_t d = thread; d < in.head_dim; d += kThreads) {
    b.dq[(head * in.queries + i) * in.head_dim + d] = rounded<T>(b.scale * sum[d]);
  }
}

// Query tiles in ascending order, and for each the heads of the group.
template <class T>
__global__ void __launch_bounds__(kThreads) dkv_kernel(Backward<T> b) {
  using A = Acc<T>;
  const AttentionInput& in = b.in;
  A* key = shared_memory<A>();        // [head_dim]
  A* value = key + in.head_dim;       // [head_dim]
  A* dk = value + in.head_dim;        // [head_dim]
  A* dv = dk + in.head_dim;           // [head_dim]
  A* probability = dv + in.head_dim;  // [64]
  A* ds = probability + kThreads;     // [64]
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t j = blockIdx.x;
  const int32_t kv_head = static_cast<int32_t>(blockIdx.y), group = in.q_heads / in.kv_heads;
  const Place place = key_place(in, j);
  const int64_t row = (kv_head * in.keys + j) * in.head_dim;
  for (int32_t d = thread; d < in.head_dim; d += kThreads) {
    key[d] = static_cast<A>(b.k[row + d]);
    value[d] = static_cast<A>(b.v[row + d]);
    dk[d] = dv[d] = A(0);
  }
  __syncthreads();
  for (int32_t tile = 0; tile < in.query_tiles; ++tile) {
    if (pair_kind(in, tile, static_cast<int32_t>(j / kAttentionTile)) == PairKind::None) continue;
    const int64_t first = tile * kAttentionTile, i = first + thread;
    const int tokens = static_cast<int>(in.queries - first < kAttentionTile ? in.queries - first : kAttentionTile);
    const bool seen = visible(in, query_place(in, i), place);
    for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      Gradient<A> g{A(0), A(0)};
      if (seen) {
        const int64_t at = head * in.queries + i;
        g = gradient(b.scale * dot(b.q + at * in.head_dim, key, in.head_dim), b.lse[at],
                     dot(b.dout + i * in.out_stride + head * in.head_dim, value, in.head_dim), b.delta[at]);
      }
      probability[thread] = g.probability;
      ds[thread] = g.score;
      __syncthreads();
      for (int32_t d = thread; d < in.head_dim; d += kThreads) {
        A dk_sum = dk[d], dv_sum = dv[d];
        for (int n = 0; n < tokens; ++n) {
          const int64_t at = first + n;
          dk_sum += ds[n] * static_cast<A>(b.q[(head * in.queries + at) * in.head_dim + d]);
          dv_sum += probability[n] * static_cast<A>(b.dout[at * in.out_stride + head * in.head_dim + d]);
        }
        dk[d] = dk_sum;
        dv[d] = dv_sum;
      }
      __syncthreads();
    }
  }
  for (int32_t d = thread; d < in.head_dim; d += kThreads) {
    b.dk[row + d] = rounded<T>(b.scale * dk[d]);
    b.dv[row + d] = rounded<T>(dv[d]);
  }
}

}  // namespace

void cuda::attention_plain(const Context& context, const AttentionInput& in, const ConstTensor& q, const ConstTensor& k,
                           const ConstTensor& v, const Tensor& out, const Tensor& lse) {
  dispatch_float(q.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const int64_t shared = (2 * int64_t{in.head_dim} + kThreads) * static_cast<int64_t>(sizeof(A));
    launch(context, "attention (plain)", &forward_kernel<T>,
           dim3(static_cast<unsigned int>(in.queries), static_cast<unsigned int>(in.q_heads)), kThreads, shared, in,
           static_cast<A>(in.scale), q.as<T>(), k.as<T>(), v.as<T>(), out.as<T>(), lse.as<A>());
  });
}

void cuda::attention_backward_plain(const Context& context, const AttentionInput& in, const AttentionTensors& t) {
  dispatch_float(t.q.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const Backward<T> b{.in = in,
                        .scale = static_cast<A>(in.scale),
                        .q = t.q.as<T>(),
                        .k = t.k.as<T>(),
                        .v = t.v.as<T>(),
                        .dout = t.dout.as<T>(),
                        .lse = t.lse.as<A>(),
                        .delta = t.delta.as<A>(),
                        .dq = t.dq.as<T>(),
                        .dk = t.dk.as<T>(),
                        .dv = t.dv.as<T>()};
    const int64_t element = static_cast<int64_t>(sizeof(A));
    if (in.queries > 0) {
      launch(context, "attention_backward (plain): dq", &dq_kernel<T>,
             dim3(static_cast<unsigned int>(in.queries), static_cast<unsigned int>(in.q_heads)), kThreads,
             (3 * int64_t{in.head_dim} + kThreads) * element, b);
    }
    if (in.keys > 0) {
      launch(context, "attention_backward (plain): dk and dv", &dkv_kernel<T>,
             dim3(static_cast<unsigned int>(in.keys), static_cast<unsigned int>(in.kv_heads)), kThreads,
             (4 * int64_t{in.head_dim} + 2 * kThreads) * element, b);
    }
  });
}

}  // namespace tessera
