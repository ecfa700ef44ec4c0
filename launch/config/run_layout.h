// The layout of a run from its resolved config (scaling/planning/layout.h).
#pragma once

#include "scaling/planning/layout.h"

namespace tessera {

class RunConfig;  // launch/run.proto

// The compute dtype that a config names: that of its tensors, which is BF16 for FP8.
DType compute_dtype(const RunConfig& config);

// config must outlive the request.
LayoutRequest layout_request(const RunConfig& config, int world);

// For a resolved config, whose layout says how many ranks there are. What resolves a config has its layout from there
// (launch/config/resolve.h).
Layout plan_layout(const RunConfig& config);

}  // namespace tessera
