#include "parallel/comm/comm_mpi.h"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "parallel/comm/mpi_requests.h"
#include "tensor/interval.h"
#include "tensor/memory/buffer.h"

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

// What the calls on `collectives_` are told apart by, so that a started one may overtake another.
enum Tag : int { kExchange, kReduction, kStartedGather };

class MpiComm;

struct Message final : Request::Pending {
  explicit Message(MpiComm& comm_) : comm(comm_) {}
  void wait() override;
  bool over() override;
  void abandon() noexcept override { posted.withdraw(); }
  void release() noexcept override;

  MpiComm& comm;
  int peer = 0;
  int64_t bytes = 0;
  Posted posted;  // several when one call cannot count the bytes
};

// A collective that was started.
struct Started final : Request::Pending {
  explicit Started(MpiComm& comm_) : comm(comm_) {}
  void wait() override;
  void abandon() noexcept override;
  void release() noexcept override;

  MpiComm& comm;
  uint64_t reduction = 0;  // the number of a reduction; 0: a gather, in `posted`
  Posted posted;
};

class MpiComm final : public Comm {
 public:
  MpiComm(Handle messages, const std::string& name, int64_t largest_count)
      : Comm(rank_in(messages.get()), size_of_group(messages.get()), name),
        messages_(std::move(messages)),
        collectives_(duplicate(messages_.get(), name)),
        largest_count_(largest_count),
        chunk_(chunk_bytes(size())),
        staging_(Device::Cpu, mpi_staging_bytes(size()), "communication over MPI"),
        parts_(size()) {
    for (Posted* posted : {&exchange_, &rounds_[0], &rounds_[1]}) {
      posted->sends.reserve(size() - 1);
      posted->receives.reserve(size() - 1);
    }
  }

  ~MpiComm() override { move_device_tensors(nullptr); }  // it may have messages of its own under way here

  int64_t staging_bytes() const override { return staging_.bytes(); }

 protected:
  void do_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override;
  void do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) override;
  void do_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count, DType dtype) override;
  void do_all_reduce(std::byte* x, int64_t count, DType dtype, Reduction reduction) override;
  Request::Pending* do_start_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override;
  Request::Pending* do_start_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count,
                                                DType dtype) override;
  void do_broadcast(std::byte* x, int64_t bytes, int root) override;
  std::unique_ptr<Comm> do_split(int color, const std::string& name) override;
  void do_barrier() override { check_mpi(MPI_Barrier(collectives_.get()), "MPI_Barrier", name()); }
  Request::Pending* do_send(const std::byte* x, int64_t bytes, int to, int tag) override;
  Request::Pending* do_receive(std::byte* x, int64_t bytes, int from, int tag) override;

 private:
  friend struct Message;
  friend struct Started;

  // The sum of this rank's part, chunk by chunk through the staging buffer: two chunks are under way at once.
  struct PartReduction {
    uint64_t number = 0;
    const std::byte* in = nullptr;
    int64_t count = 0;  // of in
    std::byte* out = nullptr;
    DType dtype = DType::F32;
    Reduction reduction = Reduction::Sum;
    int64_t next = 0, chunks = 0;  // to be added up
  };

  // Empty pieces are not sent.
  void post_send(Posted& posted, int to, const std::byte* data, int64_t bytes, Tag tag);
  void post_receive(Posted& posted, int from, std::byte* data, int64_t bytes, Tag tag);
  int peer_after(int k) const { return (rank() + k) % size(); }
  int peer_before(int k) const { return (rank() + size() - k) % size(); }

  // The other ranks' parts of x [count], whose own part is in place.
  void gather_parts(std::byte* x, int64_t count, DType dtype);

  // out = reduction over ranks of this rank's part of in [count]; first finishes the one before.
  void begin_reduction(const std::byte* in, int64_t count, std::byte* out, DType dtype, Reduction reduction);
  void finish_reduction();
  void reduce_part(const std::byte* in, int64_t count, std::byte* out, DType dtype, Reduction reduction) {
    begin_reduction(in, count, out, dtype, reduction);
    finish_reduction();
  }
  Interval piece(int r, int64_t chunk) const;  // of rank r's part
  std::byte* place(int64_t chunk, int peer) const;
  void post_chunk(int64_t chunk);

  Handle messages_;
  Handle collectives_;  // a communicator apart from the messages' and their tags
  int64_t largest_count_;
  int64_t chunk_;
  Buffer staging_;
  std::vector<const std::byte*> parts_;
  Posted exchange_;
  PartReduction reduction_;  // the last one that was begun
  Posted rounds_[2];         // its chunks, by turns
  Pool<Message> message_pool_;
  Pool<Started> started_pool_;
};

std::unique_ptr<Comm> MpiComm::do_split(int color, const std::string& name) {
  TESSERA_CHECK(color >= 0, "split of " + this->name() + " by color " + std::to_string(color));
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(messages_.get(), color, rank(), &part), "MPI_Comm_split", this->name());
  return std::make_unique<MpiComm>(Handle(part), name, largest_count_);
}

void MpiComm::post_send(Posted& posted, int to, const std::byte* data, int64_t bytes, Tag tag) {
  if (bytes == 0) return;
  MPI_Request& request = posted.sends.emplace_back();
  check_mpi(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, to, tag, collectives_.get(), &request), "MPI_Isend",
            name());
}

void MpiComm::post_receive(Posted& posted, int from, std::byte* data, int64_t bytes, Tag tag) {
  if (bytes == 0) return;
  MPI_Request& request = posted.receives.emplace_back();
  check_mpi(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, from, tag, collectives_.get(), &request), "MPI_Irecv",
            name());
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
      post_receive(exchange_, peer_before(k), out + peer_before(k) * block_bytes + begin, bytes, kExchange);
      post_send(exchange_, peer_after(k), in + begin, bytes, kExchange);
    }
    if (in != own) std::memcpy(own + begin, in + begin, bytes);  // while peers come
    exchange_.finish(name());
  }
}

void MpiComm::do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) {
  for (int64_t begin = 0; begin < block_bytes; begin += largest_count_) {
    const int64_t bytes = std::min(largest_count_, block_bytes - begin);
    for (int k = 1; k < size(); ++k) {
      post_receive(exchange_, peer_before(k), out + peer_before(k) * block_bytes + begin, bytes, kExchange);
      post_send(exchange_, peer_after(k), in + peer_after(k) * block_bytes + begin, bytes, kExchange);
    }
    exchange_.finish(name());
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
      post_receive(exchange_, peer_before(k), x + theirs.begin * element, theirs.size() * element, kExchange);
      post_send(exchange_, peer_after(k), x + own.begin * element, own.size() * element, kExchange);
    }
    exchange_.finish(name());
  }
}

Interval MpiComm::piece(int r, int64_t chunk) const {
  const int64_t most = std::min(chunk_, largest_count_) / size_of(reduction_.dtype);
  const Interval part = shard({0, reduction_.count}, size(), r);
  return intersect(part, {part.begin + chunk * most, part.begin + (chunk + 1) * most});
}

std::byte* MpiComm::place(int64_t chunk, int peer) const {
  const int64_t index = peer < rank() ? peer : peer - 1;
  return static_cast<std::byte*>(staging_.data()) + ((chunk % 2) * (size() - 1) + index) * chunk_;
}

void MpiComm::post_chunk(int64_t chunk) {
  if (chunk >= reduction_.chunks) return;
  const int64_t element = size_of(reduction_.dtype);
  Posted& round = rounds_[chunk % 2];
  for (int k = 1; k < size(); ++k) {
    const int from = peer_before(k), to = peer_after(k);
    post_receive(round, from, place(chunk, from), piece(rank(), chunk).size() * element, kReduction);
    const Interval theirs = piece(to, chunk);
    post_send(round, to, reduction_.in + theirs.begin * element, theirs.size() * element, kReduction);
  }
}

void MpiComm::begin_reduction(const std::byte* in, int64_t count, std::byte* out, DType dtype, Reduction reduction) {
  finish_reduction();
  const int64_t most = std::min(chunk_, largest_count_) / size_of(dtype);
  reduction_ = {.number = reduction_.number + 1,
                .in = in,
                .count = count,
                .out = out,
                .dtype = dtype,
                .reduction = reduction,
                .next = 0,
                .chunks = (shard_rows(count, size()) + most - 1) / most};
  post_chunk(0);
  post_chunk(1);
}

void MpiComm::finish_reduction() {
  const int64_t element = size_of(reduction_.dtype);
  const Interval own = shard({0, reduction_.count}, size(), rank());
  for (int64_t& chunk = reduction_.next; chunk < reduction_.chunks; ++chunk) {
    rounds_[chunk % 2].finish(name());
    const Interval mine = piece(rank(), chunk);
    for (int r = 0; r < size(); ++r) parts_[r] = r == rank() ? reduction_.in + mine.begin * element : place(chunk, r);
    reduce_in_rank_order(parts_, reduction_.out + (mine.begin - own.begin) * element, mine.size(), reduction_.dtype,
                         reduction_.reduction);
    post_chunk(chunk + 2);
  }
}

void MpiComm::do_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count, DType dtype) {
  reduce_part(in, size() * count, out, dtype, Reduction::Sum);
}

void MpiComm::do_all_reduce(std::byte* x, int64_t count, DType dtype, Reduction reduction) {
  const int64_t bytes = count * size_of(dtype);
  if (bytes * size() <= std::min(kSmall, staging_.bytes())) {
    finish_reduction();  // its staging
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

Request::Pending* MpiComm::do_start_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) {
  Started* started = started_pool_.take(*this);
  started->reduction = 0;
  for (int64_t begin = 0; begin < block_bytes; begin += largest_count_) {
    const int64_t bytes = std::min(largest_count_, block_bytes - begin);
    for (int k = 1; k < size(); ++k) {
      post_receive(started->posted, peer_before(k), out + peer_before(k) * block_bytes + begin, bytes, kStartedGather);
      post_send(started->posted, peer_after(k), in + begin, bytes, kStartedGather);
    }
  }
  if (std::byte* own = out + rank() * block_bytes; in != own) std::memcpy(own, in, block_bytes);
  return started;
}

Request::Pending* MpiComm::do_start_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count,
                                                       DType dtype) {
  begin_reduction(in, size() * count, out, dtype, Reduction::Sum);
  Started* started = started_pool_.take(*this);
  started->reduction = reduction_.number;
  return started;
}

void Started::wait() {
  if (reduction == 0)
    posted.finish(comm.name());
  else if (reduction == comm.reduction_.number)  // else a later call has finished it
    comm.finish_reduction();
}

void Started::abandon() noexcept {
  posted.withdraw();
  if (reduction != comm.reduction_.number) return;
  for (Posted& round : comm.rounds_) round.withdraw();
  comm.reduction_.next = comm.reduction_.chunks;
}

void Started::release() noexcept {
  posted.clear();
  comm.started_pool_.give_back(this);
}

Request::Pending* MpiComm::do_send(const std::byte* x, int64_t bytes, int to, int tag) {
  Message* message = message_pool_.take(*this);
  message->peer = to;
  message->bytes = bytes;
  for (int64_t begin = 0; begin < bytes; begin += largest_count_) {
    const int count = static_cast<int>(std::min(largest_count_, bytes - begin));
    MPI_Request& request = message->posted.sends.emplace_back();
    check_mpi(MPI_Isend(x + begin, count, MPI_BYTE, to, tag, messages_.get(), &request), "MPI_Isend", name());
  }
  return message;
}

Request::Pending* MpiComm::do_receive(std::byte* x, int64_t bytes, int from, int tag) {
  Message* message = message_pool_.take(*this);
  message->peer = from;
  message->bytes = bytes;
  for (int64_t begin = 0; begin < bytes; begin += largest_count_) {
    const int count = static_cast<int>(std::min(largest_count_, bytes - begin));
    MPI_Request& request = message->posted.receives.emplace_back();
    check_mpi(MPI_Irecv(x + begin, count, MPI_BYTE, from, tag, messages_.get(), &request), "MPI_Irecv", name());
  }
  return message;
}

// Leaves the requests to wait(), which asks how much has come: MPI_Test would end them.
bool Message::over() {
  for (const std::vector<MPI_Request>* requests : {&posted.receives, &posted.sends}) {
    for (const MPI_Request request : *requests) {
      int done = 0;
      check_mpi(MPI_Request_get_status(request, &done, MPI_STATUS_IGNORE), "MPI_Request_get_status", comm.name());
      if (done == 0) return false;
    }
  }
  return true;
}

void Message::wait() {
  int64_t received = 0;
  for (MPI_Request& request : posted.sends)
    check_mpi(MPI_Wait(&request, MPI_STATUS_IGNORE), "MPI_Wait for a send", comm.name());
  for (MPI_Request& request : posted.receives) {
    MPI_Status status;
    check_mpi(MPI_Wait(&request, &status), "MPI_Wait for a receive", comm.name());
    int count = 0;
    MPI_Get_count(&status, MPI_BYTE, &count);
    received += count;
  }
  if (!posted.receives.empty() && received != bytes) {
    throw InternalError(fmt::format("a message in group {} from rank {} has {} bytes, not the {} that were expected",
                                    comm.name(), peer, received, bytes));
  }
}

void Message::release() noexcept {
  posted.clear();
  comm.message_pool_.give_back(this);
}

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
