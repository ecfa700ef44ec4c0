// What the GATHERs and REDUCEs of one rank's list are for, read off the list.
#pragma once

#include <cstddef>
#include <cstdint>

#include "parallel/schedule/schedule.h"

namespace tessera {

// Which actions read the weights that a GATHER brings: FORWARD, perhaps among others, or those of the way back alone,
// which need no tables.
enum class GatherFor : uint8_t { Forward, Backward };
// Whether more REDUCEs of the same blocks follow in the step.
enum class ReduceTurn : uint8_t { Earlier, Last };

// What the GATHER at `at` is for: Forward where FORWARD reads blocks of it before their RELEASE.
GatherFor gather_for(const Schedule& list, size_t at);

// Whether the REDUCE at `at` is the last one of its blocks.
ReduceTurn reduce_turn(const Schedule& list, size_t at);

}  // namespace tessera
