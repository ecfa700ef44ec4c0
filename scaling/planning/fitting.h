// What to change so that a run fits into the memory of its devices.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scaling/planning/layout.h"
#include "scaling/planning/memory.h"

namespace tessera {

// A change of the config, and the most that a rank then takes.
struct FittingChange {
  std::vector<std::string> settings;  // as for --set: "parallel.recompute=full"
  std::string cost;                   // what it costs, in words
  int64_t bytes = 0;                  // of the device memory of the rank that takes most
};

// The cheapest change, of those that a person would try, after which no rank takes more than `limit` bytes on its
// device: first what costs nothing but messages (optimizer state shared out), then what costs time, each alone and then
// together with the ones before it. The number of ranks and the global batch stay. Nothing where none of them fits;
// changes that the rules refuse are passed over.
std::optional<FittingChange> cheapest_fit(const LayoutRequest& request, const MemoryRequest& memory, int64_t limit);

}  // namespace tessera
