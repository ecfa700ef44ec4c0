// A block walks along one token at a time. Of the two or three passes over a token only the first reads the memory, the
// others its cache. Bytes moved an element: forward 2 times its size; backward 3 (4 with a residual gradient), and the
// partial sums of dweight and dbias twice for each block.
#include <cmath>

#include "tensor/kernels/block_sum.h"
#include "tensor/kernels/column_sums.h"
#include "tensor/kernels/elements.h"
#include "tensor/ops/norm_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

enum class Kind { Rms, Layer };

template <Kind kind, int N, class T>
__global__ void __launch_bounds__(kElementThreads)
    norm_kernel(const T* x, const T* weight, const T* bias, int64_t tokens, int64_t hidden, Acc<T> epsilon, T* y,
                Acc<T>* mean, Acc<T>* rstd) {
  using A = Acc<T>;
  const A count = static_cast<A>(hidden);
  const int64_t begin = int64_t{threadIdx.x} * N, step = int64_t{blockDim.x} * N;
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    const T* from = x + token * hidden;
    A m = A(0);
    if constexpr (kind == Kind::Layer) {
      A sum[1] = {A(0)};
      for (int64_t i = begin; i < hidden; i += step) {
        const Pack<T, N> in = load<N>(from + i);
        for (int k = 0; k < N; ++k) sum[0] += static_cast<A>(in.x[k]);
      }
      block_sums(sum);
      m = sum[0] / count;
    }
    A squares[1] = {A(0)};
    for (int64_t i = begin; i < hidden; i += step) {
      const Pack<T, N> in = load<N>(from + i);
      for (int k = 0; k < N; ++k) {
        const A centred = static_cast<A>(in.x[k]) - m;
        squares[0] += centred * centred;
      }
    }
    block_sums(squares);
    const A r = A(1) / std::sqrt(squares[0] / count + epsilon);
    if (threadIdx.x == 0) {
      rstd[token] = r;
      if constexpr (kind == Kind::Layer) mean[token] = m;
    }
    for (int64_t i = begin; i < hidden; i += step) {
      const Pack<T, N> in = load<N>(from + i), w = load<N>(weight + i);
      Pack<T, N> b{}, out;
      if constexpr (kind == Kind::Layer) b = load<N>(bias + i);
      for (int k = 0; k < N; ++k) {
        A value = (static_cast<A>(in.x[k]) - m) * r * static_cast<A>(w.x[k]);
        if constexpr (kind == Kind::Layer) value += static_cast<A>(b.x[k]);
        out.x[k] = rounded<T>(value);
      }
      store(y + token * hidden + i, out);
    }
  }
}

template <Kind kind>
constexpr int64_t kSums = kind == Kind::Layer ? 2 : 1;  // dweight, dbias

template <class T>
struct BackwardOperands {
  const T *dy, *x, *weight, *residual;  // residual may be null
  const Acc<T>*mean, *rstd;             // mean: LayerNorm only
  T* dx;                                // may be x, dy or residual: each thread reads an element before it writes it
  Acc<T>* partial;                      // [blocks, kSums, hidden]
  int64_t tokens, hidden;
};

// Where a block adds up: in shared memory, or in its row of `partial` when that is too long.
enum class Place { Shared, Memory };

// A sum over tokens of each column, N columns at a time. A thread only meets its own columns, so in shared memory they
// lie as suits it: the first 16 bytes of every pack, then the second ones, and no two threads share a bank.
template <Place place, int N, class A>
struct ColumnSums {
  static constexpr int kParts = place == Place::Shared && N * sizeof(A) > 16 ? N * sizeof(A) / 16 : 1;
  A* at;
  int64_t hidden;

  __device__ __forceinline__ Pack<A, N> read(int64_t i) const {
    Pack<A, N> result;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const Pack<A, N / kParts> own = load<N / kParts>(at + (part * hidden + i) / kParts);
      for (int k = 0; k < N / kParts; ++k) result.x[part * (N / kParts) + k] = own.x[k];
    }
    return result;
  }
  __device__ __forceinline__ void write(int64_t i, const Pack<A, N>& value) const {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      Pack<A, N / kParts> own;
      for (int k = 0; k < N / kParts; ++k) own.x[k] = value.x[part * (N / kParts) + k];
      A* to = at + (part * hidden + i) / kParts;
      if constexpr (place == Place::Shared)
        store_shared(to, own);
      else
        store(to, own);
    }
  }
};

// Formulas as in norm_cpu.cc. Block b adds up dweight and dbias of tokens b, b + gridDim.x, ... in this order; a thread
// owns its columns of the sums.
template <Kind kind, Place place, bool has_residual, int N, class T>
__global__ void __launch_bounds__(kElementThreads) norm_backward_kernel(BackwardOperands<T> o) {
  using A = Acc<T>;
  const int64_t hidden = o.hidden, begin = int64_t{threadIdx.x} * N, step = int64_t{blockDim.x} * N;
  A* out = o.partial + int64_t{blockIdx.x} * kSums<kind> * hidden;
  A* sums_at = out;
  if constexpr (place == Place::Shared) sums_at = shared_memory<A>();
  const ColumnSums<place, N, A> dweight{sums_at, hidden}, dbias{sums_at + hidden, hidden};
  for (int64_t i = begin; i < hidden; i += step) {
    dweight.write(i, Pack<A, N>{});
    if constexpr (kind == Kind::Layer) dbias.write(i, Pack<A, N>{});
  }
  for (int64_t token = blockIdx.x; token < o.tokens; token += gridDim.x) {
    const int64_t at = token * hidden;
    const A r = o.rstd[token];
    A m = A(0);
    if constexpr (kind == Kind::Layer) m = o.mean[token];
    A sums[kSums<kind>] = {};  // of g n and g
    for (int64_t i = begin; i < hidden; i += step) {
      const Pack<T, N> dy = load<N>(o.dy + at + i), x = load<N>(o.x + at + i), w = load<N>(o.weight + i);
      for (int k = 0; k < N; ++k) {
        const A g = static_cast<A>(dy.x[k]) * static_cast<A>(w.x[k]);
        sums[0] += g * ((static_cast<A>(x.x[k]) - m) * r);
        if constexpr (kind == Kind::Layer) sums[1] += g;
      }
    }
    block_sums(sums);
    const A mean_gn = sums[0] / static_cast<A>(hidden);
    A mean_g = A(0);
    if constexpr (kind == Kind::Layer) mean_g = sums[1] / static_cast<A>(hidden);
    for (int64_t i = begin; i < hidden; i += step) {
      const Pack<T, N> dy = load<N>(o.dy + at + i), x = load<N>(o.x + at + i), w = load<N>(o.weight + i);
      Pack<T, N> residual{}, result;
      if constexpr (has_residual) residual = load<N>(o.residual + at + i);
      Pack<A, N> dw = dweight.read(i), db{};
      if constexpr (kind == Kind::Layer) db = dbias.read(i);
      for (int k = 0; k < N; ++k) {
        const A gradient = static_cast<A>(dy.x[k]);
        const A n = (static_cast<A>(x.x[k]) - m) * r;
        A value = r * (gradient * static_cast<A>(w.x[k]) - mean_g - n * mean_gn);
        if constexpr (has_residual) value += static_cast<A>(residual.x[k]);
        dw.x[k] += gradient * n;
        db.x[k] += gradient;
        result.x[k] = rounded<T>(value);
      }
      dweight.write(i, dw);
      if constexpr (kind == Kind::Layer) dbias.write(i, db);
      store(o.dx + at + i, result);
    }
  }
  if constexpr (place == Place::Shared) {
    for (int64_t i = begin; i < hidden; i += step) {
      store(out + i, dweight.read(i));
      if constexpr (kind == Kind::Layer) store(out + hidden + i, dbias.read(i));
    }
  }
}

template <Kind kind>
void forward(const Context& context, const char* name, const ConstTensor& x, const ConstTensor& weight,
             const ConstTensor& bias, double epsilon, const Tensor& y, const Tensor& mean, const Tensor& rstd) {
  const int64_t tokens = x.dim(0), hidden = x.dim(1);
  if (tokens == 0) return;
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T* bias_data = kind == Kind::Layer ? bias.as<T>() : nullptr;
    A* mean_data = kind == Kind::Layer ? mean.as<A>() : nullptr;
    const bool whole = hidden % kPack<T> == 0 && aligned(x.as<T>(), weight.as<T>(), bias_data, y.as<T>());
    with_width<kPack<T>>(whole, [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch(context, name, &norm_kernel<kind, N, T>, stride_blocks(context, tokens, 1), row_threads(hidden / N), 0,
             x.as<T>(), weight.as<T>(), bias_data, tokens, hidden, static_cast<A>(epsilon), y.as<T>(), mean_data,
             rstd.as<A>());
    });
  });
}

template <Kind kind>
void backward(Context& context, const char* name, const ConstTensor& dy, const ConstTensor& x,
              const ConstTensor& weight, const ConstTensor* mean, const ConstTensor& rstd, const ConstTensor& residual,
              const Tensor& dx, const Tensor& dweight, const Tensor* dbias) {
  const int64_t tokens = x.dim(0), hidden = x.dim(1);
  if (tokens == 0) return;
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const ArenaScope scope(context.workspace());
    const int64_t most = norm_backward_partials(context.target(), hidden, x.dtype(), kSums<kind>);
    const Tensor partial = context.workspace().take({most, kSums<kind>, hidden}, dtype_of<A>());
    // A block's partial sums are worth a few tokens of memory traffic.
    const int64_t blocks = std::min({tokens, most, std::max<int64_t>(most / 4, ceil_divide(tokens, 8))});
    const int64_t shared = kSums<kind> * hidden * static_cast<int64_t>(sizeof(A));
    BackwardOperands<T> o{.dy = dy.as<T>(),
                          .x = x.as<T>(),
                          .weight = weight.as<T>(),
                          .residual = residual.empty() ? nullptr : residual.as<T>(),
                          .mean = mean ? mean->as<A>() : nullptr,
                          .rstd = rstd.as<A>(),
                          .dx = dx.as<T>(),
                          .partial = partial.as<A>(),
                          .tokens = tokens,
                          .hidden = hidden};
    // Static shared memory (block_sums) takes a little too.
    const bool in_shared = shared <= context.cuda().device().shared_memory - 4096;
    const bool whole = hidden % kPack<T> == 0 && aligned(o.dy, o.x, o.weight, o.residual, o.dx);
    const auto run = [&]<bool has_residual>() {
      with_width<kPack<T>>(whole, [&](auto width) {
        constexpr int N = decltype(width)::value;
        launch(context, name,
               in_shared ? &norm_backward_kernel<kind, Place::Shared, has_residual, N, T>
                         : &norm_backward_kernel<kind, Place::Memory, has_residual, N, T>,
               static_cast<unsigned int>(blocks), row_threads(hidden / N), in_shared ? shared : 0, o);
      });
    };
    if (residual.empty())
      run.template operator()<false>();
    else
      run.template operator()<true>();
    add_column_sums_of(context, "norm_backward: dweight", o.partial, blocks, hidden, kSums<kind> * hidden,
                       dweight.as<A>());
    if constexpr (kind == Kind::Layer) {
      add_column_sums_of(context, "norm_backward: dbias", o.partial + hidden, blocks, hidden, 2 * hidden,
                         dbias->as<A>());
    }
  });
}

}  // namespace

void cuda::rms_norm(const Context& context, const ConstTensor& x, const ConstTensor& weight, double epsilon,
                    const Tensor& y, const Tensor& rstd) {
  forward<Kind::Rms>(context, "rms_norm", x, weight, {}, epsilon, y, {}, rstd);
}

void cuda::layer_norm(const Context& context, const ConstTensor& x, const ConstTensor& weight, const ConstTensor& bias,
                      double epsilon, const Tensor& y, const Tensor& mean, const Tensor& rstd) {
  forward<Kind::Layer>(context, "layer_norm", x, weight, bias, epsilon, y, mean, rstd);
}

void cuda::rms_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
                             const ConstTensor& rstd, const ConstTensor& residual_gradient, const Tensor& dx,
                             const Tensor& dweight) {
  backward<Kind::Rms>(context, "rms_norm_backward", dy, x, weight, nullptr, rstd, residual_gradient, dx, dweight,
                      nullptr);
}

void cuda::layer_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
                               const ConstTensor& mean, const ConstTensor& rstd, const ConstTensor& residual_gradient,
                               const Tensor& dx, const Tensor& dweight, const Tensor& dbias) {
  backward<Kind::Layer>(context, "layer_norm_backward", dy, x, weight, &mean, rstd, residual_gradient, dx, dweight,
                        &dbias);
}

}  // namespace tessera
