#include <algorithm>

#include "tensor/context/threads.h"
#include "tensor/ops/columns_kernels.h"

namespace tessera {
namespace {

constexpr int64_t kGrain = 16384;  // elements; fewer are not worth another thread

}  // namespace

void cpu::copy_columns(const Context& context, const ConstTensor& x, int64_t from, int64_t count, const Tensor& y,
                       int64_t to) {
  const int64_t n = x.dim(1), m = y.dim(1);
  dispatch_float(x.dtype(), [&]<class From>(From) {
    dispatch_float(y.dtype(), [&]<class To>(To) {
      const From* source = x.as<From>() + from;
      To* target = y.as<To>() + to;
      const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(count, 1));
      parallel_for(context, y.dim(0), grain, [=](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const From* in = source + row * n;
          To* out = target + row * m;
#pragma omp simd
          for (int64_t j = 0; j < count; ++j) {
            if constexpr (std::is_same_v<From, To>)
              out[j] = in[j];
            else
              out[j] = round_to<To>(static_cast<Acc<From>>(in[j]));
          }
        }
      });
    });
  });
}

}  // namespace tessera
