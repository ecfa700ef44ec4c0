// Counts of what communication puts on the wire, by axis and kind of call, and the time spent in it. Tests compare the
// bytes with closed formulas.
//
// Bytes are those that this rank sends, n being the size of the group and b the bytes of the whole (gathered or
// reduced) tensor:
//   all_gather, reduce_scatter, all_to_all   b (n-1)/n
//   all_reduce                               2 b (n-1)/n   (counts need not divide: rank r counts b + (n-2) s, s being
//                                            the bytes of its part of the elements, see shard(); small tensors, which
//                                            are sent whole, are counted the same way; so are sums of one number)
//   broadcast                                b at the root (once: a tree's depth is not counted), 0 elsewhere
//   send                                     b, 0 to itself
// A group of one sends nothing; its calls are counted.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace tessera {

enum class Collective : uint8_t { AllReduce, AllGather, ReduceScatter, AllToAll, Broadcast, Send, Barrier };
constexpr int kCollectives = 7;
const char* name(Collective collective);

struct Traffic {
  std::array<int64_t, kCollectives> calls{};
  std::array<int64_t, kCollectives> bytes{};
  double seconds = 0;  // in calls of this group and waits for started collectives, not in waits for messages

  void add(Collective kind, int64_t sent_bytes) {
    ++calls[static_cast<int>(kind)];
    bytes[static_cast<int>(kind)] += sent_bytes;
  }
  Traffic operator-(const Traffic& earlier) const;
  int64_t total_bytes() const;
  int64_t calls_of(Collective kind) const { return calls[static_cast<int>(kind)]; }
  int64_t bytes_of(Collective kind) const { return bytes[static_cast<int>(kind)]; }
};

}  // namespace tessera
