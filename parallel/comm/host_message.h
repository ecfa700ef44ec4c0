// Messages of host memory that a DeviceExchange has under way beside its own. Internal to parallel/.
#pragma once

#include "parallel/comm/comm.h"

namespace tessera {

// A message of the host's that nobody waits for.
class HostMessage {
 public:
  HostMessage() = default;
  explicit HostMessage(Request::Pending* pending) : pending_(pending), request_(pending) {}
  // Whether it is over. Both ends ask until it is: MPI may move it only then.
  bool over() {
    if (!request_.pending()) return true;
    if (!pending_->over()) return false;
    request_.wait();
    return true;
  }

 private:
  Request::Pending* pending_ = nullptr;
  Request request_;
};

}  // namespace tessera
