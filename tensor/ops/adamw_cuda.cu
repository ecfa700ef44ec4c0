// Bytes moved an element: 4 reads and 3 writes of the accumulation dtype, one write of the compute dtype: 30 for BF16.
#include <cmath>

#include "tensor/kernels/elements.h"
#include "tensor/ops/adamw_constants.h"
#include "tensor/ops/adamw_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

template <class T>
struct AdamW {
  using A = Acc<T>;

  AdamWConstants<A> c;
  const A* gradient;
  A *master, *exp_avg, *exp_avg_sq;
  T* compute;

  template <int N>
  __device__ void run(int64_t first) const {
    const Pack<A, N> gs = load<N>(gradient + first);
    Pack<A, N> ws = load<N>(master + first), ms = load<N>(exp_avg + first), vs = load<N>(exp_avg_sq + first);
    Pack<T, N> out;
    for (int i = 0; i < N; ++i) {
      // Fused by hand, so that packs and single elements (ranges of a shard) round alike.
      const A g = c.scale * gs.x[i];
      const A m = std::fma(c.beta1, ms.x[i], c.one_minus_beta1 * g);
      const A v = std::fma(c.beta2, vs.x[i], c.one_minus_beta2 * (g * g));
      const A ratio = c.step_size * m / std::fma(std::sqrt(v), c.root_scale, c.epsilon);
      const A w = std::fma(-c.decay, ws.x[i], ws.x[i]) - ratio;
      ms.x[i] = m;
      vs.x[i] = v;
      ws.x[i] = w;
      out.x[i] = rounded<T>(w);
    }
    store(exp_avg + first, ms);
    store(exp_avg_sq + first, vs);
    store(master + first, ws);
    store(compute + first, out);
  }
};

}  // namespace

void cuda::adamw(const Context& context, const AdamWStep& step, const ConstTensor& gradient, const Tensor& master,
                 const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& compute) {
  dispatch_float(compute.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const AdamW<T> body{AdamWConstants<A>(step), gradient.as<A>(),   master.as<A>(),
                        exp_avg.as<A>(),         exp_avg_sq.as<A>(), compute.as<T>()};
    for_elements<kPack<A>>(context, "adamw", compute.size(),
                           aligned(body.gradient, body.master, body.exp_avg, body.exp_avg_sq, body.compute), body);
  });
}

}  // namespace tessera
