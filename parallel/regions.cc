#include "parallel/regions.h"

namespace tessera {

int64_t gather_workspace(int tp, const Shape& local, DType dtype) {
  return tp == 1 ? 0 : Arena::bytes(local.with_rows(local[0] * tp), dtype);
}

ConstTensor gather_tokens(Context& context, Comm& tp, const ConstTensor& local) {
  if (tp.size() == 1) return local;
  const Tensor all = context.workspace().take(local.shape().with_rows(local.dim(0) * tp.size()), local.dtype());
  tp.all_gather(local, all);
  return all;
}

void scatter_sum_tokens([[maybe_unused]] Context& context, Comm& tp, const ConstTensor& partial, const Tensor& out) {
  tp.reduce_scatter_sum(partial, out);
}

}  // namespace tessera
