// The reference for GPUs. Plain: no run on a CPU computes in 8 bits.
#include <array>

#include "tensor/context/threads.h"
#include "tensor/ops/gemm/gemm_fp8_kernels.h"

namespace tessera {
namespace {

// What each code of a format stands for.
std::array<double, 256> numbers(DType format) {
  std::array<double, 256> table{};
  dispatch_float8(format, [&]<class F8>(F8) {
    for (size_t code = 0; code < table.size(); ++code) table[code] = F8::Format::decode(static_cast<uint8_t>(code));
  });
  return table;
}

}  // namespace

void cpu::gemm_fp8(const Context& context, const GemmShape& shape, const Quantised& a, const Quantised& b,
                   const Tensor& c, Write write, const ConstTensor& bias) {
  const std::array<double, 256> of_a = numbers(a.values.dtype()), of_b = numbers(b.values.dtype());
  const double scale = static_cast<double>(*a.scale.as<float>()) * static_cast<double>(*b.scale.as<float>());
  const auto* left = static_cast<const uint8_t*>(a.values.data());
  const auto* right = static_cast<const uint8_t*>(b.values.data());
  const bf16* add = bias.rank() == 1 ? bias.as<bf16>() : nullptr;
  const auto run = [&]<class C>(C* to) {
    parallel_for(context, shape.m, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < shape.n; ++j) {
          double sum = 0;
          for (int64_t l = 0; l < shape.k; ++l) sum += of_a[left[i * shape.k + l]] * of_b[right[j * shape.k + l]];
          C& result = to[i * shape.n + j];
          const double before = write == Write::Accumulate ? static_cast<double>(result)
                                : add != nullptr           ? static_cast<double>(add[j])
                                                           : 0.0;
          result = round_to<C>(before + scale * sum);
        }
      }
    });
  };
  if (c.dtype() == DType::BF16)
    run(c.as<bf16>());
  else
    run(c.as<float>());
}

}  // namespace tessera
