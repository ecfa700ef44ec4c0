// Collectives that were started, between ranks that are threads. Internal to comm_threads.
//
// A rank starts one by leaving its pointers. Once all have, the work falls into one part a rank, which is what its out
// becomes; whoever waits takes parts that nobody has taken, its own first. So a wait needs peers to have started, and
// nothing more of them.
#pragma once

#include <deque>
#include <vector>

#include "parallel/comm/comm.h"
#include "parallel/comm/thread_world.h"

namespace tessera {

// The started collectives of one group. Its ranks start them in the same order.
class ThreadExchanges {
 public:
  enum class Kind : uint8_t { AllGather, ReduceScatterSum };

  ThreadExchanges(ThreadWorld& world, const std::vector<int>& world_ranks);

  // bytes: of a rank's block. dtype: of what is added. group: the group's name, which must stay.
  Request::Pending* start(Kind kind, int rank, const std::string& group, const std::byte* in, std::byte* out,
                          int64_t bytes, DType dtype);

 private:
  struct Exchange;

  struct Part final : Request::Pending {
    void wait() override;
    void abandon() noexcept override;
    void release() noexcept override {}  // it lies in the exchange

    void work();                                      // makes out of all ranks' in
    void finish(std::unique_lock<std::mutex>& lock);  // all parts, once all ranks have started

    ThreadExchanges* owner = nullptr;
    Exchange* exchange = nullptr;
    int rank = 0;
    const std::string* group = nullptr;
    const std::byte* in = nullptr;
    std::byte* out = nullptr;
    bool taken = false;
    std::vector<const std::byte*> sources;
  };

  struct Exchange {
    bool ready() const { return started == static_cast<int>(parts.size()) && !abandoned; }

    uint64_t number = 0;  // in the order of starts
    bool free = true;
    Kind kind = Kind::AllGather;
    ThreadWorld::Call call;
    DType dtype = DType::F32;
    int first = 0;                        // the rank that started first
    int started = 0, done = 0, left = 0;  // ranks, parts, ranks
    bool abandoned = false;               // by a rank that failed: its memory may be gone
    std::string odds;                     // set when the ranks made different calls
    std::vector<Part> parts;              // by rank
  };

  int size() const { return static_cast<int>(world_ranks_.size()); }
  Exchange& add();
  Exchange& exchange(uint64_t number);
  void wake_all();

  ThreadWorld& world_;
  const std::vector<int>& world_ranks_;
  std::vector<uint64_t> numbers_;   // of the next start, by rank
  std::deque<Exchange> exchanges_;  // all that were ever needed at once
};

}  // namespace tessera
