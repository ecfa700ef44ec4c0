// What a run must save besides its cursors: the optimizer's state and that of the stages themselves.
#pragma once

#include <span>
#include <vector>

#include "parallel/reducer.h"
#include "parallel/stage.h"

namespace tessera {

// Views of all of it on this rank: the optimizer's first, then each stage's own in the order of stages.
std::vector<StateSlice> saved_slices(Reducer& optimizer, std::span<Stage* const> stages);

}  // namespace tessera
