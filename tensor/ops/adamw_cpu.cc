#include <cmath>

#include "tensor/context/threads.h"
#include "tensor/ops/adamw_constants.h"
#include "tensor/ops/adamw_kernels.h"

namespace tessera {
namespace {

constexpr int64_t kGrain = 8192;  // elements; fewer are not worth another thread

template <class A, class T>
void adamw_range(const AdamWConstants<A> c, const A* gradient, A* master, A* exp_avg, A* exp_avg_sq, T* compute,
                 int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const A g = c.scale * gradient[i];
    const A m = c.beta1 * exp_avg[i] + c.one_minus_beta1 * g;
    const A v = c.beta2 * exp_avg_sq[i] + c.one_minus_beta2 * (g * g);
    const A w = master[i] - c.decay * master[i] - c.step_size * m / (std::sqrt(v) * c.root_scale + c.epsilon);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    master[i] = w;
    compute[i] = round_to<T>(w);
  }
}

}  // namespace

void cpu::adamw(const Context& context, const AdamWStep& step, const ConstTensor& gradient, const Tensor& master,
                const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& compute) {
  dispatch_float(compute.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const AdamWConstants<A> constants(step);
    const A* g = gradient.as<A>();
    A *w = master.as<A>(), *m = exp_avg.as<A>(), *v = exp_avg_sq.as<A>();
    T* out = compute.as<T>();
    parallel_for(context, compute.size(), kGrain, [=](int64_t begin, int64_t end) {
      adamw_range(constants, g + begin, w + begin, m + begin, v + begin, out + begin, end - begin);
    });
  });
}

}  // namespace tessera
