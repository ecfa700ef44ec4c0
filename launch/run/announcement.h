// What a run says of itself before its first step: model, batch, layout, device, and who takes which memory.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "launch/run/phase.h"

namespace spdlog {
class logger;
}

namespace tessera {

// "pp=2 dp=1 cp=1 tp=4".
std::string layout_text(const MeshShape& mesh);

// All memory that a run holds on this rank, by category. staging_bytes: of its checkpoints.
std::vector<MemoryLine> run_memory(Phase& phase, int64_t staging_bytes);

// Collective over the session's world; the console speaks on rank 0 alone.
void announce(spdlog::logger& console, Phase& phase, Session& session, int64_t staging_bytes);

}  // namespace tessera
