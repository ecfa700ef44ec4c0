// A group of ranks that communicate. One virtual class; comm_threads (ranks are threads of one process) and comm_mpi
// implement it. Both move host memory; tensors on a device are moved by a DeviceExchange that the group was given
// (parallel/comm/device_link.h): comm_nccl, or comm_staged, which goes through host memory and so over threads and MPI.
//
// Every rank of the group makes the same calls in the same order with the same shapes and dtypes. Groups of one and
// tensors of zero elements are ordinary. A call returns when the rank's own tensors may be used again.
//
// Sums add the ranks' values in rank order, in the accumulation dtype, and round once: bitwise the same on every rank,
// from run to run, over threads or MPI, and staged. comm_nccl alone promises less: the same on every rank, in NCCL's
// order and arithmetic, unless comm_rank_order stands before it. Sums and maxima take F64, F32, BF16, I32 and U32
// (integers wrap around; a NaN on any rank makes the maximum NaN, but over NCCL). A Comm and its requests belong to one
// thread.
//
// When a rank fails, its peers must not wait for ever: comm_threads wakes them with an error (see run_ranks in
// comm_threads.h), and under MPI the program aborts the job.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/comm/reduction.h"
#include "parallel/comm/traffic.h"
#include "tensor/tensor.h"

namespace tessera {

// A message or a started collective under way. wait() returns when the tensors may be used (received) or reused (sent);
// the destructor waits, unless an exception is on its way: then it is withdrawn. Must not outlive its Comm.
class Request {
 public:
  // What a backend supplies; it comes from the Comm's pool and goes back there.
  class Pending {
   public:
    virtual void wait() = 0;
    virtual bool over() { return false; }  // of messages: whether wait() would return at once
    virtual void abandon() noexcept = 0;   // returns when the tensor is no longer touched
    virtual void release() noexcept = 0;   // the last call

   protected:
    ~Pending() = default;
  };

  Request() = default;
  // timed: to whose seconds the waiting is added; may be null.
  explicit Request(Pending* pending, Traffic* timed = nullptr) : pending_(pending), timed_(timed) {}
  Request(Request&& other) noexcept : pending_(std::exchange(other.pending_, nullptr)), timed_(other.timed_) {}
  Request& operator=(Request&& other) noexcept;  // finishes what it replaces, as the destructor does
  ~Request() { finish(); }
  void wait();
  bool pending() const { return pending_ != nullptr; }  // wait() was not called yet

 private:
  void finish() noexcept;

  Pending* pending_ = nullptr;
  Traffic* timed_ = nullptr;
};

// What moves the bytes of a group, in one kind of memory: called with checked arguments, never for groups of one or
// zero bytes (messages may go to the rank itself).
class CommBackend {
 public:
  virtual ~CommBackend() = default;

  // MPI guarantees one more tag, which is for what a DeviceExchange has its ranks tell each other.
  static constexpr int kTags = 32767;

  // Block r of an exchange starts at r * block_bytes. in may be block rank() of out.
  virtual void do_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) = 0;
  virtual void do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) = 0;
  // out [count] = sum over ranks of elements [rank() * count, (rank() + 1) * count) of in. out may be that part of in.
  virtual void do_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count, DType dtype) = 0;
  virtual Request::Pending* do_start_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) = 0;
  virtual Request::Pending* do_start_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count,
                                                        DType dtype) = 0;
  // x [count] = reduction over ranks of x.
  virtual void do_all_reduce(std::byte* x, int64_t count, DType dtype, Reduction reduction) = 0;
  virtual void do_broadcast(std::byte* x, int64_t bytes, int root) = 0;
  virtual Request::Pending* do_send(const std::byte* x, int64_t bytes, int to, int tag) = 0;
  virtual Request::Pending* do_receive(std::byte* x, int64_t bytes, int from, int tag) = 0;
};

class Comm;

// What moves tensors on one device. A call queues the work behind what the context's stream has and makes that stream wait for
// it; what the host then waits for is a backend's own affair.
class DeviceExchange : public CommBackend {
 public:
  // An exchange like this one for a group that was split off by this color, which must outlive it.
  virtual std::unique_ptr<DeviceExchange> for_group(Comm& group, int color) = 0;
  // See Comm::expect_device_tensors() and connect_device().
  virtual void expect() {}
  virtual void connect() {}
  virtual void abandon() noexcept {}
  // Before this rank's host waits for other ranks elsewhere: returns when none of them needs it to go on with messages
  // that it has posted.
  virtual void settle() = 0;
  virtual void copy(const std::byte* from, std::byte* to, int64_t bytes) = 0;
};

class Comm : protected CommBackend {
 public:
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }  // "tp", "dp", "world"

  // x becomes the sum (maximum) over ranks of x.
  void all_reduce_sum(const Tensor& x);
  void all_reduce_max(const Tensor& x);

  // out [size * rows, ...] becomes the ranks' inputs [rows, ...] in rank order. in may be its own part of out.
  void all_gather(const ConstTensor& in, const Tensor& out);

  // out [rows, ...] becomes this rank's part of the sum over ranks of in [size * rows, ...]. out may be its part of in.
  void reduce_scatter_sum(const ConstTensor& in, const Tensor& out);

  // all_gather and reduce_scatter_sum, under way when the call returns: the same bits, the same bytes, counted at the start; seconds are
  // those spent in start and wait(). Until wait() returns, `in` must not be written and `out` must be neither read nor
  // written. Anything else may run meanwhile: compute, messages, and other calls of this group and of others, started
  // or not. All ranks start in the same order and wait in the same order; a wait() may take until the peers wait too.
  // A call may finish what its group has started before it.
  //
  // A backend on a GPU runs them on a stream of its own, behind what the context's stream has so far; there wait()
  // makes the context's stream wait, and not the host.
  [[nodiscard]] Request start_all_gather(const ConstTensor& in, const Tensor& out);
  [[nodiscard]] Request start_reduce_scatter_sum(const ConstTensor& in, const Tensor& out);

  // out's part r becomes what rank r has in its part for this rank; both [size * rows, ...], not aliased.
  void all_to_all(const ConstTensor& in, const Tensor& out);

  // x becomes the root's x.
  void broadcast(const Tensor& x, int root);

  // Returns when every rank has called it.
  void barrier();

  // Messages between two ranks arrive in the order sent, for each tag. Tags are 0 to 32766. x must stay until wait().
  // A send's wait() may take until the peer has posted its receive: two ranks that exchange messages post both before
  // they wait for either. Sender and receiver agree on the bytes; `to` may be the rank itself. On a device, a
  // collective of host memory may take until the peers have posted the other halves of this rank's messages too.
  [[nodiscard]] Request send(const ConstTensor& x, int to, int tag = 0);
  [[nodiscard]] Request receive(const Tensor& x, int from, int tag = 0);

  // The sum (maximum) over ranks of one number.
  double sum(double value);
  int64_t sum(int64_t value);
  double max(double value);

  // The ranks with equal color (>= 0), ordered by rank here, form a new group. Every rank of this group must call it.
  // It moves tensors on the device that this group moves.
  std::unique_ptr<Comm> split(int color, const std::string& name);

  // Lets the group, and all that are split from it from now on, move tensors on a device; null: no more.
  void move_device_tensors(std::unique_ptr<DeviceExchange> exchange) { device_ = std::move(exchange); }
  // The group's collectives will move tensors on a device: connect_device() makes what they need for it.
  void expect_device_tensors() {
    if (device_ != nullptr) device_->expect();
  }
  // Called on the group that a DeviceLink was made for, it makes at once what the groups split from it, as far as any
  // rank expects them to move such tensors, would else make at their first call. Collective.
  void connect_device() {
    if (device_ != nullptr) device_->connect();
  }
  // Ends what is under way on the device, without waiting for other ranks; the group, and those split from it, move
  // device tensors no more. For a rank that fails.
  void abandon_device() noexcept {
    if (device_ != nullptr) device_->abandon();
  }
  // Throws when a rank has failed and this one can know (comm_threads: PeerFailed), for whoever waits for something
  // else.
  virtual void check_peers() {}
  // What moves this group's host memory. A DeviceExchange tells other ranks things through it, or moves its tensors;
  // nothing of that is checked or counted. For nobody else.
  CommBackend& host_backend() { return *this; }

  const Traffic& traffic() const { return traffic_; }

  // Memory that the group holds for its exchanges of host memory, allocated when it is made.
  virtual int64_t staging_bytes() const { return 0; }

 protected:
  Comm(int rank, int size, std::string name);

  // What a backend supplies besides the exchange of host memory.
  virtual void do_barrier() = 0;
  virtual std::unique_ptr<Comm> do_split(int color, const std::string& name) = 0;

 private:
  void all_reduce(const Tensor& x, Reduction reduction);
  void begin_all_gather(const ConstTensor& in, const Tensor& out, const char* call);
  void begin_reduce_scatter_sum(const ConstTensor& in, const Tensor& out, const char* call);
  void check_message(const ConstTensor& x, int peer, int tag, const char* call) const;
  template <class T>
  void gather_scalars(T value);
  void check_memory(const ConstTensor& x, const char* call) const;
  void check_parts(const ConstTensor& whole, const ConstTensor& part, const char* call) const;
  // What moves a message's tensor, and what a collective's: before a collective of host memory the device's messages
  // are settled.
  CommBackend& message_backend(const ConstTensor& x) {
    return x.device() == Device::Cpu ? static_cast<CommBackend&>(*this) : *device_;
  }
  CommBackend& backend(const ConstTensor& x) {
    if (x.device() == Device::Cpu) settle();
    return message_backend(x);
  }
  void settle() {
    if (device_ != nullptr) device_->settle();
  }
  void copy(const ConstTensor& from, const Tensor& to);

  int rank_;
  int size_;
  std::string name_;
  Traffic traffic_;
  std::unique_ptr<DeviceExchange> device_;
  std::vector<double> scalars_;  // one a rank, for sum() and max() of numbers
};

}  // namespace tessera
