// The record of a resolved config's run, with the layout that the config asks for.
#pragma once

#include "launch/config/run_layout.h"
#include "launch/proof/layout_proof.h"

namespace tessera {

inline RunRecord record_planned(const RunConfig& config, int64_t steps, const Interference& interference = {}) {
  return record_run(config, plan_layout(config), steps, interference);
}

}  // namespace tessera
