#include "parallel/comm/comm_staged.h"

#include <deque>
#include <utility>

#include "tensor/context/runtime.h"

namespace tessera {
namespace {

class StagedExchange;

// Host memory that grows to what was asked for most.
class Stage {
 public:
  std::byte* at_least(int64_t bytes) {
    if (memory_.bytes() < bytes) memory_ = cuda::PinnedBuffer(bytes, "communication through host memory");
    return static_cast<std::byte*>(memory_.data());
  }

 private:
  cuda::PinnedBuffer memory_;
};

// What is under way on the host, and where on the device it goes then.
struct Moved final : Request::Pending {
  explicit Moved(const cuda::Stream& stream_) : stream(stream_) {}
  void wait() override;
  void abandon() noexcept override { host->abandon(); }
  void release() noexcept override {
    host->release();
    busy = false;
  }

  const cuda::Stream& stream;
  Stage in, out;
  cuda::Event landed;  // the last copy from `out`
  bool busy = false;
  Request::Pending* host = nullptr;
  std::byte* to = nullptr;  // null: nothing comes back
  int64_t bytes = 0;
};

void Moved::wait() {
  host->wait();
  if (to == nullptr) return;
  stream.copy_to_device(to, out.at_least(bytes), bytes);
  landed.record(stream);
}

class StagedExchange final : public DeviceExchange {
 public:
  StagedExchange(Comm& group, const Context& context)
      : group_(group), context_(context), stream_(context.cuda().stream()) {}

  std::unique_ptr<DeviceExchange> for_group(Comm& group, int) override { return make_staged_exchange(group, context_); }

  void settle() override {}  // messages are the host's
  void copy(const std::byte* from, std::byte* to, int64_t bytes) override { stream_.copy_on_device(to, from, bytes); }

  void do_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    const int64_t bytes = block_bytes * group_.size();
    const std::byte* from = fetch(in_, in, block_bytes);  // before out_, which an earlier call may still be read from
    host().do_all_gather(from, out_.at_least(bytes), block_bytes);
    stream_.copy_to_device(out, out_.at_least(bytes), bytes);
  }

  void do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    const int64_t bytes = block_bytes * group_.size();
    const std::byte* from = fetch(in_, in, bytes);
    host().do_all_to_all(from, out_.at_least(bytes), block_bytes);
    stream_.copy_to_device(out, out_.at_least(bytes), bytes);
  }

  void do_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count, DType dtype) override {
    const int64_t bytes = count * size_of(dtype);
    const std::byte* from = fetch(in_, in, bytes * group_.size());
    host().do_reduce_scatter_sum(from, out_.at_least(bytes), count, dtype);
    stream_.copy_to_device(out, out_.at_least(bytes), bytes);
  }

  Request::Pending* do_start_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    Moved& moved = take(out, block_bytes * group_.size());
    const std::byte* from = fetch(moved.in, in, block_bytes);
    moved.host = host().do_start_all_gather(from, moved.out.at_least(moved.bytes), block_bytes);
    return &begun(moved);
  }

  Request::Pending* do_start_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count,
                                                DType dtype) override {
    Moved& moved = take(out, count * size_of(dtype));
    const std::byte* from = fetch(moved.in, in, moved.bytes * group_.size());
    moved.host = host().do_start_reduce_scatter_sum(from, moved.out.at_least(moved.bytes), count, dtype);
    return &begun(moved);
  }

  void do_all_reduce(std::byte* x, int64_t count, DType dtype, Reduction reduction) override {
    const int64_t bytes = count * size_of(dtype);
    std::byte* staged = fetch(in_, x, bytes);
    host().do_all_reduce(staged, count, dtype, reduction);
    stream_.copy_to_device(x, staged, bytes);
  }

  void do_broadcast(std::byte* x, int64_t bytes, int root) override {
    std::byte* staged = group_.rank() == root ? fetch(in_, x, bytes) : free(in_, bytes);
    host().do_broadcast(staged, bytes, root);
    if (group_.rank() != root) stream_.copy_to_device(x, staged, bytes);
  }

  Request::Pending* do_send(const std::byte* x, int64_t bytes, int to, int tag) override {
    Moved& moved = take(nullptr, bytes);
    moved.host = host().do_send(fetch(moved.in, x, bytes), bytes, to, tag);
    return &begun(moved);
  }

  Request::Pending* do_receive(std::byte* x, int64_t bytes, int from, int tag) override {
    Moved& moved = take(x, bytes);
    moved.host = host().do_receive(moved.out.at_least(bytes), bytes, from, tag);
    return &begun(moved);
  }

 private:
  CommBackend& host() { return group_.host_backend(); }

  // The staging memory, when nothing that was queued reads it any more.
  std::byte* free(Stage& stage, int64_t bytes) {
    stream_.synchronize();
    return stage.at_least(bytes);
  }

  // Waits for what is queued, so earlier copies from the staging memory are over as well.
  std::byte* fetch(Stage& stage, const std::byte* x, int64_t bytes) {
    std::byte* host = free(stage, bytes);
    stream_.copy_to_host(host, x, bytes);
    stream_.synchronize();
    return host;
  }

  Moved& take(std::byte* to, int64_t bytes) {
    Moved* free = nullptr;
    for (Moved& moved : moved_) {
      if (!moved.busy && moved.landed.done()) free = &moved;
    }
    if (free == nullptr) free = &moved_.emplace_back(stream_);
    free->to = to;
    free->bytes = bytes;
    return *free;
  }

  // Not before: a call that throws leaves nothing busy.
  static Moved& begun(Moved& moved) {
    moved.busy = true;
    return moved;
  }

  Comm& group_;
  const Context& context_;
  const cuda::Stream& stream_;
  Stage in_, out_;
  std::deque<Moved> moved_;  // all that were ever under way at once
};

}  // namespace

std::unique_ptr<DeviceExchange> make_staged_exchange(Comm& group, const Context& context) {
  return std::make_unique<StagedExchange>(group, context);
}

}  // namespace tessera
