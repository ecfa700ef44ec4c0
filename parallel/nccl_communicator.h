// One communicator of NCCL's, with a stream of its own, and a deadline for all that it waits for. Internal to
// comm_nccl.
#pragma once

#include <cstdint>
#include <list>
#include <string>

#include "parallel/nccl_library.h"
#include "tensor/cuda/stream.h"

namespace tessera::nccl {

class Communicator {
 public:
  // It is under way when the constructor returns. deadline_seconds: the longest that a call may wait for the other
  // ranks. NCCL may take as long to make it, to queue a call and to end it, but a minute at least, and ten minutes
  // where calls have no deadline.
  Communicator(const Library& library, std::string name, const ncclUniqueId& id, int rank, int ranks,
               double deadline_seconds);
  // Of the ranks of `whole` that call it with the same color (>= 0), ordered by `rank`. All ranks of `whole` make a
  // call, those that are to have none stay_apart().
  Communicator(Communicator& whole, std::string name, int color, int rank, int ranks);
  void stay_apart();
  // Waits for the other ranks to end it too, unless an exception is on its way. Who ends several calls begin_end() of
  // all first: other ranks may end them in another order.
  ~Communicator();
  void begin_end() noexcept;
  Communicator(const Communicator&) = delete;

  // Whether it can be used, and what was called is in its stream. Throws IoError when NCCL reports an error, when it
  // has not been ready for longer than the deadline, and after abort().
  bool ready();
  void await_ready();

  // For whoever waits for the device. Throws IoError when NCCL reports an error, and when the oldest call in the stream
  // has had its operands for longer than the deadline and is not done: another rank has not come to it.
  void look();

  // Ends the calls in its stream, which may wait for ranks that do not come; what they would have written is undefined.
  // Where a rank has several, between Library::group_start and group_end: one alone may wait for all that the device
  // has.
  void abort() noexcept;

  // Queues call(comm, stream) behind what `before` has now, and records `after` behind it.
  template <class Call>
  void run(const cuda::Stream& before, cuda::Event& after, const char* what, Call&& call) {
    await_ready();
    before_.record(before);
    run_after(before_, after, what, call);
  }
  // The same behind an event.
  template <class Call>
  void run(const cuda::Event& before, cuda::Event& after, const char* what, Call&& call) {
    await_ready();
    run_after(before, after, what, call);
  }

 private:
  // What is in the stream, oldest first.
  struct Queued {
    const char* what = "";
    int64_t number = 0;
    cuda::Event started, ended;
  };

  template <class Call>
  void run_after(const cuda::Event& before, cuda::Event& after, const char* what, Call&& call) {
    stream_.wait(before);
    Queued& queued = take(what);
    queued.started.record(stream_);
    begin();
    check(call(comm_, static_cast<cudaStream_t>(stream_.handle())), what);
    await_ready();  // what is queued is in the stream only then
    after.record(stream_);
    queued.ended.record(stream_);
  }
  Queued& take(const char* what);
  void retire();
  // What ncclCommSplit makes of this one.
  ncclComm_t split(int color, int rank, ncclConfig_t& config);
  void begin();  // the deadline of ready() counts from here
  void check(ncclResult_t result, const char* what) const;

  const Library& library_;
  std::string name_;
  int rank_, ranks_;
  double deadline_seconds_, ready_seconds_;
  ncclComm_t comm_ = nullptr;  // null once aborted
  bool made_ = false;          // was ready
  bool ending_ = false;
  ncclComm_t part_ = nullptr;  // of the split that is under way: NCCL writes it even when that fails
  cuda::Stream stream_{cuda::Priority::High};
  cuda::Event before_;
  std::list<Queued> queued_, spare_;
  int64_t calls_ = 0;
  int64_t start_;  // nanoseconds of a steady clock
  // The call that look() saw waiting for other ranks, and since when.
  int64_t waiting_ = -1, waiting_since_ = 0;
};

}  // namespace tessera::nccl
