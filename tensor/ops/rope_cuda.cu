// A block moves one token at a time between its fused row and the heads. Bytes moved an element: 2 times its size; the
// table's row of the token is read once from memory and then from the cache by each head.
#include <cmath>

#include "tensor/kernels/elements.h"
#include "tensor/ops/rope_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

enum class Direction { Forward, Backward };  // rotation by the angle, or by minus the angle

template <class T>
struct Heads {
  T *fused, *q, *k, *v;  // the side that is read is const on the outside
  const Acc<T>* table;   // head_dim/2 cosines, then sines, of each token
  int64_t tokens, head_dim;
  int kv_heads, q_per_kv;

  // Where row `slot` of the fused projection lies in q, k or v.
  __device__ T* head_row(int slot, int64_t token) const {
    const int group = slot / (q_per_kv + 2), member = slot % (q_per_kv + 2);
    T* head = member < q_per_kv    ? q + (int64_t{group} * q_per_kv + member) * tokens * head_dim
              : member == q_per_kv ? k + group * tokens * head_dim
                                   : v + group * tokens * head_dim;
    return head + token * head_dim;
  }
};

// Rotates pairs (i, head_dim/2 + i), N at a time, of queries and keys, and copies values.
template <Direction direction, int N, class T>
__global__ void __launch_bounds__(kElementThreads) rotate_heads_kernel(Heads<T> heads) {
  using A = Acc<T>;
  const int64_t half = heads.head_dim / 2;
  const int packs = static_cast<int>(half / N), slots = heads.kv_heads * (heads.q_per_kv + 2);
  for (int64_t token = blockIdx.x; token < heads.tokens; token += gridDim.x) {
    const A* cosines = heads.table + token * heads.head_dim;
    for (int work = static_cast<int>(threadIdx.x); work < slots * packs; work += static_cast<int>(blockDim.x)) {
      const int slot = work / packs;
      const int64_t i = int64_t{work % packs} * N;
      T* wide = heads.fused + (token * slots + slot) * heads.head_dim + i;
      T* narrow = heads.head_row(slot, token) + i;
      const T* from = direction == Direction::Forward ? wide : narrow;
      T* to = direction == Direction::Forward ? narrow : wide;
      Pack<T, N> low = load<N>(from), high = load<N>(from + half);
      if (slot % (heads.q_per_kv + 2) <= heads.q_per_kv) {
        const Pack<A, N> cosine = load<N>(cosines + i), sine = load<N>(cosines + half + i);
        for (int n = 0; n < N; ++n) {
          const A s = direction == Direction::Forward ? sine.x[n] : -sine.x[n];
          const A x = static_cast<A>(low.x[n]), y = static_cast<A>(high.x[n]);
          low.x[n] = rounded<T>(x * cosine.x[n] - y * s);
          high.x[n] = rounded<T>(y * cosine.x[n] + x * s);
        }
      }
      store(to, low);
      store(to + half, high);
    }
  }
}

template <Direction direction, int N, class T>
__global__ void __launch_bounds__(kElementThreads) copy_heads_kernel(Heads<T> heads) {
  const int packs = static_cast<int>(heads.head_dim / N), slots = heads.kv_heads * (heads.q_per_kv + 2);
  for (int64_t token = blockIdx.x; token < heads.tokens; token += gridDim.x) {
    for (int work = static_cast<int>(threadIdx.x); work < slots * packs; work += static_cast<int>(blockDim.x)) {
      const int slot = work / packs;
      const int64_t i = int64_t{work % packs} * N;
      T* wide = heads.fused + (token * slots + slot) * heads.head_dim + i;
      T* narrow = heads.head_row(slot, token) + i;
      if constexpr (direction == Direction::Forward)
        store(narrow, load<N>(wide));
      else
        store(wide, load<N>(narrow));
    }
  }
}

template <Direction direction, class T>
void move_heads(const Context& context, const char* name, const HeadLayout& layout, const ConstTensor& table,
                Heads<T> heads) {
  if (heads.tokens == 0 || layout.width() == 0) return;
  heads.head_dim = layout.head_dim;
  heads.kv_heads = static_cast<int>(layout.kv_heads);
  heads.q_per_kv = static_cast<int>(layout.q_per_kv);
  const bool rotated = !table.empty();
  heads.table = rotated ? table.as<Acc<T>>() : nullptr;
  const int64_t run = rotated ? layout.head_dim / 2 : layout.head_dim;
  const bool whole = run % kPack<T> == 0 && aligned(heads.fused, heads.q, heads.k, heads.v, heads.table);
  with_width<kPack<T>>(whole, [&](auto width) {
    constexpr int N = decltype(width)::value;
    launch(context, name, rotated ? &rotate_heads_kernel<direction, N, T> : &copy_heads_kernel<direction, N, T>,
           stride_blocks(context, heads.tokens, 1), row_threads(layout.width() / layout.head_dim * (run / N)), 0,
           heads);
  });
}

// position and frequency as they came, angles in double, rounded once.
template <class A>
__global__ void __launch_bounds__(kElementThreads)
    rope_table_kernel(const int32_t* position, const double* frequency, int64_t tokens, int64_t half, A* table) {
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    for (int64_t i = threadIdx.x; i < half; i += blockDim.x) {
      const double angle = position[token] * frequency[i];
      table[token * 2 * half + i] = static_cast<A>(std::cos(angle));
      table[token * 2 * half + half + i] = static_cast<A>(std::sin(angle));
    }
  }
}

}  // namespace

void cuda::rope_table(const Context& context, std::span<const int32_t> position, double theta, const Tensor& table) {
  const int64_t head_dim = table.dim(1), half = head_dim / 2;
  if (table.empty()) return;
  Uploads& uploads = context.cuda().uploads();
  dispatch_float(table.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    for_chunks<int32_t>(position, [&](int64_t first, std::span<const int32_t> part) {
      const auto frequency = uploads.take<double>(half);  // again for each part: the ring comes round
      for (int64_t i = 0; i < half; ++i) {
        frequency.host[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
      }
      const double* frequencies = uploads.send(frequency);
      const int64_t tokens = static_cast<int64_t>(part.size());
      launch(context, "rope_table", &rope_table_kernel<A>, stride_blocks(context, tokens, 1), row_threads(half), 0,
             uploads.copy(part), frequencies, tokens, half, table.as<A>() + first * head_dim);
    });
  });
}

void cuda::split_heads(const Context& context, const ConstTensor& qkv, const HeadLayout& layout,
                       const ConstTensor& table, const Tensor& q, const Tensor& k, const Tensor& v) {
  dispatch_float(qkv.dtype(), [&]<class T>(T) {
    // Moving forward only reads the fused rows.
    Heads<T> heads{};
    heads.fused = const_cast<T*>(qkv.as<T>());
    heads.q = q.as<T>();
    heads.k = k.as<T>();
    heads.v = v.as<T>();
    heads.tokens = qkv.dim(0);
    move_heads<Direction::Forward>(context, "split_heads", layout, table, heads);
  });
}

void cuda::split_heads_backward(const Context& context, const ConstTensor& dq, const ConstTensor& dk,
                                const ConstTensor& dv, const HeadLayout& layout, const ConstTensor& table,
                                const Tensor& dqkv) {
  dispatch_float(dqkv.dtype(), [&]<class T>(T) {
    // Moving backward only reads the heads.
    Heads<T> heads{};
    heads.fused = dqkv.as<T>();
    heads.q = const_cast<T*>(dq.as<T>());
    heads.k = const_cast<T*>(dk.as<T>());
    heads.v = const_cast<T*>(dv.as<T>());
    heads.tokens = dqkv.dim(0);
    move_heads<Direction::Backward>(context, "split_heads_backward", layout, table, heads);
  });
}

}  // namespace tessera
