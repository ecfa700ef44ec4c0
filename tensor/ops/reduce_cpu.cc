#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "tensor/context/threads.h"
#include "tensor/ops/lanes.h"
#include "tensor/ops/reduce_kernels.h"

namespace tessera {
namespace {

constexpr int64_t kBlock = 4096;  // elements whose sum is one partial sum
constexpr int64_t kWave = 1024;   // blocks whose partial sums are held at once, on the stack

}  // namespace

void cpu::sum_of_squares(const Context& context, const ConstTensor& x, const Tensor& result) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    const T* data = x.as<T>();
    const int64_t size = x.size(), blocks = (size + kBlock - 1) / kBlock;
    std::array<double, kWave> partial;
    double sum = 0;
    for (int64_t first = 0; first < blocks; first += kWave) {
      const int64_t count = std::min(kWave, blocks - first);
      parallel_for(context, count, 4, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) {
          const T* block = data + (first + b) * kBlock;
          partial[b] = lane_sum<double>(std::min(kBlock, size - (first + b) * kBlock), [block](int64_t i) {
            const double value = static_cast<double>(block[i]);
            return value * value;
          });
        }
      });
      for (int64_t b = 0; b < count; ++b) sum += partial[b];
    }
    *result.as<double>() = sum;
  });
}

void cpu::sum_parts(const Context& context, const ConstTensor& x, const Tensor& result) {
  const int64_t size = result.size(), parts = x.size() / size;
  dispatch_float(x.dtype(), [&]<class T>(T) {
    dispatch_float(result.dtype(), [&]<class R>(R) {
      if constexpr (std::is_same_v<R, T> || std::is_same_v<R, Acc<T>>) {
        using A = Acc<T>;
        const T* from = x.as<T>();
        R* to = result.as<R>();
        constexpr int64_t kTile = 1024;  // sums in the first-level cache while the parts stream by
        parallel_for(context, size, 16384, [=](int64_t begin, int64_t end) {
          std::array<A, kTile> sums;
          for (int64_t first = begin; first < end; first += kTile) {
            const int64_t count = std::min(kTile, end - first);
            for (int64_t i = 0; i < count; ++i) sums[i] = static_cast<A>(from[first + i]);
            for (int64_t part = 1; part < parts; ++part) {
              for (int64_t i = 0; i < count; ++i) sums[i] += static_cast<A>(from[part * size + first + i]);
            }
            for (int64_t i = 0; i < count; ++i) to[first + i] = round_to<R>(sums[i]);
          }
        });
      }
    });
  });
}

bool cpu::all_finite(const Context& context, const ConstTensor& x) {
  return dispatch_float(x.dtype(), [&]<class T>(T) {
    // Without its sign, a number is NaN or infinite when its bits, as an integer, reach those of infinity.
    using A = Acc<T>;
    using Bits = std::conditional_t<std::is_same_v<A, double>, uint64_t, uint32_t>;
    constexpr Bits kMagnitude = std::numeric_limits<Bits>::max() >> 1;
    constexpr Bits kInfinity = std::bit_cast<Bits>(std::numeric_limits<A>::infinity());
    const T* data = x.as<T>();
    std::atomic<bool> finite = true;
    parallel_for(context, x.size(), 4 * kBlock, [&finite, data](int64_t begin, int64_t end) {
      for (int64_t first = begin; first < end && finite.load(std::memory_order_relaxed); first += kBlock) {
        const T* block = data + first;
        const Bits largest = lane_max(std::min(end - first, kBlock), Bits{0}, [block](int64_t i) {
          return std::bit_cast<Bits>(static_cast<A>(block[i])) & kMagnitude;
        });
        if (largest >= kInfinity) finite.store(false, std::memory_order_relaxed);
      }
    });
    return finite.load();
  });
}

void cpu::add_column_sums(const Context& context, const ConstTensor& x, const Tensor& sums) {
  const int64_t rows = x.dim(0), columns = x.dim(1);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T* data = x.as<T>();
    A* out = sums.as<A>();
    // A thread owns columns: whole cache lines of them, so that threads do not write to the same line. Tiles of columns
    // keep the sums in the first-level cache.
    constexpr int64_t kTile = 2048;
    parallel_for(context, columns, 64, [=](int64_t begin, int64_t end) {
      for (int64_t first = begin; first < end; first += kTile) {
        const int64_t last = std::min(end, first + kTile);
        for (int64_t row = 0; row < rows; ++row) {
          const T* from = data + row * columns;
#pragma omp simd
          for (int64_t i = first; i < last; ++i) out[i] += static_cast<A>(from[i]);
        }
      }
    });
  });
}

}  // namespace tessera
