// The counters of one rank's step against what the layout says of it.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "parallel/comm/traffic.h"
#include "scaling/planning/traffic.h"

namespace tessera::testing {

// before, after: Mesh::traffic() around a Pipeline::step. Byte for byte, of every group and collective; a group that is
// missing on either side has sent nothing.
inline void expect_traffic_of_step(const Layout& layout, int rank, const std::map<std::string, Traffic>& before,
                                   const std::map<std::string, Traffic>& after, const std::string& what) {
  std::map<std::string, AxisTraffic> stated;
  std::set<std::string> groups;
  for (const AxisTraffic& traffic : step_traffic(layout, rank)) {
    EXPECT_GT(traffic.total_bytes(), 0) << what;
    stated[traffic.group] = traffic;
    groups.insert(traffic.group);
  }
  for (const auto& [group, counted] : after) groups.insert(group);
  for (const std::string& group : groups) {
    ASSERT_TRUE(after.contains(group)) << what << ": the step has no group " << group;
    const auto earlier = before.find(group);
    const Traffic counted = earlier == before.end() ? after.at(group) : after.at(group) - earlier->second;
    for (int kind = 0; kind < kCollectives; ++kind)
      EXPECT_EQ(stated[group].bytes[kind], counted.bytes[kind])
          << what << ": rank " << rank << ", " << name(static_cast<Collective>(kind)) << " over " << group;
  }
}

}  // namespace tessera::testing
