// Messages of one group that are waited for together.
#pragma once

#include <vector>

#include "parallel/comm/comm.h"

namespace tessera {

class Messages {
 public:
  // tag: these messages are in order among themselves, apart from those of other tags. Room for `most` at once is made
  // here.
  Messages(Comm& comm, int tag, size_t most) : comm_(comm), tag_(tag) { requests_.reserve(most); }

  void send(const ConstTensor& x, int to) { requests_.push_back(comm_.send(x, to, tag_)); }
  void receive(const Tensor& x, int from) { requests_.push_back(comm_.receive(x, from, tag_)); }
  // Returns when all tensors may be used.
  void wait() {
    for (Request& request : requests_) request.wait();
    requests_.clear();
  }
  // Withdraws what is left when an exception is on its way; else as wait(). For the end of the scope that holds the
  // tensors.
  void finish() noexcept { requests_.clear(); }

 private:
  Comm& comm_;
  int tag_;
  std::vector<Request> requests_;
};

}  // namespace tessera
