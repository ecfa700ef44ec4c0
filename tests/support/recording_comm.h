// A group that passes every call on to another one and writes down when, in units of the work done so far: which
// compute ran while a collective was under way is read from that, on any machine.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/comm.h"

namespace tessera::testing {

class RecordingComm final : public Comm {
 public:
  struct Event {
    std::string what;  // "all_gather", "start all_gather", "wait all_gather", ...
    const void* in;    // what the collective reads
    int64_t work;      // done before
  };

  // work: what has been done so far, e.g. FLOPs of matrix products.
  RecordingComm(Comm& inner, std::function<int64_t()> work)
      : Comm(inner.rank(), inner.size(), inner.name()), inner_(inner), work_(std::move(work)) {}

  const std::vector<Event>& events() const { return events_; }
  void clear() { events_.clear(); }

 protected:
  std::unique_ptr<Comm> do_split(int color, const std::string& name) override { return inner_.split(color, name); }
  void do_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    note("all_gather", in);
    inner_.all_gather(bytes(in, block_bytes), bytes(out, size() * block_bytes));
  }
  void do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    note("all_to_all", in);
    inner_.all_to_all(bytes(in, size() * block_bytes), bytes(out, size() * block_bytes));
  }
  void do_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count, DType dtype) override {
    note("reduce_scatter", in);
    inner_.reduce_scatter_sum({in, Shape{size() * count}, dtype}, {out, Shape{count}, dtype});
  }
  Request::Pending* do_start_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    return started("all_gather", in, inner_.start_all_gather(bytes(in, block_bytes), bytes(out, size() * block_bytes)));
  }
  Request::Pending* do_start_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count,
                                                DType dtype) override {
    return started("reduce_scatter", in,
                   inner_.start_reduce_scatter_sum({in, Shape{size() * count}, dtype}, {out, Shape{count}, dtype}));
  }
  void do_all_reduce(std::byte* x, int64_t count, DType dtype, Reduction reduction) override {
    note("all_reduce", x);
    const Tensor all(x, Shape{count}, dtype);
    reduction == Reduction::Sum ? inner_.all_reduce_sum(all) : inner_.all_reduce_max(all);
  }
  void do_broadcast(std::byte* x, int64_t count, int root) override {
    note("broadcast", x);
    inner_.broadcast(bytes(x, count), root);
  }
  void do_barrier() override { inner_.barrier(); }
  Request::Pending* do_send(const std::byte* x, int64_t count, int to, int tag) override {
    return started("send", x, inner_.send(bytes(x, count), to, tag));
  }
  Request::Pending* do_receive(std::byte* x, int64_t count, int from, int tag) override {
    return started("receive", x, inner_.receive(bytes(x, count), from, tag));
  }

 private:
  struct Started final : Request::Pending {
    void wait() override {
      comm->note("wait " + what, in);
      request.wait();
    }
    void abandon() noexcept override { request = {}; }
    void release() noexcept override {}

    RecordingComm* comm = nullptr;
    std::string what;
    const void* in = nullptr;
    Request request;
  };

  // Every dtype has an even number of bytes.
  static ConstTensor bytes(const std::byte* x, int64_t count) { return {x, Shape{count / 2}, DType::U16}; }
  static Tensor bytes(std::byte* x, int64_t count) { return {x, Shape{count / 2}, DType::U16}; }

  void note(const std::string& what, const void* in) { events_.push_back({what, in, work_()}); }
  Request::Pending* started(const std::string& what, const void* in, Request request) {
    note("start " + what, in);
    Started& pending = started_.emplace_back();
    pending.comm = this;
    pending.what = what;
    pending.in = in;
    pending.request = std::move(request);
    return &pending;
  }

  Comm& inner_;
  std::function<int64_t()> work_;
  std::vector<Event> events_;
  std::deque<Started> started_;
};

}  // namespace tessera::testing
