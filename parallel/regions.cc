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

Request start_scatter_sum_tokens([[maybe_unused]] Context& context, Comm& tp, const ConstTensor& partial,
                                 const Tensor& out) {
  return tp.start_reduce_scatter_sum(partial, out);
}

int64_t TokenGathers::workspace(int tp, const Shape& local, DType dtype, Overlap overlap) {
  return (overlap == Overlap::On ? 2 : 1) * gather_workspace(tp, local, dtype);
}

TokenGathers::TokenGathers(Context& context, Comm& tp, std::span<const ConstTensor> locals, Overlap overlap)
    : tp_(tp), locals_(locals), overlap_(overlap) {
  if (tp.size() == 1 || locals.empty()) return;
  const Shape all = locals.front().shape().with_rows(locals.front().dim(0) * tp.size());
  buffers_[0] = context.workspace().take(all, locals.front().dtype());
  buffers_[1] = overlap == Overlap::On ? context.workspace().take(all, locals.front().dtype()) : buffers_[0];
  if (overlap == Overlap::On) start();
}

void TokenGathers::start() {
  if (next_ < locals_.size()) under_way_ = tp_.start_all_gather(locals_[next_], buffers_[next_ % 2]);
}

ConstTensor TokenGathers::of(const ConstTensor& local) {
  TESSERA_CHECK(next_ < locals_.size() && locals_[next_].data() == local.data(), "gathers are used in their order");
  if (tp_.size() == 1) return locals_[next_++];
  const Tensor all = buffers_[next_ % 2];
  if (overlap_ == Overlap::Off) {
    tp_.all_gather(locals_[next_++], all);
    return all;
  }
  under_way_.wait();
  ++next_;
  start();
  return all;
}

}  // namespace tessera
