// A group of ranks that communicate. One virtual class; comm_threads (ranks are threads of one process) and comm_mpi
// implement it.
//
// Every rank of the group makes the same calls in the same order with the same shapes and dtypes. Groups of one and
// tensors of zero elements are ordinary. A call returns when the rank's own tensors may be used again.
//
// Sums add the ranks' values in rank order, in the accumulation dtype, and round once: bitwise the same on every rank,
// from run to run, and over threads or MPI alike.
//
// When a rank fails, its peers must not wait for ever: comm_threads wakes them with an error (see run_ranks in
// comm_threads.h), and under MPI the program aborts the job.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "parallel/traffic.h"
#include "tensor/tensor.h"

namespace tessera {

// A message under way. wait() returns when the tensor may be used (received) or reused (sent); the destructor waits.
class Request {
 public:
  class Pending {
   public:
    virtual ~Pending() = default;
    virtual void wait() = 0;
  };

  Request() = default;
  explicit Request(std::unique_ptr<Pending> pending) : pending_(std::move(pending)) {}
  Request(Request&&) = default;
  Request& operator=(Request&& other);  // waits for what it replaces
  ~Request();
  void wait();

 private:
  std::unique_ptr<Pending> pending_;
};

class Comm {
 public:
  virtual ~Comm() = default;
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

  // out's part r becomes what rank r has in its part for this rank; both [size * rows, ...], not aliased.
  void all_to_all(const ConstTensor& in, const Tensor& out);

  // x becomes the root's x.
  void broadcast(const Tensor& x, int root);

  // Returns when every rank has called it.
  void barrier();

  // Messages between two ranks arrive in the order sent, for each tag. Tags are 0 to 32767. x must stay until wait().
  [[nodiscard]] Request send(const ConstTensor& x, int to, int tag = 0);
  [[nodiscard]] Request receive(const Tensor& x, int from, int tag = 0);

  // The sum (maximum) over ranks of one number.
  double sum(double value);
  int64_t sum(int64_t value);
  double max(double value);

  // The ranks with equal color, ordered by rank here, form a new group. Every rank of this group must call it.
  virtual std::unique_ptr<Comm> split(int color, const std::string& name) = 0;

  const Traffic& traffic() const { return traffic_; }

 protected:
  Comm(int rank, int size, std::string name) : rank_(rank), size_(size), name_(std::move(name)) {}

  // What a backend supplies: raw bytes, checked, never for groups of one or zero bytes.
  // Block r of an exchange starts at in + r * block_bytes.
  virtual void do_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) = 0;
  virtual void do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) = 0;
  // out [count] = reduction over ranks, in rank order, of elements [first(r), first(r+1)) of in, see reduce blocks in
  // comm.cc.
  virtual void do_reduce_scatter(const ConstTensor& in, const Tensor& out, bool maximum) = 0;
  virtual void do_broadcast(std::byte* x, int64_t bytes, int root) = 0;
  virtual void do_barrier() = 0;
  virtual std::unique_ptr<Request::Pending> do_send(const std::byte* x, int64_t bytes, int to, int tag) = 0;
  virtual std::unique_ptr<Request::Pending> do_receive(std::byte* x, int64_t bytes, int from, int tag) = 0;
  // x = reduction in rank order over ranks; x is whole on every rank.
  virtual void do_all_reduce(const Tensor& x, bool maximum) = 0;

 private:
  int rank_;
  int size_;
  std::string name_;
  Traffic traffic_;
};

}  // namespace tessera
