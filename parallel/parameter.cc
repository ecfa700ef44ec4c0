#include "parallel/parameter.h"

#include <algorithm>
#include <vector>

#include "tensor/context/copy.h"
#include "tensor/context/random.h"
#include "tensor/context/threads.h"

namespace tessera {
namespace {

void fill(const Context& context, double value, const Tensor& x) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    const T element = static_cast<T>(static_cast<Acc<T>>(value));
    if (x.device() != Device::Cpu) {
      std::vector<T> some(static_cast<size_t>(std::min<int64_t>(x.size(), 65536)), element);
      const Tensor flat = x.reshape({x.size()});
      for (int64_t begin = 0; begin < x.size(); begin += 65536) {
        const int64_t end = std::min<int64_t>(x.size(), begin + 65536);
        copy(context, ConstTensor(some.data(), {end - begin}, x.dtype()), flat.rows(begin, end));
      }
      return;
    }
    T* out = x.as<T>();
    parallel_for(context, x.size(), 65536,
                 [&](int64_t begin, int64_t end) { std::fill(out + begin, out + end, element); });
  });
}

}  // namespace

void initialise(const Context& context, const Parameter& parameter, const Interval& rows, uint64_t seed,
                const Tensor& x) {
  TESSERA_CHECK_EQ(x.size(), parameter.global_shape.with_rows(rows.size()).size(), parameter.name);
  switch (parameter.initialisation) {
    case Initialisation::Zero:
      return fill(context, 0.0, x);
    case Initialisation::One:
      return fill(context, 1.0, x);
    case Initialisation::Normal:
      return fill_normal(context, x, RandomStream(seed, "init/" + parameter.name),
                         rows.begin * parameter.global_shape.row_size(), parameter.standard_deviation);
  }
}

}  // namespace tessera
