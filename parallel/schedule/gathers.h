// What the GATHERs and REDUCEs of one rank's list are for, read off the list.
#pragma once

#include <cstddef>

#include "parallel/schedule/schedule.h"

namespace tessera {

// Whether FORWARD reads blocks of the GATHER at `at` before their RELEASE: tables are gathered for it alone.
bool feeds_forward(const Schedule& list, size_t at);

// Whether the REDUCE at `at` is the last one of its blocks.
bool reduces_last(const Schedule& list, size_t at);

}  // namespace tessera
