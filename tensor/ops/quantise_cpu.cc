// The reference for GPUs, which have the same bits. Plain: no run on a CPU computes in 8 bits.
#include <algorithm>
#include <bit>

#include "tensor/context/threads.h"
#include "tensor/ops/quantise_kernels.h"

namespace tessera {
namespace {

// As an integer a magnitude's bits are ordered like it, with infinity and then NaN at the top.
template <class T>
float largest_magnitude(const T* x, int64_t size) {
  uint32_t most = 0;
  for (int64_t i = 0; i < size; ++i)
    most = std::max(most, std::bit_cast<uint32_t>(static_cast<float>(x[i])) & 0x7fffffffu);
  return std::bit_cast<float>(most);
}

template <class T, class F8>
void run(const Context& context, const ConstTensor& x, const T* from, F8* values, F8* transposed, float* scale) {
  const int64_t rows = x.dim(0), columns = x.dim(1);
  const float factor = float8_factor(largest_magnitude(from, x.size()), std::bit_cast<float>(F8::Format::kLargestBits));
  *scale = 1 / factor;
  parallel_for(context, rows, kFloat8Multiple, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t column = 0; column < columns; ++column) {
        const F8 value(factor * static_cast<float>(from[row * columns + column]));
        if (values != nullptr) values[row * columns + column] = value;
        if (transposed != nullptr) transposed[column * rows + row] = value;
      }
    }
  });
}

}  // namespace

void cpu::quantise(const Context& context, const ConstTensor& x, const Tensor& values, const Tensor& transposed,
                   const Tensor& scale) {
  dispatch_quantise(x, values, transposed, scale,
                    [&]<class T, class F8>(const T* from, F8* to, F8* turned, float* unit) {
                      run(context, x, from, to, turned, unit);
                    });
}

}  // namespace tessera
