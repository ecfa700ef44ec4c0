#include "parallel/comm/comm.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <optional>

#include "parallel/comm/all_reduce_bytes.h"

namespace tessera {
namespace {

const std::byte* bytes_of(const ConstTensor& x) { return static_cast<const std::byte*>(x.data()); }
std::byte* bytes_of(const Tensor& x) { return static_cast<std::byte*>(x.data()); }

bool overlap(const std::byte* a, int64_t a_bytes, const std::byte* b, int64_t b_bytes) {
  const std::less<const std::byte*> before;
  return a_bytes > 0 && b_bytes > 0 && before(a, b + b_bytes) && before(b, a + a_bytes);
}

// A part may be its own place in the whole, and nothing between.
void check_alias(const ConstTensor& whole, const ConstTensor& part, int rank, const char* call) {
  const bool in_place = part.data() == bytes_of(whole) + rank * part.bytes();
  TESSERA_CHECK(in_place || !overlap(bytes_of(whole), whole.bytes(), bytes_of(part), part.bytes()),
                std::string(call) + ": the part overlaps the whole, but is not this rank's part of it");
}

// Adds the time until it ends to a group's seconds.
class Stopwatch {
 public:
  explicit Stopwatch(Traffic& traffic) : traffic_(traffic), start_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() { traffic_.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  Traffic& traffic_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace

Request& Request::operator=(Request&& other) noexcept {
  if (this != &other) {
    finish();
    pending_ = std::exchange(other.pending_, nullptr);
    timed_ = other.timed_;
  }
  return *this;
}

void Request::wait() {
  if (pending_ == nullptr) return;
  struct Release {
    Pending* pending;
    ~Release() { pending->release(); }
  } release{std::exchange(pending_, nullptr)};
  std::optional<Stopwatch> watch;
  if (timed_ != nullptr) watch.emplace(*timed_);
  release.pending->wait();
}

void Request::finish() noexcept {
  if (pending_ == nullptr) return;
  // Waiting for a peer while an exception unwinds the stack could hide the exception for ever.
  if (std::uncaught_exceptions() > 0) {
    pending_->abandon();
    std::exchange(pending_, nullptr)->release();
    return;
  }
  try {
    wait();
  } catch (const std::exception&) {
    // A destructor cannot throw. The failure is the group's: its next call throws it again.
  }
}

Comm::Comm(int rank, int size, std::string name) : rank_(rank), size_(size), name_(std::move(name)), scalars_(size) {}

void Comm::check_memory(const ConstTensor& x, const char* call) const {
  TESSERA_CHECK(x.device() == Device::Cpu || device_ != nullptr,
                std::string(call) + " of a tensor on a device, and the group " + name_ + " moves host memory alone");
  TESSERA_CHECK(x.data() != nullptr || x.size() == 0, std::string(call) + " of a tensor without memory");
}

// whole [size * rows, ...] against part [rows, ...]: equal but for dim 0.
void Comm::check_parts(const ConstTensor& whole, const ConstTensor& part, const char* call) const {
  check_memory(whole, call);
  check_memory(part, call);
  TESSERA_CHECK(whole.device() == part.device(), std::string(call) + " between two devices");
  TESSERA_CHECK(whole.dtype() == part.dtype(), std::string(call) + " between two dtypes");
  TESSERA_CHECK(part.rank() > 0 && whole.rank() > 0, std::string(call) + " of a tensor without rows");
  TESSERA_CHECK_EQ(whole.shape(), part.shape().with_rows(part.dim(0) * size_), call);
}

void Comm::copy(const ConstTensor& from, const Tensor& to) {
  if (from.data() == to.data() || from.bytes() == 0) return;
  if (from.device() != Device::Cpu) return device_->copy(bytes_of(from), bytes_of(to), from.bytes());
  std::memcpy(to.data(), from.data(), from.bytes());
}

std::unique_ptr<Comm> Comm::split(int color, const std::string& name) {
  settle();
  std::unique_ptr<Comm> part = do_split(color, name);
  if (device_ != nullptr) part->move_device_tensors(device_->for_group(*part, color));
  return part;
}

void Comm::all_reduce(const Tensor& x, Reduction reduction) {
  check_memory(x, "all_reduce");
  TESSERA_CHECK(x.dtype() != DType::U16, "no reduction over ranks for U16");
  traffic_.add(Collective::AllReduce, all_reduce_bytes(x.size(), x.dtype(), rank_, size_));
  if (size_ == 1 || x.size() == 0) return;
  const Stopwatch watch(traffic_);
  backend(x).do_all_reduce(bytes_of(x), x.size(), x.dtype(), reduction);
}

void Comm::all_reduce_sum(const Tensor& x) { all_reduce(x, Reduction::Sum); }
void Comm::all_reduce_max(const Tensor& x) { all_reduce(x, Reduction::Max); }

// Checks and counts.
void Comm::begin_all_gather(const ConstTensor& in, const Tensor& out, const char* call) {
  check_parts(out, in, call);
  check_alias(out, in, rank_, call);
  traffic_.add(Collective::AllGather, in.bytes() * (size_ - 1));
  if (size_ == 1) copy(in, out);
}

void Comm::begin_reduce_scatter_sum(const ConstTensor& in, const Tensor& out, const char* call) {
  check_parts(in, out, call);
  check_alias(in, out, rank_, call);
  TESSERA_CHECK(in.dtype() != DType::U16, "no reduction over ranks for U16");
  traffic_.add(Collective::ReduceScatter, out.bytes() * (size_ - 1));
  if (size_ == 1) copy(in, out);
}

void Comm::all_gather(const ConstTensor& in, const Tensor& out) {
  begin_all_gather(in, out, "all_gather");
  if (size_ == 1 || in.size() == 0) return;
  const Stopwatch watch(traffic_);
  backend(in).do_all_gather(bytes_of(in), bytes_of(out), in.bytes());
}

void Comm::reduce_scatter_sum(const ConstTensor& in, const Tensor& out) {
  begin_reduce_scatter_sum(in, out, "reduce_scatter_sum");
  if (size_ == 1 || out.size() == 0) return;
  const Stopwatch watch(traffic_);
  backend(in).do_reduce_scatter_sum(bytes_of(in), bytes_of(out), out.size(), out.dtype());
}

Request Comm::start_all_gather(const ConstTensor& in, const Tensor& out) {
  begin_all_gather(in, out, "start_all_gather");
  if (size_ == 1 || in.size() == 0) return {};
  const Stopwatch watch(traffic_);
  return Request(backend(in).do_start_all_gather(bytes_of(in), bytes_of(out), in.bytes()), &traffic_);
}

Request Comm::start_reduce_scatter_sum(const ConstTensor& in, const Tensor& out) {
  begin_reduce_scatter_sum(in, out, "start_reduce_scatter_sum");
  if (size_ == 1 || out.size() == 0) return {};
  const Stopwatch watch(traffic_);
  return Request(backend(in).do_start_reduce_scatter_sum(bytes_of(in), bytes_of(out), out.size(), out.dtype()),
                 &traffic_);
}

void Comm::all_to_all(const ConstTensor& in, const Tensor& out) {
  check_memory(in, "all_to_all");
  check_memory(out, "all_to_all");
  TESSERA_CHECK(in.device() == out.device(), "all_to_all between two devices");
  TESSERA_CHECK(in.dtype() == out.dtype(), "all_to_all between two dtypes");
  TESSERA_CHECK_EQ(in.shape(), out.shape(), "all_to_all");
  TESSERA_CHECK(in.rank() > 0 && in.dim(0) % size_ == 0, "all_to_all: rows are shared out evenly");
  TESSERA_CHECK(!overlap(bytes_of(in), in.bytes(), bytes_of(out), out.bytes()), "all_to_all is not done in place");
  const int64_t block_bytes = in.bytes() / size_;
  traffic_.add(Collective::AllToAll, block_bytes * (size_ - 1));
  if (size_ == 1) return copy(in, out);
  const Stopwatch watch(traffic_);
  if (block_bytes > 0) backend(in).do_all_to_all(bytes_of(in), bytes_of(out), block_bytes);
}

void Comm::broadcast(const Tensor& x, int root) {
  check_memory(x, "broadcast");
  TESSERA_CHECK(root >= 0 && root < size_, "broadcast from rank " + std::to_string(root) + " of " + name_);
  traffic_.add(Collective::Broadcast, rank_ == root && size_ > 1 ? x.bytes() : 0);
  const Stopwatch watch(traffic_);
  if (size_ > 1 && x.size() > 0) backend(x).do_broadcast(bytes_of(x), x.bytes(), root);
}

void Comm::barrier() {
  traffic_.add(Collective::Barrier, 0);
  const Stopwatch watch(traffic_);
  if (size_ == 1) return;
  settle();
  do_barrier();
}

void Comm::check_message(const ConstTensor& x, int peer, int tag, const char* call) const {
  check_memory(x, call);
  TESSERA_CHECK(peer >= 0 && peer < size_, std::string(call) + ": no rank " + std::to_string(peer) + " in " + name_);
  TESSERA_CHECK(tag >= 0 && tag < CommBackend::kTags, std::string(call) + ": tag " + std::to_string(tag));
}

Request Comm::send(const ConstTensor& x, int to, int tag) {
  check_message(x, to, tag, "send");
  traffic_.add(Collective::Send, to == rank_ ? 0 : x.bytes());
  const Stopwatch watch(traffic_);
  return x.size() == 0 ? Request() : Request(message_backend(x).do_send(bytes_of(x), x.bytes(), to, tag));
}

Request Comm::receive(const Tensor& x, int from, int tag) {
  check_message(x, from, tag, "receive");
  const Stopwatch watch(traffic_);
  return x.size() == 0 ? Request() : Request(message_backend(x).do_receive(bytes_of(x), x.bytes(), from, tag));
}

template <class T>
void Comm::gather_scalars(T value) {
  static_assert(sizeof(T) == sizeof(double));
  traffic_.add(Collective::AllReduce, all_reduce_bytes(1, DType::F64, rank_, size_));
  if (size_ == 1) {
    std::memcpy(scalars_.data(), &value, sizeof(T));
    return;
  }
  const Stopwatch watch(traffic_);
  settle();
  do_all_gather(reinterpret_cast<const std::byte*>(&value), reinterpret_cast<std::byte*>(scalars_.data()), sizeof(T));
}

double Comm::sum(double value) {
  gather_scalars(value);
  double total = scalars_[0];
  for (int r = 1; r < size_; ++r) total += scalars_[r];
  return total;
}

int64_t Comm::sum(int64_t value) {
  gather_scalars(value);
  int64_t total = 0;
  for (int r = 0; r < size_; ++r) {
    int64_t part;
    std::memcpy(&part, &scalars_[r], sizeof(part));
    total += part;
  }
  return total;
}

double Comm::max(double value) {
  gather_scalars(value);
  double largest = scalars_[0];
  for (int r = 1; r < size_; ++r) {
    if (!std::isnan(largest) && !(scalars_[r] <= largest)) largest = scalars_[r];
  }
  return largest;
}

}  // namespace tessera
