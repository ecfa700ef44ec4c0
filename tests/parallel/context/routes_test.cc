#include "parallel/context/routes.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/parallel/comm/random_pieces.h"
#include "tests/support/allocations.h"

namespace tessera {
namespace {

using testing::PlacedToken;
using testing::RandomPieces;
using testing::tokens_of;

bool sees(const PlacedToken& query, const PlacedToken& key, int64_t window) {
  return query.document == key.document && key.position <= query.position &&
         (window == 0 || query.position - key.position < window);
}

struct Routes {
  ContextUnits units;
  Arena arena;
  ContextRoutes routes;

  explicit Routes(const ContextUnits& u) : units(u), arena("routes", Device::Cpu, bytes(u)), routes(u, arena) {}
  static int64_t bytes(const ContextUnits& u) {
    Arena tally = Arena::tally();
    ContextRoutes(u, tally);
    return tally.used();
  }
};

std::vector<std::unique_ptr<Routes>> all_routes(const RandomPieces& random, int per_unit, int64_t window) {
  std::vector<std::unique_ptr<Routes>> all;
  for (int unit = 0; unit < random.ranks / per_unit; ++unit) {
    all.push_back(std::make_unique<Routes>(ContextUnits{
        .units = random.ranks / per_unit, .unit = unit, .ranks = per_unit, .slots = per_unit * random.slots}));
    all.back()->routes.make(random.pieces, window);
  }
  return all;
}

void check_against_definition(const RandomPieces& random, int per_unit, int64_t window) {
  const std::vector<PlacedToken> tokens = tokens_of(random.pieces);
  const auto unit_of = [&](const PlacedToken& t) { return t.rank / per_unit; };
  const auto slot_of = [&](const PlacedToken& t) {
    return static_cast<int32_t>(t.rank % per_unit * random.slots) + t.slot;
  };
  const auto all = all_routes(random, per_unit, window);
  const int units = random.ranks / per_unit;
  for (int from = 0; from < units; ++from) {
    for (int to = 0; to < units; ++to) {
      if (from == to) {
        EXPECT_TRUE(all[from]->routes.sent(to).empty());
        continue;
      }
      // In the promised order: ascending by document, then position.
      std::map<std::pair<int32_t, int32_t>, int32_t> wanted;
      for (const PlacedToken& key : tokens) {
        if (unit_of(key) != from) continue;
        for (const PlacedToken& query : tokens) {
          if (unit_of(query) == to && sees(query, key, window)) wanted[{key.document, key.position}] = slot_of(key);
        }
      }
      const auto sent = all[from]->routes.sent(to);
      const ContextRoutes& receiver = all[to]->routes;
      ASSERT_EQ(sent.size(), wanted.size()) << from << " to " << to;
      ASSERT_EQ(receiver.received(from), static_cast<int64_t>(wanted.size()));
      const TokenPlaces keys = receiver.keys();
      int64_t i = 0;
      for (const auto& [place, slot] : wanted) {
        ASSERT_EQ(sent[i], slot);
        ASSERT_EQ(keys.document[receiver.first_key(from) + i], place.first);
        ASSERT_EQ(keys.position[receiver.first_key(from) + i], place.second);
        ++i;
      }
    }
  }
  for (int unit = 0; unit < units; ++unit) {
    const ContextRoutes& routes = all[unit]->routes;
    const TokenPlaces keys = routes.keys();
    ASSERT_EQ(static_cast<int64_t>(keys.document.size()), per_unit * random.slots + routes.received_rows());
    ASSERT_LE(static_cast<int64_t>(keys.document.size()), ContextRoutes::most_keys(all[unit]->units));
    ASSERT_LE(routes.sent_rows(), ContextRoutes::most_sent(all[unit]->units));
    std::vector<int32_t> document(per_unit * random.slots, -1), position(per_unit * random.slots, 0);
    for (const PlacedToken& t : tokens) {
      if (unit_of(t) != unit) continue;
      document[slot_of(t)] = t.document;
      position[slot_of(t)] = t.position;
    }
    for (size_t i = 0; i < document.size(); ++i) {
      ASSERT_EQ(keys.document[i], document[i]);
      ASSERT_EQ(keys.position[i], position[i]);
    }
  }
}

TEST(ContextRoutes, AreWhatTheDefinitionSaysOnRandomPlacements) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    for (const int ranks : {1, 2, 3, 4}) {
      for (const int64_t window : {0, 1, 2, 7, 1000}) {
        SCOPED_TRACE("seed " + std::to_string(seed) + " ranks " + std::to_string(ranks) + " window " +
                     std::to_string(window));
        check_against_definition(RandomPieces(ranks, 5 + static_cast<int64_t>(seed) % 20, seed), 1, window);
      }
    }
  }
}

TEST(ContextRoutes, OfUnitsOfSeveralRanks) {
  for (uint64_t seed = 100; seed < 130; ++seed) {
    for (const int64_t window : {0, 3}) {
      check_against_definition(RandomPieces(4, 12, seed), 2, window);
      check_against_definition(RandomPieces(6, 8, seed), 3, window);
      check_against_definition(RandomPieces(4, 12, seed), 4, window);
    }
  }
}

TEST(ContextRoutes, OnlySplitDocumentsTravelAndOfAWindowOnlyTheHalo) {
  // Document 0 lies on rank 0 alone; document 1 has tokens 0-9 on rank 0 and 10-19 on rank 1.
  const std::vector<ContextPiece> pieces = {
      {.rank = 0, .slot = 0, .length = 6, .document = 0},
      {.rank = 0, .slot = 6, .source = 6, .length = 10, .document = 1},
      {.rank = 1, .slot = 2, .source = 16, .length = 10, .document = 1, .position = 10}};
  const auto sent = [&](int unit, int64_t window) {
    Routes r({.units = 2, .unit = unit, .ranks = 1, .slots = 16});
    r.routes.make(pieces, window);
    return std::vector<int32_t>(r.routes.sent(1 - unit).begin(), r.routes.sent(1 - unit).end());
  };
  EXPECT_EQ(sent(0, 0), (std::vector<int32_t>{6, 7, 8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(sent(0, 4), (std::vector<int32_t>{13, 14, 15}));  // query 10 sees 7 to 10
  EXPECT_EQ(sent(0, 1), std::vector<int32_t>{});
  EXPECT_EQ(sent(1, 0), std::vector<int32_t>{});  // later than all queries of rank 0
}

TEST(ContextRoutes, AllocateNothingAndForgetThePackingBefore) {
  Routes r({.units = 3, .unit = 1, .ranks = 1, .slots = 24}), fresh(r.units);
  const RandomPieces first(3, 24, 1), second(3, 24, 2);
  r.routes.make(first.pieces, 0);
  const int64_t before = testing::allocations();
  r.routes.make(second.pieces, 5);
  EXPECT_EQ(testing::allocations(), before);
  fresh.routes.make(second.pieces, 5);
  for (const int u : {0, 1, 2}) {
    EXPECT_TRUE(std::ranges::equal(r.routes.sent(u), fresh.routes.sent(u)));
    EXPECT_EQ(r.routes.received(u), fresh.routes.received(u));
  }
  EXPECT_TRUE(std::ranges::equal(r.routes.keys().document, fresh.routes.keys().document));
  EXPECT_TRUE(std::ranges::equal(r.routes.keys().position, fresh.routes.keys().position));
}

}  // namespace
}  // namespace tessera
