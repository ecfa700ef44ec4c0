#include "parallel/comm/traffic.h"

#include <numeric>

namespace tessera {

const char* name(Collective collective) {
  switch (collective) {
    case Collective::AllReduce:
      return "all_reduce";
    case Collective::AllGather:
      return "all_gather";
    case Collective::ReduceScatter:
      return "reduce_scatter";
    case Collective::AllToAll:
      return "all_to_all";
    case Collective::Broadcast:
      return "broadcast";
    case Collective::Send:
      return "send";
    case Collective::Barrier:
      return "barrier";
  }
  return "?";
}

Traffic Traffic::operator-(const Traffic& earlier) const {
  Traffic difference = *this;
  for (int kind = 0; kind < kCollectives; ++kind) {
    difference.calls[kind] -= earlier.calls[kind];
    difference.bytes[kind] -= earlier.bytes[kind];
  }
  difference.seconds -= earlier.seconds;
  return difference;
}

int64_t Traffic::total_bytes() const { return std::accumulate(bytes.begin(), bytes.end(), int64_t{0}); }

}  // namespace tessera
