#include "parallel/comm_mpi.h"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>

#include "parallel/shard.h"
#include "tensor/buffer.h"

namespace tessera {
namespace {

// Measured on two ranks of one host: whole blocks are exchanged at 12 GB/s each way, chunks of 1 MiB at 11, of 256 KiB
// at 10, of 64 KiB at 6.
constexpr int64_t kLargestChunk = int64_t{1} << 20;
constexpr int64_t kSmallestChunk = int64_t{1} << 14;
constexpr int64_t kStaging = int64_t{4} << 20;
// All-reduces of up to this many bytes over all ranks gather everything everywhere: one call instead of two exchanges.
constexpr int64_t kSmall = int64_t{1} << 16;
// All-gathers of blocks from this size on, over up to so many ranks, send each block straight to each peer: measured on
// two and four ranks, at least as fast as MPI_Allgather, and faster from 128 KiB on. MPI has trees and rings for
// others.
constexpr int64_t kDirectBytes = int64_t{1} << 15;
constexpr int kDirectRanks = 8;

int64_t chunk_bytes(int ranks) {
  if (ranks == 1) return 0;
  const int64_t chunk = kStaging / (2 * (ranks - 1)) / 4096 * 4096;  // whole pages
  return std::clamp(chunk, kSmallestChunk, kLargestChunk);
}

void check_mpi(int code, const char* call, const std::string& group) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw IoError(fmt::format("{} in group {} failed: {}", call, group, std::string(text, length)));
}

// An MPI communicator of our own. Not freed while an exception is on its way, since peers may never come.
class Handle {
 public:
  explicit Handle(MPI_Comm comm) : comm_(comm) { MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN); }
  Handle(Handle&& other) noexcept : comm_(std::exchange(other.comm_, MPI_COMM_NULL)), exceptions_(other.exceptions_) {}
  Handle& operator=(Handle&&) = delete;
  ~Handle() {
    if (comm_ != MPI_COMM_NULL && std::uncaught_exceptions() <= exceptions_) MPI_Comm_free(&comm_);
  }
  MPI_Comm get() const { return comm_; }

 private:
  MPI_Comm comm_;
  int exceptions_ = std::uncaught_exceptions();
};

Handle duplicate(MPI_Comm comm, const std::string& group) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(comm, &copy), "MPI_Comm_dup", group);
  return Handle(copy);
}

int rank_in(MPI_Comm comm) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  return rank;
}

int size_of_group(MPI_Comm comm) {
  int size = 0;
  MPI_Comm_size(comm, &size);
  return size;
}

class MpiComm;

struct Message final : Request::Pending {
  explicit Message(MpiComm& comm_) : comm(comm_) {}
  void wait() override;
  void abandon() noexcept override;
  void release() noexcept override;

  MpiComm& comm;
  bool is_send = false;
  int peer = 0;
  int64_t bytes = 0;
  std::vector<MPI_Request> requests;  // several when one call cannot count the bytes
};

class MpiComm final : public Comm {
 public:
  MpiComm(Handle messages, const std::string& name, int64_t largest_count)
      : Comm(rank_in(messages.get()), size_of_group(messages.get()), name),
        messages_(std::move(messages)),
        collectives_(duplicate(messages_.get(), name)),
        largest_count_(largest_count),
        chunk_(chunk_bytes(size())),
        staging_(Device::Cpu, mpi_staging_bytes(size())),
        parts_(size()) {
    for (std::vector<MPI_Request>& half : exchange_) half.reserve(2 * (size() - 1));
  }

  std::unique_ptr<Comm> split(int color, const std::string& name) override;
  int64_t staging_bytes() const override { return staging_.bytes(); }

 protected:
  void do_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override;
  void do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) override;
  void do_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count, DType dtype) override;
  void do_all_reduce(std::byte* x, int64_t count, DType dtype, Reduction reduction) override;
  void do_broadcast(std::byte* x, int64_t bytes, int root) override;
  void do_barrier() override { check_mpi(MPI_Barrier(collectives_.get()), "MPI_Barrier", name()); }
  Request::Pending* do_send(const std::byte* x, int64_t bytes, int to, int tag) override;
  Request::Pending* do_receive(std::byte* x, int64_t bytes, int from, int tag) override;

 private:
  friend struct Message;

  // One round of an exchange; two rounds may be under way at once. Empty pieces are not sent.
  void post_send(int round, int to, const std::byte* data, int64_t bytes);
  void post_receive(int round, int from, std::byte* data, int64_t bytes);
  void finish(int round);
  int peer_after(int k) const { return (rank() + k) % size(); }
  int peer_before(int k) const { return (rank() + size() - k) % size(); }

  // The other ranks' parts of x [count], whose own part is in place.
  void gather_parts(std::byte* x, int64_t count, DType dtype);
  // out = reduction over ranks of this rank's part of in [count].
  void reduce_part(const std::byte* in, int64_t count, std::byte* out, DType dtype, Reduction reduction);

  Message* take_message(bool is_send, int peer, int64_t bytes);

  Handle messages_;
  Handle collectives_;  // a communicator apart, so that exchanges need no tags of their own
  int64_t largest_count_;
  int64_t chunk_;
  Buffer staging_;
  std::vector<const std::byte*> parts_;
  std::vector<MPI_Request> exchange_[2];
  std::deque<Message> all_messages_;  // all that were ever needed at once
  std::vector<Message*> free_messages_;
};

std::unique_ptr<Comm> MpiComm::split(int color, const std::string& name) {
  TESSERA_CHECK(color >= 0, "split of " + this->name() + " by color " + std::to_string(color));
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(messages_.get(), color, rank(), &part), "MPI_Comm_split", this->name());
  return std::make_unique<MpiComm>(Handle(part), name, largest_count_);
}

void MpiComm::post_send(int round, int to, const std::byte* data, int64_t bytes) {
  if (bytes == 0) return;
  MPI_Request& request = exchange_[round].emplace_back();
  check_mpi(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, to, 0, collectives_.get(), &request), "MPI_Isend",
            name());
}

void MpiComm::post_receive(int round, int from, std::byte* data, int64_t bytes) {
  if (bytes == 0) return;
  MPI_Request& request = exchange_[round].emplace_back();
  check_mpi(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, from, 0, collectives_.get(), &request), "MPI_Irecv",
            name());
}

void MpiComm::finish(int round) {
  std::vector<MPI_Request>& requests = exchange_[round];
  check_mpi(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE), "MPI_Waitall",
            name());
  requests.clear();
}

void MpiComm::do_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) {
  std::byte* own = out + rank() * block_bytes;
  if ((block_bytes < kDirectBytes || size() > kDirectRanks) && block_bytes <= largest_count_) {
    if (in != own) std::memcpy(own, in, block_bytes);
    check_mpi(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, out, static_cast<int>(block_bytes), MPI_BYTE,
                            collectives_.get()),
              "MPI_Allgather", name());
    return;
  }
  for (int64_t begin = 0; begin < block_bytes; begin += largest_count_) {
    const int64_t bytes = std::min(largest_count_, block_bytes - begin);
    for (int k = 1; k < size(); ++k) {
      post_receive(0, peer_before(k), out + peer_before(k) * block_bytes + begin, bytes);
      post_send(0, peer_after(k), in + begin, bytes);
    }
    if (in != own) std::memcpy(own + begin, in + begin, bytes);  // while peers come
    finish(0);
  }
}

void MpiComm::do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) {
  for (int64_t begin = 0; begin < block_bytes; begin += largest_count_) {
    const int64_t bytes = std::min(largest_count_, block_bytes - begin);
    for (int k = 1; k < size(); ++k) {
      post_receive(0, peer_before(k), out + peer_before(k) * block_bytes + begin, bytes);
      post_send(0, peer_after(k), in + peer_after(k) * block_bytes + begin, bytes);
    }
    finish(0);
  }
  std::memcpy(out + rank() * block_bytes, in + rank() * block_bytes, block_bytes);
}

void MpiComm::gather_parts(std::byte* x, int64_t count, DType dtype) {
  const int64_t element = size_of(dtype);
  const int64_t most = largest_count_ / element;
  for (int64_t begin = 0; begin < shard_rows(count, size()); begin += most) {
    const auto piece = [&](int r) {
      const Interval part = shard({0, count}, size(), r);
      return intersect(part, {part.begin + begin, part.begin + begin + most});
    };
    const Interval own = piece(rank());
    for (int k = 1; k < size(); ++k) {
      const Interval theirs = piece(peer_before(k));
      post_receive(0, peer_before(k), x + theirs.begin * element, theirs.size() * element);
      post_send(0, peer_after(k), x + own.begin * element, own.size() * element);
    }
    finish(0);
  }
}

void MpiComm::reduce_part(const std::byte* in, int64_t count, std::byte* out, DType dtype, Reduction reduction) {
  const int64_t element = size_of(dtype);
  const int64_t most = std::min(chunk_, largest_count_) / element;
  const Interval own = shard({0, count}, size(), rank());
  const auto piece = [&](int r, int64_t chunk) {
    const Interval part = shard({0, count}, size(), r);
    return intersect(part, {part.begin + chunk * most, part.begin + (chunk + 1) * most});
  };
  // One place for each peer, twice: the next chunk is on its way while this one is added up.
  const auto place = [&](int64_t chunk, int peer) {
    const int64_t index = peer < rank() ? peer : peer - 1;
    return static_cast<std::byte*>(staging_.data()) + ((chunk % 2) * (size() - 1) + index) * chunk_;
  };
  const auto post = [&](int64_t chunk) {
    for (int k = 1; k < size(); ++k) {
      const int from = peer_before(k), to = peer_after(k);
      post_receive(chunk % 2, from, place(chunk, from), piece(rank(), chunk).size() * element);
      const Interval theirs = piece(to, chunk);
      post_send(chunk % 2, to, in + theirs.begin * element, theirs.size() * element);
    }
  };
  const int64_t chunks = (shard_rows(count, size()) + most - 1) / most;
  post(0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (chunk + 1 < chunks) post(chunk + 1);
    finish(chunk % 2);
    const Interval mine = piece(rank(), chunk);
    for (int r = 0; r < size(); ++r) parts_[r] = r == rank() ? in + mine.begin * element : place(chunk, r);
    reduce_in_rank_order(parts_, out + (mine.begin - own.begin) * element, mine.size(), dtype, reduction);
  }
}

void MpiComm::do_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count, DType dtype) {
  reduce_part(in, size() * count, out, dtype, Reduction::Sum);
}

void MpiComm::do_all_reduce(std::byte* x, int64_t count, DType dtype, Reduction reduction) {
  const int64_t bytes = count * size_of(dtype);
  if (bytes * size() <= std::min(kSmall, staging_.bytes())) {
    auto* all = static_cast<std::byte*>(staging_.data());
    do_all_gather(x, all, bytes);
    for (int r = 0; r < size(); ++r) parts_[r] = all + r * bytes;
    reduce_in_rank_order(parts_, x, count, dtype, reduction);
    return;
  }
  const Interval own = shard({0, count}, size(), rank());
  reduce_part(x, count, x + own.begin * size_of(dtype), dtype, reduction);
  gather_parts(x, count, dtype);
}

void MpiComm::do_broadcast(std::byte* x, int64_t bytes, int root) {
  for (int64_t begin = 0; begin < bytes; begin += largest_count_) {
    const int count = static_cast<int>(std::min(largest_count_, bytes - begin));
    check_mpi(MPI_Bcast(x + begin, count, MPI_BYTE, root, collectives_.get()), "MPI_Bcast", name());
  }
}

Message* MpiComm::take_message(bool is_send, int peer, int64_t bytes) {
  if (free_messages_.empty()) {
    free_messages_.reserve(all_messages_.size() + 1);  // so that release() never allocates
    free_messages_.push_back(&all_messages_.emplace_back(*this));
  }
  Message* message = free_messages_.back();
  free_messages_.pop_back();
  message->is_send = is_send;
  message->peer = peer;
  message->bytes = bytes;
  message->requests.clear();
  return message;
}

Request::Pending* MpiComm::do_send(const std::byte* x, int64_t bytes, int to, int tag) {
  Message* message = take_message(true, to, bytes);
  for (int64_t begin = 0; begin < bytes; begin += largest_count_) {
    const int count = static_cast<int>(std::min(largest_count_, bytes - begin));
    MPI_Request& request = message->requests.emplace_back();
    check_mpi(MPI_Isend(x + begin, count, MPI_BYTE, to, tag, messages_.get(), &request), "MPI_Isend", name());
  }
  return message;
}

Request::Pending* MpiComm::do_receive(std::byte* x, int64_t bytes, int from, int tag) {
  Message* message = take_message(false, from, bytes);
  for (int64_t begin = 0; begin < bytes; begin += largest_count_) {
    const int count = static_cast<int>(std::min(largest_count_, bytes - begin));
    MPI_Request& request = message->requests.emplace_back();
    check_mpi(MPI_Irecv(x + begin, count, MPI_BYTE, from, tag, messages_.get(), &request), "MPI_Irecv", name());
  }
  return message;
}

void Message::wait() {
  int64_t received = 0;
  for (MPI_Request& request : requests) {
    MPI_Status status;
    check_mpi(MPI_Wait(&request, &status), is_send ? "MPI_Wait for a send" : "MPI_Wait for a receive", comm.name());
    int count = 0;
    if (!is_send) MPI_Get_count(&status, MPI_BYTE, &count);
    received += count;
  }
  if (!is_send && received != bytes) {
    throw InternalError(fmt::format("a message in group {} from rank {} has {} bytes, not the {} that were expected",
                                    comm.name(), peer, received, bytes));
  }
}

void Message::abandon() noexcept {
  for (MPI_Request& request : requests) {
    if (request == MPI_REQUEST_NULL) continue;
    if (is_send) {
      MPI_Request_free(&request);  // sends cannot be cancelled everywhere; the job is about to end
    } else {
      MPI_Cancel(&request);
      MPI_Wait(&request, MPI_STATUS_IGNORE);  // returns: received or cancelled
    }
  }
}

void Message::release() noexcept { comm.free_messages_.push_back(this); }

}  // namespace

int64_t mpi_staging_bytes(int ranks) { return 2 * (ranks - 1) * chunk_bytes(ranks); }

MpiSession::MpiSession() : exceptions_(std::uncaught_exceptions()) {
  int started = 0;
  MPI_Initialized(&started);
  TESSERA_CHECK(started == 0, "MPI is started once in a process");
  // Other MPIs ignore it. A user's own setting stays.
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  int provided = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread", "world");
  if (provided < MPI_THREAD_SERIALIZED)
    throw IoError("this MPI does not let threads take turns (MPI_THREAD_SERIALIZED)");
}

MpiSession::~MpiSession() {
  if (std::uncaught_exceptions() <= exceptions_) MPI_Finalize();
}

std::unique_ptr<Comm> MpiSession::world(int64_t largest_count) {
  TESSERA_CHECK(largest_count >= 8 && largest_count <= INT_MAX, "bytes of one MPI call");
  return std::make_unique<MpiComm>(duplicate(MPI_COMM_WORLD, "world"), "world", largest_count);
}

void MpiSession::abort(int exit_code) noexcept {
  int started = 0, ended = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&ended);
  if (started != 0 && ended == 0) MPI_Abort(MPI_COMM_WORLD, exit_code);
}

}  // namespace tessera
