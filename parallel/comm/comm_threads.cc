#include "parallel/comm/comm_threads.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <thread>

#include "parallel/comm/thread_exchange.h"
#include "parallel/comm/thread_world.h"
#include "tensor/interval.h"

namespace tessera {
namespace {

using Call = ThreadWorld::Call;

class ThreadComm;

// A send or receive, linked into the receiver's list until its counterpart is posted; whoever posts second copies.
struct Message final : Request::Pending {
  explicit Message(ThreadComm& comm_) : comm(comm_) {}
  void wait() override;
  bool over() override;
  void abandon() noexcept override;
  void release() noexcept override;

  ThreadComm& comm;
  bool is_send = false;
  int from = 0, to = 0, tag = 0;
  std::byte* data = nullptr;  // written only when received
  int64_t bytes = 0;
  bool matched = false;  // the counterpart is copying, or has copied
  bool done = false;
};

// What the ranks of one group share.
struct Group {
  Group(std::shared_ptr<ThreadWorld> world_, std::vector<int> members)
      : world(std::move(world_)),
        world_ranks(std::move(members)),
        slots(world_ranks.size()),
        exchanges(*world, world_ranks) {
    unmatched.reserve(16 * slots.size());  // more may be under way at once; they are rare
  }

  struct Slot {
    Call call;
    const std::byte* in = nullptr;
    std::byte* out = nullptr;
    int color = 0;
    std::shared_ptr<Group> child;
  };

  std::shared_ptr<ThreadWorld> world;
  std::vector<int> world_ranks;
  std::vector<Slot> slots;
  int arrived = 0;
  uint64_t generation = 0;
  std::string odds;                 // set when the ranks made different calls
  std::vector<Message*> unmatched;  // in the order posted
  ThreadExchanges exchanges;        // collectives that were started
};

class ThreadComm final : public Comm {
 public:
  ThreadComm(std::shared_ptr<Group> group, int rank, const std::string& name)
      : Comm(rank, static_cast<int>(group->world_ranks.size()), name), group_(std::move(group)) {}
  ~ThreadComm() override { move_device_tensors(nullptr); }  // it may have messages of its own under way here

  void check_peers() override {
    const std::lock_guard lock(world().mutex);
    world().check_peers();
  }

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
  void do_barrier() override { enter({"barrier"}, nullptr, nullptr); }
  Request::Pending* do_send(const std::byte* x, int64_t bytes, int to, int tag) override;
  Request::Pending* do_receive(std::byte* x, int64_t bytes, int from, int tag) override;

 private:
  friend struct Message;

  ThreadWorld& world() { return *group_->world; }
  int world_rank() const { return group_->world_ranks[rank()]; }

  // The first meeting of a collective: hands the rank's pointers to its peers, and returns when all have come and are
  // making the same call. Only here can a call fail: until leave() peers read each other's memory, so no rank may
  // unwind its stack, and none has a reason to.
  void enter(const Call& call, const std::byte* in, std::byte* out, int color = 0);
  // A later meeting, to which every rank that has entered comes.
  void meet();
  void arrive(std::unique_lock<std::mutex>& lock, const char* what, ThreadWorld::Abort abort);
  void reduce_part(const Interval& part, std::byte* out, DType dtype, Reduction reduction);

  Message* take_message();
  Request::Pending* post(Message* message);

  std::shared_ptr<Group> group_;
  std::vector<const std::byte*> parts_ = std::vector<const std::byte*>(size());
  std::deque<Message> messages_;  // all that were ever needed at once
  std::vector<Message*> free_messages_;
};

void ThreadComm::arrive(std::unique_lock<std::mutex>& lock, const char* what, ThreadWorld::Abort abort) {
  Group& group = *group_;
  if (++group.arrived < size()) {
    const uint64_t generation = group.generation;
    world().wait(lock, world_rank(), name(), what, abort, [&] { return group.generation != generation; });
    return;
  }
  group.arrived = 0;
  ++group.generation;
  for (const int peer : group.world_ranks) {
    if (peer != world_rank()) world().wake(peer);
  }
}

void ThreadComm::enter(const Call& call, const std::byte* in, std::byte* out, int color) {
  Group& group = *group_;
  std::unique_lock lock(world().mutex);
  world().check_peers();
  group.slots[rank()] = {call, in, out, color, nullptr};
  if (group.arrived == size() - 1) {
    for (int r = 1; r < size() && group.odds.empty(); ++r) {
      const Call &a = group.slots[0].call, &b = group.slots[r].call;
      if (!(a == b)) group.odds = ThreadWorld::at_odds(name(), 0, a, r, b);
    }
  }
  arrive(lock, call.what, ThreadWorld::Abort::Yes);
  if (!group.odds.empty()) throw InternalError(group.odds);
}

void ThreadComm::meet() {
  std::unique_lock lock(world().mutex);
  arrive(lock, "a collective's end", ThreadWorld::Abort::No);
}

void ThreadComm::do_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) {
  enter({"all_gather", block_bytes}, in, out);
  for (int r = 0; r < size(); ++r) {
    std::byte* target = out + r * block_bytes;
    if (group_->slots[r].in != target) std::memcpy(target, group_->slots[r].in, block_bytes);
  }
  meet();
}

void ThreadComm::do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) {
  enter({"all_to_all", block_bytes}, in, out);
  for (int r = 0; r < size(); ++r) {
    std::memcpy(out + r * block_bytes, group_->slots[r].in + rank() * block_bytes, block_bytes);
  }
  meet();
}

// `part` of all ranks' inputs, into out.
void ThreadComm::reduce_part(const Interval& part, std::byte* out, DType dtype, Reduction reduction) {
  const int64_t begin = part.begin * size_of(dtype);
  for (int r = 0; r < size(); ++r) parts_[r] = group_->slots[r].in + begin;
  reduce_in_rank_order(parts_, out, part.size(), dtype, reduction);
}

void ThreadComm::do_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count, DType dtype) {
  enter({"reduce_scatter_sum", count * size_of(dtype), static_cast<int>(dtype)}, in, out);
  reduce_part({rank() * count, (rank() + 1) * count}, out, dtype, Reduction::Sum);
  meet();
}

Request::Pending* ThreadComm::do_start_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) {
  return group_->exchanges.start(ThreadExchanges::Kind::AllGather, rank(), name(), in, out, block_bytes, DType::U32);
}

Request::Pending* ThreadComm::do_start_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count,
                                                          DType dtype) {
  return group_->exchanges.start(ThreadExchanges::Kind::ReduceScatterSum, rank(), name(), in, out,
                                 count * size_of(dtype), dtype);
}

void ThreadComm::do_all_reduce(std::byte* x, int64_t count, DType dtype, Reduction reduction) {
  enter({reduction == Reduction::Sum ? "all_reduce_sum" : "all_reduce_max", count * size_of(dtype),
         static_cast<int>(dtype)},
        x, x);
  // Each rank reduces its part in its own memory, which no other rank reads until they meet; then all collect the rest.
  const Interval whole{0, count}, own = shard(whole, size(), rank());
  reduce_part(own, x + own.begin * size_of(dtype), dtype, reduction);
  meet();
  for (int r = 0; r < size(); ++r) {
    const Interval part = shard(whole, size(), r);
    const int64_t begin = part.begin * size_of(dtype);
    if (r != rank() && !part.empty()) std::memcpy(x + begin, group_->slots[r].in + begin, part.size() * size_of(dtype));
  }
  meet();
}

void ThreadComm::do_broadcast(std::byte* x, int64_t bytes, int root) {
  enter({"broadcast", bytes, root}, x, x);
  if (rank() != root) std::memcpy(x, group_->slots[root].in, bytes);
  meet();
}

std::unique_ptr<Comm> ThreadComm::do_split(int color, const std::string& name) {
  TESSERA_CHECK(color >= 0, "split of " + this->name() + " by color " + std::to_string(color));
  enter({"split"}, nullptr, nullptr, color);
  std::vector<int> members;  // world ranks
  int leader = -1, index = 0;
  for (int r = 0; r < size(); ++r) {
    if (group_->slots[r].color != color) continue;
    if (leader < 0) leader = r;
    if (r == rank()) index = static_cast<int>(members.size());
    members.push_back(group_->world_ranks[r]);
  }
  if (leader == rank()) group_->slots[rank()].child = std::make_shared<Group>(group_->world, std::move(members));
  meet();
  auto comm = std::make_unique<ThreadComm>(group_->slots[leader].child, index, name);
  meet();
  return comm;
}

Message* ThreadComm::take_message() {
  if (free_messages_.empty()) {
    free_messages_.reserve(messages_.size() + 1);  // so that release() never allocates
    free_messages_.push_back(&messages_.emplace_back(*this));
  }
  Message* message = free_messages_.back();
  free_messages_.pop_back();
  return message;
}

Request::Pending* ThreadComm::do_send(const std::byte* x, int64_t bytes, int to, int tag) {
  Message* message = take_message();
  message->is_send = true;
  message->from = rank();
  message->to = to;
  message->tag = tag;
  message->data = const_cast<std::byte*>(x);
  message->bytes = bytes;
  return post(message);
}

Request::Pending* ThreadComm::do_receive(std::byte* x, int64_t bytes, int from, int tag) {
  Message* message = take_message();
  message->is_send = false;
  message->from = from;
  message->to = rank();
  message->tag = tag;
  message->data = x;
  message->bytes = bytes;
  return post(message);
}

Request::Pending* ThreadComm::post(Message* message) {
  Group& group = *group_;
  message->matched = message->done = false;
  std::unique_lock lock(world().mutex);
  const auto other = std::find_if(group.unmatched.begin(), group.unmatched.end(), [&](const Message* m) {
    return m->is_send != message->is_send && m->from == message->from && m->to == message->to && m->tag == message->tag;
  });
  const bool at_odds = other != group.unmatched.end() && (*other)->bytes != message->bytes;
  if (world().failed || at_odds) {
    message->release();
    world().check_peers();
    throw InternalError("a message in group " + name() + " from rank " + std::to_string(message->from) + " to " +
                        std::to_string(message->to) + " with tag " + std::to_string(message->tag) +
                        " is sent and received with different sizes: " + std::to_string(message->bytes) + " and " +
                        std::to_string((*other)->bytes) + " bytes");
  }
  if (other == group.unmatched.end()) {
    group.unmatched.push_back(message);
    return message;
  }
  Message* peer = *other;
  group.unmatched.erase(other);
  peer->matched = true;
  lock.unlock();
  const Message* sender = message->is_send ? message : peer;
  const Message* receiver = message->is_send ? peer : message;
  std::memcpy(receiver->data, sender->data, message->bytes);
  lock.lock();
  peer->done = true;
  message->matched = message->done = true;
  // The owner of the counterpart; itself when a rank writes to itself.
  world().wake(group.world_ranks[message->is_send ? message->to : message->from]);
  return message;
}

void Message::wait() {
  ThreadWorld& world = comm.world();
  std::unique_lock lock(world.mutex);
  try {
    world.wait(lock, comm.world_rank(), comm.name(), is_send ? "send" : "receive", ThreadWorld::Abort::Yes,
               [&] { return matched; });
  } catch (...) {
    std::erase(comm.group_->unmatched, this);
    throw;
  }
  world.wait(lock, comm.world_rank(), comm.name(), "a message's end", ThreadWorld::Abort::No, [&] { return done; });
}

bool Message::over() {
  const std::lock_guard lock(comm.world().mutex);
  comm.world().check_peers();
  return done;
}

void Message::abandon() noexcept {
  ThreadWorld& world = comm.world();
  std::unique_lock lock(world.mutex);
  if (!matched) {
    std::erase(comm.group_->unmatched, this);
    return;
  }
  world.wait(lock, comm.world_rank(), comm.name(), "a message's end", ThreadWorld::Abort::No, [&] { return done; });
}

void Message::release() noexcept { comm.free_messages_.push_back(this); }

std::string describe(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

}  // namespace

void run_ranks(int n, const std::function<void(Comm& world)>& body) {
  TESSERA_CHECK(n >= 1, "run_ranks with " + std::to_string(n) + " ranks");
  const auto world = std::make_shared<ThreadWorld>(n);
  std::vector<int> everyone(n);
  for (int r = 0; r < n; ++r) everyone[r] = r;
  const auto group = std::make_shared<Group>(world, std::move(everyone));
  std::vector<std::exception_ptr> errors(n);

  const auto run = [&](int rank) {
    try {
      ThreadComm comm(group, rank, "world");
      body(comm);
    } catch (const PeerFailed&) {
      // Somebody else's error; that one is reported.
    } catch (...) {
      errors[rank] = std::current_exception();
    }
    const std::scoped_lock lock(world->mutex);
    if (errors[rank]) world->fail("rank " + std::to_string(rank) + " failed: " + describe(errors[rank]));
    world->ranks[rank].finished = true;
    if (!world->failed && world->stuck()) {
      const std::string text = world->deadlock();
      errors[rank] = std::make_exception_ptr(InternalError(text));
      world->fail(text);
    }
  };

  std::vector<std::thread> threads;
  threads.reserve(n);
  for (int r = 0; r < n; ++r) threads.emplace_back(run, r);
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace tessera
