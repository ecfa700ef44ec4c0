#include "parallel/comm/thread_exchange.h"

#include <algorithm>

namespace tessera {

using Abort = ThreadWorld::Abort;

ThreadExchanges::ThreadExchanges(ThreadWorld& world, const std::vector<int>& world_ranks)
    : world_(world), world_ranks_(world_ranks), numbers_(world_ranks.size()) {
  // A rank may be ahead of another by as many as it starts before it waits: with ZeRO, one for each parameter of two
  // blocks, gathered and reduced. More than this are rare.
  constexpr int kUsual = 48;
  for (int i = 0; i < kUsual; ++i) add();
}

ThreadExchanges::Exchange& ThreadExchanges::add() {
  Exchange& exchange = exchanges_.emplace_back();
  exchange.parts.resize(size());
  for (int r = 0; r < size(); ++r) {
    Part& part = exchange.parts[r];
    part.owner = this;
    part.exchange = &exchange;
    part.rank = r;
    part.sources.resize(size());
  }
  return exchange;
}

// The one with this number, or memory for it.
ThreadExchanges::Exchange& ThreadExchanges::exchange(uint64_t number) {
  Exchange* unused = nullptr;
  for (Exchange& exchange : exchanges_) {
    if (!exchange.free && exchange.number == number) return exchange;
    if (exchange.free) unused = &exchange;
  }
  if (unused == nullptr) unused = &add();
  unused->number = number;
  unused->free = false;
  unused->started = unused->done = unused->left = 0;
  return *unused;
}

void ThreadExchanges::wake_all() {
  for (const int peer : world_ranks_) world_.wake(peer);
}

Request::Pending* ThreadExchanges::start(Kind kind, int rank, const std::string& group, const std::byte* in,
                                         std::byte* out, int64_t bytes, DType dtype) {
  const ThreadWorld::Call call{kind == Kind::AllGather ? "start_all_gather" : "start_reduce_scatter_sum", bytes,
                               static_cast<int>(dtype)};
  const std::unique_lock lock(world_.mutex);
  world_.check_peers();
  Exchange& exchange = this->exchange(numbers_[rank]++);
  Part& part = exchange.parts[rank];
  part.group = &group;
  part.in = in;
  part.out = out;
  part.taken = false;
  if (exchange.started == 0) {
    exchange.kind = kind;
    exchange.call = call;
    exchange.dtype = dtype;
    exchange.first = rank;
  } else if (!(exchange.call == call)) {
    exchange.odds = ThreadWorld::at_odds(group, exchange.first, exchange.call, rank, call);
  }
  if (++exchange.started == size() || !exchange.odds.empty()) wake_all();
  return &part;
}

void ThreadExchanges::Part::work() {
  const int64_t bytes = exchange->call.bytes;
  for (size_t r = 0; r < sources.size(); ++r) {
    const std::byte* source = exchange->parts[r].in;
    if (exchange->kind == Kind::ReduceScatterSum) {
      sources[r] = source + rank * bytes;
    } else if (std::byte* target = out + static_cast<int64_t>(r) * bytes; source != target) {
      std::memcpy(target, source, bytes);
    }
  }
  if (exchange->kind == Kind::ReduceScatterSum)
    reduce_in_rank_order(sources, out, bytes / size_of(exchange->dtype), exchange->dtype, Reduction::Sum);
}

void ThreadExchanges::Part::finish(std::unique_lock<std::mutex>& lock) {
  const int size = owner->size();
  for (int i = 0; i < size; ++i) {
    Part& part = exchange->parts[(rank + i) % size];
    if (part.taken) continue;
    part.taken = true;
    lock.unlock();
    part.work();
    lock.lock();
    if (++exchange->done == size) owner->wake_all();
  }
  owner->world_.wait(lock, owner->world_ranks_[rank], *group, "a collective's end", Abort::No,
                     [&] { return exchange->done == size; });
  if (++exchange->left == size) exchange->free = true;
}

void ThreadExchanges::Part::wait() {
  std::unique_lock lock(owner->world_.mutex);
  try {
    owner->world_.wait(lock, owner->world_ranks_[rank], *group, exchange->call.what, Abort::Yes,
                       [&] { return exchange->ready() || !exchange->odds.empty(); });
    if (!exchange->odds.empty()) throw InternalError(exchange->odds);
  } catch (...) {
    exchange->abandoned = true;
    throw;
  }
  finish(lock);
}

void ThreadExchanges::Part::abandon() noexcept {
  std::unique_lock lock(owner->world_.mutex);
  if (exchange->ready() && exchange->odds.empty())
    finish(lock);
  else
    exchange->abandoned = true;
}

}  // namespace tessera
