// TESSERA_FAIL=POINT or POINT:N ends the process as a crash would (SIGKILL) when it reaches that place of a save for
// the N-th time (checkpoint/format/failpoint.h): for tests, and for the curious.
#pragma once

#include "checkpoint/format/failpoint.h"
#include "launch/process/host.h"

namespace tessera {

// Empty when the variable is not set. Throws UsageError, with all names, when it names no failpoint.
Failpoint failpoint_of(const Environment& environment);

}  // namespace tessera
