// One communicator of NCCL's, with a stream of its own, and a deadline for all that it waits for. Internal to
// comm_nccl.
#pragma once

#include <cstdint>
#include <list>
#include <string>

#include "parallel/comm/nccl_library.h"
#include "tensor/check.h"
#include "tensor/cuda/stream.h"

namespace tessera::nccl {

class Communicator {
 public:
  // What a communicator's calls share of the device.
  enum class Blocks : uint8_t { AsNcclChooses, Few };

  // It is under way when the constructor returns. deadline_seconds: the longest that a call may wait for the other
  // ranks. NCCL may take as long to make it, to queue a call and to end it, but a minute at least, and ten minutes
  // where calls have no deadline.
  Communicator(const Library& library, std::string name, const ncclUniqueId& id, int rank, int ranks,
               double deadline_seconds, Blocks blocks = Blocks::AsNcclChooses);
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
  // Whether it has not been ready for long: a call mostly is within tens of microseconds.
  bool slow() const;
  // What a host does between two looks at ready(): at first no more than let others run, later it sleeps.
  void rest() const;

  // For whoever waits for the device. Throws IoError when NCCL reports an error, and when the oldest call in the stream
  // has had its operands for longer than the deadline and is not done: another rank has not come to it.
  void look();

  // Ends the calls in its stream, which may wait for ranks that do not come; what they would have written is undefined.
  // Where a rank has several, between Library::group_start and group_end: one alone may wait for all that the device
  // has.
  void abort() noexcept;

  // Calls call(comm, stream), behind the event; the communicator is ready. What is called is in the stream when it is
  // ready() again and not before: the first time NCCL connects the ranks that move data to each other, which takes
  // until they make the call too. Then, and before the next call, queued() records `after` behind it.
  template <class Call>
  void call(const cuda::Event& before, const char* what, Call&& call) {
    TESSERA_CHECK(calling_ == nullptr, "one call of a communicator after the other");
    stream_.wait(before);
    calling_ = &take(what);
    calling_->started.record(stream_);
    begin(what);
    check(call(comm_, static_cast<cudaStream_t>(stream_.handle())), what);
  }
  void queued(cuda::Event& after);

 private:
  // What is in the stream, oldest first.
  struct Queued {
    const char* what = "";
    int64_t number = 0;
    cuda::Event started, ended;
  };

  void await_ready();
  Queued& take(const char* what);
  void retire();
  // What ncclCommSplit makes of this one.
  ncclComm_t split(int color, int rank, ncclConfig_t& config);
  void begin(const char* what);  // the deadline of ready() counts from here
  void check(ncclResult_t result, const char* what) const;

  const Library& library_;
  std::string name_;
  int rank_, ranks_;
  double deadline_seconds_, ready_seconds_;
  ncclComm_t comm_ = nullptr;  // null once aborted
  const char* doing_ = "making a communicator";
  bool ending_ = false;
  ncclComm_t part_ = nullptr;  // of the split that is under way: NCCL writes it even when that fails
  cuda::Stream stream_{cuda::Priority::High};
  std::list<Queued> queued_, spare_;
  Queued* calling_ = nullptr;  // the last of them, between call() and queued()
  int64_t calls_ = 0;
  int64_t start_;  // nanoseconds of a steady clock
  // The call that look() saw waiting for other ranks, and since when.
  int64_t waiting_ = -1, waiting_since_ = 0;
};

}  // namespace tessera::nccl
