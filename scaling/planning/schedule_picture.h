// A simulated schedule as a picture: ranks below each other, time to the right.
#pragma once

#include <string>

#include "parallel/schedule/schedule.h"
#include "scaling/planning/simulate.h"

namespace tessera {

// For a terminal. An action is its letter (F, B, W, C) and microbatch, "b", "c", ... behind it on the rank's second,
// third,
// ... stage, with '-' to its end; '.' is time without compute. Cut into bands of at most `columns` characters.
std::string schedule_grid(const PipelineSchedule& schedule, const Simulation& simulation, int columns);

// As SVG: compute actions as boxes by kind, lighter on later stages of the rank, with the microbatch written in.
std::string schedule_svg(const PipelineSchedule& schedule, const Simulation& simulation, const std::string& title);

}  // namespace tessera
