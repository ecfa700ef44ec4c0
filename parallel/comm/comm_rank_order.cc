#include "parallel/comm/comm_rank_order.h"

#include <algorithm>
#include <utility>

#include "tensor/context/runtime.h"
#include "tensor/memory/buffer.h"
#include "tensor/ops/reduce.h"

namespace tessera {
namespace {

// What all groups use in turns: each call is over on the context's stream before the next one's.
struct Scratch {
  static constexpr int64_t kBytes = kRankOrderBytes / 2;

  Buffer outgoing{Device::Cuda, kBytes, "sums in rank order"}, incoming{Device::Cuda, kBytes, "sums in rank order"};
};

class RankOrderExchange final : public DeviceExchange {
 public:
  RankOrderExchange(std::unique_ptr<DeviceExchange> exchange, Comm& group, const Context& context,
                    std::shared_ptr<Scratch> scratch)
      : exchange_(std::move(exchange)), group_(group), context_(context), scratch_(std::move(scratch)) {}

  std::unique_ptr<DeviceExchange> for_group(Comm& group, int color) override {
    return std::make_unique<RankOrderExchange>(exchange_->for_group(group, color), group, context_, scratch_);
  }
  void expect() override { exchange_->expect(); }
  void connect() override { exchange_->connect(); }
  void abandon() noexcept override { exchange_->abandon(); }
  void settle() override { exchange_->settle(); }
  void copy(const std::byte* from, std::byte* to, int64_t bytes) override { exchange_->copy(from, to, bytes); }

  void do_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    exchange_->do_all_gather(in, out, block_bytes);
  }
  Request::Pending* do_start_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    return exchange_->do_start_all_gather(in, out, block_bytes);
  }
  void do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    exchange_->do_all_to_all(in, out, block_bytes);
  }
  void do_broadcast(std::byte* x, int64_t bytes, int root) override { exchange_->do_broadcast(x, bytes, root); }
  Request::Pending* do_send(const std::byte* x, int64_t bytes, int to, int tag) override {
    return exchange_->do_send(x, bytes, to, tag);
  }
  Request::Pending* do_receive(std::byte* x, int64_t bytes, int from, int tag) override {
    return exchange_->do_receive(x, bytes, from, tag);
  }

  void do_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count, DType dtype) override {
    if (!is_float(dtype)) return exchange_->do_reduce_scatter_sum(in, out, count, dtype);
    const int64_t element = size_of(dtype);
    for_pieces(count, element, [&](int64_t first, int64_t elements) {
      const int64_t bytes = elements * element;
      for (int r = 0; r < group_.size(); ++r) {
        context_.cuda().stream().copy_on_device(outgoing() + r * bytes, in + (r * count + first) * element, bytes);
      }
      exchange_->do_all_to_all(outgoing(), incoming(), bytes);
      add(out + first * element, elements, dtype);
    });
  }
  Request::Pending* do_start_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count,
                                                DType dtype) override {
    do_reduce_scatter_sum(in, out, count, dtype);
    return nullptr;
  }
  void do_all_reduce(std::byte* x, int64_t count, DType dtype, Reduction reduction) override {
    if (!is_float(dtype) || reduction != Reduction::Sum) return exchange_->do_all_reduce(x, count, dtype, reduction);
    const int64_t element = size_of(dtype);
    for_pieces(count, element, [&](int64_t first, int64_t elements) {
      exchange_->do_all_gather(x + first * element, incoming(), elements * element);
      add(x + first * element, elements, dtype);
    });
  }

 private:
  static bool is_float(DType dtype) { return dtype == DType::F64 || dtype == DType::F32 || dtype == DType::BF16; }
  std::byte* outgoing() const { return static_cast<std::byte*>(scratch_->outgoing.data()); }
  std::byte* incoming() const { return static_cast<std::byte*>(scratch_->incoming.data()); }

  // visit(first, count): as many elements at a time as have room for every rank's.
  template <class Visit>
  void for_pieces(int64_t count, int64_t element, Visit visit) const {
    const int64_t most = Scratch::kBytes / (element * group_.size());
    TESSERA_CHECK(most > 0, "a group whose sums have an element a rank in the scratch memory");
    for (int64_t first = 0; first < count; first += most) visit(first, std::min(most, count - first));
  }

  // to = the sum of what came.
  void add(std::byte* to, int64_t elements, DType dtype) const {
    sum_parts(context_, ConstTensor(incoming(), {group_.size() * elements}, dtype, Device::Cuda),
              Tensor(to, {elements}, dtype, Device::Cuda));
  }

  std::unique_ptr<DeviceExchange> exchange_;
  Comm& group_;
  const Context& context_;
  std::shared_ptr<Scratch> scratch_;
};

}  // namespace

std::unique_ptr<DeviceExchange> make_rank_order_exchange(std::unique_ptr<DeviceExchange> exchange, Comm& group,
                                                         const Context& context) {
  return std::make_unique<RankOrderExchange>(std::move(exchange), group, context, std::make_shared<Scratch>());
}

}  // namespace tessera
