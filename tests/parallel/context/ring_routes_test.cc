#include "parallel/context/ring_routes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/parallel/comm/random_pieces.h"
#include "tests/support/allocations.h"

namespace tessera {
namespace {

using testing::PlacedToken;
using testing::RandomPieces;
using testing::tokens_of;

struct Routes {
  ContextUnits units;
  Arena arena;
  RingRoutes routes;

  explicit Routes(const ContextUnits& u) : units(u), arena("routes", Device::Cpu, bytes(u)), routes(u, arena) {}
  static int64_t bytes(const ContextUnits& u) {
    Arena tally = Arena::tally();
    RingRoutes(u, tally);
    return tally.used();
  }
};

using Place = std::pair<int32_t, int32_t>;  // document, position

void check_against_definition(const RandomPieces& random, int per_unit, int64_t window) {
  const std::vector<PlacedToken> tokens = tokens_of(random.pieces);
  const int n = random.ranks / per_unit;
  const auto unit_of = [&](const PlacedToken& t) { return t.rank / per_unit; };
  std::vector<std::unique_ptr<Routes>> all;
  for (int unit = 0; unit < n; ++unit) {
    all.push_back(std::make_unique<Routes>(
        ContextUnits{.units = n, .unit = unit, .ranks = per_unit, .slots = per_unit * random.slots}));
    all.back()->routes.make(random.pieces, window);
  }
  for (int origin = 0; origin < n; ++origin) {
    for (int hops = 1; hops <= n; ++hops) {
      std::set<Place> wanted;
      for (const PlacedToken& key : tokens) {
        if (unit_of(key) != origin) continue;
        for (const PlacedToken& query : tokens) {
          const int distance = (unit_of(query) - origin + n) % n;
          if (distance >= hops && query.document == key.document && key.position <= query.position &&
              (window == 0 || query.position - key.position < window))
            wanted.insert({key.document, key.position});
        }
      }
      for (int unit = 0; unit < n; ++unit) {
        const RingRoutes& routes = all[unit]->routes;
        ASSERT_EQ(routes.length(origin, hops), static_cast<int64_t>(wanted.size()));
        if (unit == origin) continue;
        const TokenPlaces places = routes.places(origin, hops);
        std::set<Place> found;
        for (size_t i = 0; i < places.document.size(); ++i) found.insert({places.document[i], places.position[i]});
        ASSERT_EQ(found, wanted);
      }
    }
    // The origin packs the rows in the order in which the others expect them.
    const RingRoutes& own = all[origin]->routes;
    const TokenPlaces slots = own.own();
    for (int unit = 0; unit < n; ++unit) {
      if (unit == origin) continue;
      const TokenPlaces places = all[unit]->routes.places(origin, 1);
      ASSERT_EQ(places.document.size(), own.rows().size());
      for (size_t i = 0; i < own.rows().size(); ++i) {
        ASSERT_EQ(slots.document[own.rows()[i]], places.document[i]);
        ASSERT_EQ(slots.position[own.rows()[i]], places.position[i]);
      }
    }
    ASSERT_EQ(std::ranges::count_if(slots.document, [](int32_t d) { return d >= 0; }),
              std::ranges::count_if(tokens, [&](const PlacedToken& t) { return unit_of(t) == origin; }));
  }
}

TEST(RingRoutes, AreWhatTheDefinitionSaysOnRandomPlacements) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    for (const int ranks : {1, 2, 3, 5}) {
      for (const int64_t window : {0, 1, 3, 9}) {
        SCOPED_TRACE("seed " + std::to_string(seed) + " ranks " + std::to_string(ranks) + " window " +
                     std::to_string(window));
        check_against_definition(RandomPieces(ranks, 5 + static_cast<int64_t>(seed) % 20, seed), 1, window);
      }
    }
  }
}

TEST(RingRoutes, OfUnitsOfSeveralRanks) {
  for (uint64_t seed = 100; seed < 120; ++seed) {
    check_against_definition(RandomPieces(6, 8, seed), 2, 0);
    check_against_definition(RandomPieces(4, 12, seed), 2, 4);
  }
}

TEST(RingRoutes, AllocateNothing) {
  Routes r({.units = 3, .unit = 1, .ranks = 1, .slots = 24});
  const RandomPieces first(3, 24, 1), second(3, 24, 2);
  r.routes.make(first.pieces, 0);
  const int64_t before = testing::allocations();
  r.routes.make(second.pieces, 5);
  EXPECT_EQ(testing::allocations(), before);
}

}  // namespace
}  // namespace tessera
