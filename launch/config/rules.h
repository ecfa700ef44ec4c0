// The rules of a config, apart from those of the schema. Internal to launch/config/.
#pragma once

#include <optional>

#include "launch/config/problems.h"
#include "launch/config/resolve.h"

namespace tessera {

// Rules of single fields beside their ranges (launch/config/ranges.h). They hold before anything is resolved.
void check_fields(const RunConfig& config, const Origins& origins, Problems& problems);

// What this version, build or machine does not have.
void check_available(const RunConfig& config, const Origins& origins, const Surroundings& surroundings,
                     Problems& problems);

// Rules between fields of a resolved config whose single fields are in range. The run's layout, where no rule is broken.
std::optional<Layout> check_relations(const RunConfig& config, const Origins& origins, const Surroundings& surroundings,
                                      Problems& problems);

}  // namespace tessera
