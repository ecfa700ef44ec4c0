// The bytes that a rank sends in a training step, worked out from the layout alone: nothing runs, nothing is allocated.
//
// They are the numbers that the groups' counters would show after the step (parallel/comm/traffic.h says how each
// collective counts), byte for byte. docs/PARALLEL.md has the formulas; tests/launch/proof/traffic_test.cc and
// zero_layouts_test.cc compare them with the counters of real steps.
//
//   group               collectives                             what travels
//   tp                  all-gather, reduce-scatter, all-reduce  tokens between the ranks of a layer; the head's maxima
//                                                               and sums
//   cp                  send                                    keys, values, heads and their gradients
//   pp                  send                                    boundary tensors [slots/tp, hidden] and their gradients
//   dp*cp, dp*cp*tp,    all-reduce (ZeRO 0); reduce-scatter or  gradients, and weights that other ranks own; on dp*cp
//   zero_shard*cp, ...  all-to-all (BF16 wire), all-gather      the number of target tokens too
//   zero_replica        all-reduce                              gradients of the rows that several ZeRO groups own
//   tied_ends           all-reduce                              the gradient of a tied table on two pipeline ranks
//   pp*dp*cp or dp*cp   all-reduce                              the loss
//   world               all-reduce                              a sum of squares for each parameter of the model
//
// One entry depends on the data: over cp, gather and ring send the rows that other ranks see, which the documents of a
// microbatch decide. The function states the worst packing, as Cost::most_exchanged does: all slots of a rank go to all
// other units. Trading of heads moves every slot whatever the packing, so that part of the entry is exact.
//
// What a run may add to its steps is not counted: evaluations, checkpoints, a measured gradient noise, and what ranks
// tell each other between steps.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/comm/traffic.h"
#include "scaling/planning/layout.h"

namespace tessera {

struct AxisTraffic {
  std::string group;                          // as Mesh::traffic() names it
  std::array<int64_t, kCollectives> bytes{};  // that the rank sends, by Collective

  int64_t bytes_of(Collective kind) const { return bytes[static_cast<int>(kind)]; }
  int64_t total_bytes() const;
};

// By group, in the order of their names; groups over which the rank sends nothing are left out. rank: of the world.
// Takes time and memory in the parameters and actions of this rank, however many ranks there are.
std::vector<AxisTraffic> step_traffic(const Layout& layout, int rank);

}  // namespace tessera
