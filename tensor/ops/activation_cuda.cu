// Bytes moved an element of the output: swiglu 3 times its size, its gradient 5, gelu 2, its gradient 3.
#include <cmath>
#include <numbers>
#include <type_traits>

#include "tensor/kernels/elements.h"
#include "tensor/ops/activation_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

template <class A>
__device__ __forceinline__ A sigmoid(A x) {
  return A(1) / (A(1) + std::exp(-x));
}

// N pairs; a single one lies as its elements do.
template <int N, class T>
__device__ __forceinline__ Pack<T, 2 * N> load_pairs(const T* x) {
  if constexpr (N > 1) {
    return load<2 * N>(x);
  } else {
    Pack<T, 2> pair;
    for (int i = 0; i < 2; ++i) pair.x[i] = x[i];
    return pair;
  }
}
template <int N, class T>
__device__ __forceinline__ void store_pairs(T* x, const Pack<T, 2 * N>& pairs) {
  if constexpr (N > 1) {
    store(x, pairs);
  } else {
    for (int i = 0; i < 2; ++i) x[i] = pairs.x[i];
  }
}

template <class T>
struct Swiglu {
  const T* gate_up;
  T* y;

  template <int N>
  __device__ void run(int64_t first) const {
    using A = Acc<T>;
    const Pack<T, 2 * N> pairs = load_pairs<N>(gate_up + 2 * first);
    Pack<T, N> out;
    for (int i = 0; i < N; ++i) {
      const A gate = static_cast<A>(pairs.x[2 * i]), up = static_cast<A>(pairs.x[2 * i + 1]);
      out.x[i] = rounded<T>(gate * sigmoid(gate) * up);
    }
    store(y + first, out);
  }
};

// silu'(g) = s + g s (1 - s) with s = sigmoid(g). dgate_up may be gate_up: a thread reads before it writes.
template <class T>
struct SwigluBackward {
  const T *dy, *gate_up;
  T* dgate_up;

  template <int N>
  __device__ void run(int64_t first) const {
    using A = Acc<T>;
    const Pack<T, 2 * N> pairs = load_pairs<N>(gate_up + 2 * first);
    const Pack<T, N> gradients = load<N>(dy + first);
    Pack<T, 2 * N> out;
    for (int i = 0; i < N; ++i) {
      const A gate = static_cast<A>(pairs.x[2 * i]), up = static_cast<A>(pairs.x[2 * i + 1]);
      const A gradient = static_cast<A>(gradients.x[i]);
      const A s = sigmoid(gate);
      out.x[2 * i] = rounded<T>(gradient * up * (s + gate * s * (A(1) - s)));
      out.x[2 * i + 1] = rounded<T>(gradient * gate * s);
    }
    store_pairs<N>(dgate_up + 2 * first, out);
  }
};

// GELU's tanh form as x * sigmoid(2u), as on the CPU.
template <class A>
constexpr A kSlope = static_cast<A>(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);  // 2 sqrt(2/pi)
template <class A>
constexpr A kCubic = static_cast<A>(0.044715);

// In BF16 by the device's own power and reciprocal, whose errors (2 and 1 units in the last place of F32) are far below
// BF16's: with the exact ones the kernel computes as long as it reads and writes.
template <class T>
__device__ __forceinline__ Acc<T> gelu_gate(Acc<T> x) {
  using A = Acc<T>;
  const A cubic = A(1) + kCubic<A> * (x * x);
  if constexpr (std::is_same_v<T, bf16>) {
    constexpr float kBinarySlope =
        static_cast<float>(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi * std::numbers::log2e);
    return reciprocal(1.0f + power_of_two(-kBinarySlope * x * cubic));
  } else {
    return sigmoid(kSlope<A> * x * cubic);
  }
}

template <class T>
struct Gelu {
  const T* x;
  T* y;

  template <int N>
  __device__ void run(int64_t first) const {
    using A = Acc<T>;
    const Pack<T, N> in = load<N>(x + first);
    Pack<T, N> out;
    for (int i = 0; i < N; ++i) out.x[i] = rounded<T>(static_cast<A>(in.x[i]) * gelu_gate<T>(static_cast<A>(in.x[i])));
    store(y + first, out);
  }
};

// With s = sigmoid(2u): y' = s + s (1 - s) x (2u)'.
template <class T>
struct GeluBackward {
  const T *dy, *x;
  T* dx;

  template <int N>
  __device__ void run(int64_t first) const {
    using A = Acc<T>;
    const Pack<T, N> gradients = load<N>(dy + first), in = load<N>(x + first);
    Pack<T, N> out;
    for (int i = 0; i < N; ++i) {
      const A value = static_cast<A>(in.x[i]);
      const A s = gelu_gate<T>(value);
      // Beyond 64 s is 0 or 1 to the last bit, and the square may overflow: infinity times 0 is NaN.
      const A slope = kSlope<A> * value * (A(1) + A(3) * kCubic<A> * (value * value));
      const A bounded = value < A(64) && value > A(-64) ? slope : A(0);
      out.x[i] = rounded<T>(static_cast<A>(gradients.x[i]) * (s + s * (A(1) - s) * bounded));
    }
    store(dx + first, out);
  }
};

}  // namespace

void cuda::swiglu(const Context& context, const ConstTensor& gate_up, const Tensor& y) {
  dispatch_float(y.dtype(), [&]<class T>(T) {
    for_elements<kPack<T>>(context, "swiglu", y.size(), aligned(gate_up.as<T>(), y.as<T>()),
                           Swiglu<T>{gate_up.as<T>(), y.as<T>()});
  });
}

void cuda::swiglu_backward(const Context& context, const ConstTensor& dy, const ConstTensor& gate_up,
                           const Tensor& dgate_up) {
  dispatch_float(dy.dtype(), [&]<class T>(T) {
    for_elements<kPack<T>>(context, "swiglu_backward", dy.size(),
                           aligned(dy.as<T>(), gate_up.as<T>(), dgate_up.as<T>()),
                           SwigluBackward<T>{dy.as<T>(), gate_up.as<T>(), dgate_up.as<T>()});
  });
}

void cuda::gelu(const Context& context, const ConstTensor& x, const Tensor& y) {
  dispatch_float(y.dtype(), [&]<class T>(T) {
    for_elements<kPack<T>>(context, "gelu", y.size(), aligned(x.as<T>(), y.as<T>()), Gelu<T>{x.as<T>(), y.as<T>()});
  });
}

void cuda::gelu_backward(const Context& context, const ConstTensor& dy, const ConstTensor& x, const Tensor& dx) {
  dispatch_float(dx.dtype(), [&]<class T>(T) {
    for_elements<kPack<T>>(context, "gelu_backward", dx.size(), aligned(dy.as<T>(), x.as<T>(), dx.as<T>()),
                           GeluBackward<T>{dy.as<T>(), x.as<T>(), dx.as<T>()});
  });
}

}  // namespace tessera
