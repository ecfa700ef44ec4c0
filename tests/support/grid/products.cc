// The emulated device's matrix products. They are the library's on a real device and have no source to test here; so
// that operations which use them run, these are plain loops.
#include <cmath>
#include <cstdint>
#include <numbers>

#include "tensor/check.h"
#include "tensor/context/context.h"
#include "tensor/context/runtime.h"
#include "tensor/ops/gemm/gemm_cuda.h"
#include "tensor/ops/gemm/gemm_fp8_kernels.h"
#include "tests/support/grid/memory.h"
#include "tests/support/grid/streams.h"

namespace tessera::cuda {
namespace {

// after(row, column, sum) makes an element of C from its sum, of the accumulation dtype.
template <class After>
void product(const GemmShape& shape, const ConstTensor& a, const ConstTensor& b, const ConstTensor& c,
             const GemmOptions& options, const ConstTensor& bias, After&& after) {
  const grid::DeviceAccess access;
  const auto at = [](const ConstTensor& x, Transpose stored, int64_t row, int64_t column) {
    return stored == Transpose::No ? row * x.dim(1) + column : column * x.dim(1) + row;
  };
  dispatch_float(a.dtype(), [&]<class T>(T) {
    dispatch_float(c.dtype(), [&]<class C>(C) {
      C* to = static_cast<C*>(const_cast<void*>(c.data()));
      for (int64_t i = 0; i < shape.m; ++i) {
        for (int64_t j = 0; j < shape.n; ++j) {
          Acc<T> sum = options.c == Write::Accumulate ? static_cast<Acc<T>>(to[i * shape.n + j])
                       : bias.rank() == 1             ? static_cast<Acc<T>>(bias.as<T>()[j])
                                                      : Acc<T>(0);
          for (int64_t l = 0; l < shape.k; ++l) {
            sum += static_cast<Acc<T>>(a.as<T>()[at(a, options.a, i, l)]) *
                   static_cast<Acc<T>>(b.as<T>()[at(b, options.b, l, j)]);
          }
          to[i * shape.n + j] = round_to<C>(after(i, j, sum));
        }
      }
    });
  });
}

// The same for products in 8 bits.
void product_fp8(const GemmShape& shape, const Quantised& a, const Quantised& b, const ConstTensor& c, Write write,
                 const ConstTensor& bias) {
  const grid::DeviceAccess access;
  const float scale = *a.scale.as<float>() * *b.scale.as<float>();
  dispatch_float8(a.values.dtype(), [&]<class A>(A) {
    dispatch_float8(b.values.dtype(), [&]<class B>(B) {
      dispatch_float(c.dtype(), [&]<class C>(C) {
        const A* left = a.values.as<A>();
        const B* right = b.values.as<B>();
        C* to = static_cast<C*>(const_cast<void*>(c.data()));
        for (int64_t i = 0; i < shape.m; ++i) {
          for (int64_t j = 0; j < shape.n; ++j, ++to) {
            float sum = 0;
            for (int64_t l = 0; l < shape.k; ++l)
              sum += static_cast<float>(left[i * shape.k + l]) * static_cast<float>(right[j * shape.k + l]);
            const float before = write == Write::Accumulate ? static_cast<float>(*to)
                                 : bias.rank() == 1         ? static_cast<float>(bias.as<bf16>()[j])
                                                            : 0.0F;
            *to = round_to<C>(before + scale * sum);
          }
        }
      });
    });
  });
}

// GELU's tanh form, and its derivative.
double gelu(double x) {
  const double u = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  return x / 2 * (1 + std::tanh(u));
}
double gelu_slope(double x) {
  const double root = std::sqrt(2 / std::numbers::pi), t = std::tanh(root * (x + 0.044715 * x * x * x));
  return (1 + t) / 2 + x / 2 * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
}

}  // namespace

void gemm(Context& context, const GemmShape& shape, const ConstTensor& a, const ConstTensor& b, const ConstTensor& c,
          const GemmOptions& options, const ConstTensor& bias, GemmCall call) {
  if (call == GemmCall::PrepareOnly) return;
  grid::queue(context.cuda().stream().handle(),
              [=] { product(shape, a, b, c, options, bias, [](int64_t, int64_t, auto sum) { return sum; }); });
}

bool gemm_gelu(Context& context, GemmEpilogue epilogue, const GemmShape& shape, const ConstTensor& a,
               const ConstTensor& b, const ConstTensor& x, const ConstTensor& result, const GemmOptions& options,
               const ConstTensor& bias, GemmCall call) {
  const auto aligned = [](const ConstTensor& t) { return reinterpret_cast<uintptr_t>(t.data()) % 16 == 0; };
  const bool all_aligned = aligned(a) && aligned(b) && aligned(x) && aligned(result) && aligned(bias);
  if (!gelu_may_follow(context.cuda().device(), shape, a.dtype(), all_aligned)) return false;
  if (call == GemmCall::PrepareOnly) return true;
  grid::queue(context.cuda().stream().handle(), [=] {
    auto* of_x = static_cast<bf16*>(const_cast<void*>(x.data()));
    product(shape, a, b, result, options, bias, [&](int64_t i, int64_t j, float sum) {
      if (epilogue == GemmEpilogue::GeluBackward)
        return sum * static_cast<float>(gelu_slope(static_cast<double>(of_x[i * shape.n + j])));
      of_x[i * shape.n + j] = round_to<bf16>(sum);
      return static_cast<float>(gelu(static_cast<double>(sum)));
    });
  });
  return true;
}

// What cuBLASLt asks for beyond what gemm_fp8.cc checked is asked for here too.
void gemm_fp8(Context& context, const GemmShape& shape, const Quantised& a, const Quantised& b, const ConstTensor& c,
              Write write, const ConstTensor& bias, GemmCall call) {
  for (const ConstTensor& x : {a.values, b.values, c, bias})
    TESSERA_CHECK_EQ(reinterpret_cast<uintptr_t>(x.data()) % 16, uintptr_t{0}, "gemm_fp8: bytes past 16");
  if (call == GemmCall::PrepareOnly) return;
  grid::queue(context.cuda().stream().handle(), [=] { product_fp8(shape, a, b, c, write, bias); });
}

}  // namespace tessera::cuda
