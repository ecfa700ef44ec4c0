// Places between the steps of a save where a test, or the curious, may end the program.
#pragma once

#include <array>
#include <functional>
#include <string_view>

namespace tessera {

// In the order in which they are reached. Those of shard and index on every rank, by the thread that writes; all others
// by rank 0.
inline constexpr std::array<std::string_view, 14> kFailpoints = {
    "begun",             // nothing is written yet
    "directory_made",    // step-N.tmp-ID, empty
    "shard_created",     // a shard without content
    "shard_written",     // and fsynced
    "index_written",     // and fsynced
    "all_written",       // by all ranks, as all have agreed
    "view_written",      // index.h5
    "manifest_written",  // the directory is complete
    "directory_synced",  //
    "published",         // renamed: the commit point
    "parent_synced",     //
    "latest_written",    //
    "verified",          // read again, and found right
    "marked",            // as VERIFIED; what it makes superfluous is still there
};

// Called with the name of each place that is reached; empty: nothing happens there.
using Failpoint = std::function<void(std::string_view place)>;

inline void reach(const Failpoint& failpoint, std::string_view place) {
  if (failpoint) failpoint(place);
}

}  // namespace tessera
