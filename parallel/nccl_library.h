// NCCL's functions, found by name when the library is opened. Internal to comm_nccl.
//
// Opened rather than linked: a process on a CPU neither loads nor needs it.
#pragma once

#include <nccl.h>

#include <memory>
#include <string>

#include "tensor/cuda/stream.h"

namespace tessera::nccl {

struct Library {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclGetErrorString) error_string;
  decltype(&ncclGetLastError) last_error;
  decltype(&ncclCommInitRankConfig) init_rank;
  decltype(&ncclCommSplit) split;
  decltype(&ncclCommFinalize) finalize;
  decltype(&ncclCommDestroy) destroy;
  decltype(&ncclCommAbort) abort;
  decltype(&ncclCommGetAsyncError) async_error;
  decltype(&ncclAllGather) all_gather;
  decltype(&ncclReduceScatter) reduce_scatter;
  decltype(&ncclAllReduce) all_reduce;
  decltype(&ncclAlltoAll) all_to_all;
  decltype(&ncclBroadcast) broadcast;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) receive;

  // The same for every call. Throws UsageError when it is not found, or too old for this build.
  static const Library& open();
  int version() const;  // 22809 is 2.28.9
};

std::string version_text(int version);

// One communicator, with a stream of its own. It is under way when the constructor returns.
class Communicator {
 public:
  // NCCL is known to make one in seconds; what takes longer waits for a rank that does not come.
  static constexpr double kDeadlineSeconds = 600;

  Communicator(const Library& library, std::string name, const ncclUniqueId& id, int rank, int ranks);
  // Of the ranks of `whole` that call it with the same color (>= 0), ordered by `rank`. All ranks of `whole` make a
  // call, those that are to have none stay_apart().
  Communicator(Communicator& whole, std::string name, int color, int rank, int ranks);
  void stay_apart();
  ~Communicator();
  Communicator(const Communicator&) = delete;

  // Whether it can be used, and what was called is in its stream. Throws IoError when NCCL reports an error, and when
  // it has not been ready for longer than the deadline.
  bool ready();
  void await_ready();

  // Queues call(comm, stream) behind what `before` has now, and records `after` behind it.
  template <class Call>
  void run(const cuda::Stream& before, cuda::Event& after, const char* what, Call&& call) {
    await_ready();
    before_.record(before);
    stream_.wait(before_);
    run_after(after, what, call);
  }
  // The same behind an event.
  template <class Call>
  void run(const cuda::Event& before, cuda::Event& after, const char* what, Call&& call) {
    await_ready();
    stream_.wait(before);
    run_after(after, what, call);
  }

 private:
  template <class Call>
  void run_after(cuda::Event& after, const char* what, Call&& call) {
    begin();
    check(call(comm_, static_cast<cudaStream_t>(stream_.handle())), what);
    await_ready();  // what is queued is in the stream only then
    after.record(stream_);
  }
  // What ncclCommSplit makes of this one.
  ncclComm_t split(int color, int rank, ncclConfig_t& config);
  void begin();  // the deadline counts from here
  void check(ncclResult_t result, const char* what) const;
  double seconds() const;

  const Library& library_;
  std::string name_;
  int rank_, ranks_;
  ncclComm_t comm_ = nullptr;
  cuda::Stream stream_{cuda::Priority::High};
  cuda::Event before_;
  int64_t start_;  // nanoseconds of a steady clock
};

}  // namespace tessera::nccl
