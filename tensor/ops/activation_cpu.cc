#include <cmath>
#include <numbers>

#include "tensor/context/threads.h"
#include "tensor/ops/activation_kernels.h"
#include "tensor/ops/simd_math.h"

namespace tessera {
namespace {

constexpr int64_t kGrain = 4096;  // elements; fewer are not worth another thread

template <class T>
void swiglu_range(const T* gate_up, T* y, int64_t count) {
  using A = Acc<T>;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const A gate = static_cast<A>(gate_up[2 * i]), up = static_cast<A>(gate_up[2 * i + 1]);
    y[i] = round_to<T>(gate * simd::sigmoid(gate) * up);
  }
}

// silu'(g) = s + g s (1 - s) with s = sigmoid(g).
template <class T>
void swiglu_backward_range(const T* dy, const T* gate_up, T* dgate_up, int64_t count) {
  using A = Acc<T>;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const A gate = static_cast<A>(gate_up[2 * i]), up = static_cast<A>(gate_up[2 * i + 1]);
    const A gradient = static_cast<A>(dy[i]);
    const A s = simd::sigmoid(gate);
    dgate_up[2 * i] = round_to<T>(gradient * up * (s + gate * s * (A(1) - s)));
    dgate_up[2 * i + 1] = round_to<T>(gradient * gate * s);
  }
}

// GELU's tanh form as x * sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): (1 + tanh u) / 2 = sigmoid(2u), and unlike
// 1 + tanh u it does not cancel at negative u.
template <class A>
constexpr A kGeluSlope = static_cast<A>(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);  // 2 sqrt(2/pi)
template <class A>
constexpr A kGeluCubic = static_cast<A>(0.044715);

template <class A>
[[gnu::always_inline]] inline A gelu_gate(A x) {
  return simd::sigmoid(kGeluSlope<A> * x * (A(1) + kGeluCubic<A> * (x * x)));
}

template <class T>
void gelu_range(const T* x, T* y, int64_t count) {
  using A = Acc<T>;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const A value = static_cast<A>(x[i]);
    y[i] = round_to<T>(value * gelu_gate(value));
  }
}

// With s = sigmoid(2u): y' = s + s (1 - s) x (2u)'.
template <class T>
void gelu_backward_range(const T* dy, const T* x, T* dx, int64_t count) {
  using A = Acc<T>;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const A value = static_cast<A>(x[i]);
    const A s = gelu_gate(value);
    // Beyond 64 s is 0 or 1 to the last bit, and the square may overflow: infinity times 0 is NaN.
    const A slope = kGeluSlope<A> * value * (A(1) + A(3) * kGeluCubic<A> * (value * value));
    const A bounded = std::abs(value) < A(64) ? slope : A(0);
    dx[i] = round_to<T>(static_cast<A>(dy[i]) * (s + s * (A(1) - s) * bounded));
  }
}

}  // namespace

void cpu::swiglu(const Context& context, const ConstTensor& gate_up, const Tensor& y) {
  dispatch_float(y.dtype(), [&]<class T>(T) {
    const T* from = gate_up.as<T>();
    T* to = y.as<T>();
    parallel_for(context, y.size(), kGrain,
                 [=](int64_t begin, int64_t end) { swiglu_range(from + 2 * begin, to + begin, end - begin); });
  });
}

void cpu::swiglu_backward(const Context& context, const ConstTensor& dy, const ConstTensor& gate_up,
                          const Tensor& dgate_up) {
  dispatch_float(dy.dtype(), [&]<class T>(T) {
    const T *gradient = dy.as<T>(), *from = gate_up.as<T>();
    T* to = dgate_up.as<T>();
    parallel_for(context, dy.size(), kGrain, [=](int64_t begin, int64_t end) {
      swiglu_backward_range(gradient + begin, from + 2 * begin, to + 2 * begin, end - begin);
    });
  });
}

void cpu::gelu(const Context& context, const ConstTensor& x, const Tensor& y) {
  dispatch_float(y.dtype(), [&]<class T>(T) {
    const T* from = x.as<T>();
    T* to = y.as<T>();
    parallel_for(context, y.size(), kGrain,
                 [=](int64_t begin, int64_t end) { gelu_range(from + begin, to + begin, end - begin); });
  });
}

void cpu::gelu_backward(const Context& context, const ConstTensor& dy, const ConstTensor& x, const Tensor& dx) {
  dispatch_float(dx.dtype(), [&]<class T>(T) {
    const T *gradient = dy.as<T>(), *from = x.as<T>();
    T* to = dx.as<T>();
    parallel_for(context, dx.size(), kGrain, [=](int64_t begin, int64_t end) {
      gelu_backward_range(gradient + begin, from + begin, to + begin, end - begin);
    });
  });
}

}  // namespace tessera
