#include <algorithm>
#include <cstring>

#include "tensor/context/threads.h"
#include "tensor/ops/elementwise_kernels.h"

namespace tessera {
namespace {

constexpr int64_t kGrain = 16384;  // elements; fewer are not worth another thread

template <class From, class To>
void cast_range(const From* x, To* y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) y[i] = round_to<To>(static_cast<Acc<From>>(x[i]));
}

void copy(const Context& context, const ConstTensor& x, const Tensor& y) {
  if (x.data() == y.data()) return;
  const char* from = static_cast<const char*>(x.data());
  char* to = static_cast<char*>(y.data());
  parallel_for(context, x.bytes(), kGrain, [&](int64_t begin, int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
  });
}

}  // namespace

void cpu::add(const Context& context, const ConstTensor& a, const ConstTensor& b, const Tensor& y) {
  dispatch_float(y.dtype(), [&]<class T>(T) {
    const T *a_data = a.as<T>(), *b_data = b.as<T>();
    T* y_data = y.as<T>();
    parallel_for(context, y.size(), kGrain, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        y_data[i] = round_to<T>(static_cast<Acc<T>>(a_data[i]) + static_cast<Acc<T>>(b_data[i]));
      }
    });
  });
}

void cpu::accumulate(const Context& context, const ConstTensor& x, const Tensor& y) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    const T* from = x.as<T>();
    Acc<T>* to = y.as<Acc<T>>();
    parallel_for(context, y.size(), kGrain, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) to[i] += static_cast<Acc<T>>(from[i]);
    });
  });
}

void cpu::cast(const Context& context, const ConstTensor& x, const Tensor& y) {
  dispatch_float(x.dtype(), [&]<class From>(From) {
    dispatch_float(y.dtype(), [&]<class To>(To) {
      if constexpr (std::is_same_v<From, To>) {
        copy(context, x, y);
      } else {
        const From* from = x.as<From>();
        To* to = y.as<To>();
        parallel_for(context, y.size(), kGrain,
                     [=](int64_t begin, int64_t end) { cast_range(from + begin, to + begin, end - begin); });
      }
    });
  });
}

void cpu::scale(const Context& context, double factor, const Tensor& x) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    T* data = x.as<T>();
    const auto by = static_cast<Acc<T>>(factor);
    parallel_for(context, x.size(), kGrain, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) data[i] = round_to<T>(by * static_cast<Acc<T>>(data[i]));
    });
  });
}

void cpu::add_bias(const Context& context, const ConstTensor& bias, const Tensor& x) {
  const int64_t columns = x.dim(1);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    const T* b = bias.as<T>();
    T* data = x.as<T>();
    parallel_for(context, x.dim(0), kGrain / std::max<int64_t>(columns, 1), [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        T* to = data + row * columns;
#pragma omp simd
        for (int64_t i = 0; i < columns; ++i) {
          to[i] = round_to<T>(static_cast<Acc<T>>(to[i]) + static_cast<Acc<T>>(b[i]));
        }
      }
    });
  });
}

void cpu::zero(const Context& context, const Tensor& x) {
  char* data = static_cast<char*>(x.data());
  parallel_for(context, x.bytes(), 4 * kGrain,
               [=](int64_t begin, int64_t end) { std::memset(data + begin, 0, static_cast<size_t>(end - begin)); });
}

}  // namespace tessera
