#include <cmath>

#include "tensor/ops/adamw_kernels.h"
#include "tensor/threads.h"

namespace tessera {
namespace {

constexpr int64_t kGrain = 8192;  // elements; fewer are not worth another thread

// The step's constants, computed in double and rounded once.
template <class A>
struct Constants {
  explicit Constants(const AdamWStep& step)
      : scale(static_cast<A>(step.gradient_scale)),
        beta1(static_cast<A>(step.beta1)),
        one_minus_beta1(static_cast<A>(1 - step.beta1)),
        beta2(static_cast<A>(step.beta2)),
        one_minus_beta2(static_cast<A>(1 - step.beta2)),
        decay(static_cast<A>(step.learning_rate * step.weight_decay)),
        step_size(static_cast<A>(step.learning_rate / (1 - std::pow(step.beta1, static_cast<double>(step.step))))),
        root_scale(static_cast<A>(1 / std::sqrt(1 - std::pow(step.beta2, static_cast<double>(step.step))))),
        epsilon(static_cast<A>(step.epsilon)) {}

  A scale, beta1, one_minus_beta1, beta2, one_minus_beta2;
  A decay;       // lr * weight_decay
  A step_size;   // lr / (1 - beta1^t)
  A root_scale;  // 1 / sqrt(1 - beta2^t)
  A epsilon;
};

template <class A, class T>
void adamw_range(const Constants<A> c, const A* gradient, A* master, A* exp_avg, A* exp_avg_sq, T* compute,
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
    const Constants<A> constants(step);
    const A* g = gradient.as<A>();
    A *w = master.as<A>(), *m = exp_avg.as<A>(), *v = exp_avg_sq.as<A>();
    T* out = compute.as<T>();
    parallel_for(context, compute.size(), kGrain, [=](int64_t begin, int64_t end) {
      adamw_range(constants, g + begin, w + begin, m + begin, v + begin, out + begin, end - begin);
    });
  });
}

}  // namespace tessera
