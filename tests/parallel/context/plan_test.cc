#include "parallel/context/plan.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "tensor/check.h"
#include "tensor/ops/attention/attention.h"
#include "tests/parallel/context/packings.h"
#include "tests/support/allocations.h"

namespace tessera {
namespace {

using testing::log_normal_packing;
using testing::packing;

// Options for layers of attention, whose pairs the tests count themselves.
struct Options : ContextPlan::Options {
  std::vector<AttentionKind> kinds;
};

// Pairs that a query sees, by the definition.
int64_t seen(int64_t position, const std::vector<AttentionKind>& kinds) {
  int64_t sum = 0;
  for (const AttentionKind& kind : kinds)
    for (int64_t key = 0; key <= position; ++key)
      if (kind.window == 0 || position - key < kind.window) sum += kind.layers;
  return sum;
}

// The promises of the header, checked token by token.
void expect_plan(const ContextPlan& plan, const Options& options, std::span<const Segment> segments) {
  std::vector<int32_t> home(options.tokens, -1);  // the segment of each token
  for (size_t i = 0; i < segments.size(); ++i)
    std::fill(home.begin() + segments[i].begin, home.begin() + segments[i].end, static_cast<int32_t>(i));
  std::map<int32_t, std::set<int>> ranks_of;  // by document
  for (const ContextPiece& piece : plan.pieces()) ranks_of[piece.document].insert(piece.rank);

  std::vector<int> held(options.tokens, 0);
  const ContextPiece* next = plan.pieces().data();
  int64_t work = 0, busiest = 0;
  for (int rank = 0; rank < options.ranks; ++rank) {
    const auto pieces = plan.pieces(rank);
    ASSERT_EQ(pieces.data(), next) << "pieces of ranks follow each other";
    next += pieces.size();
    int64_t slot = 0, split_slots = 0, rank_work = 0;
    std::map<int32_t, const ContextPiece*> last;  // piece by document
    bool whole_seen = false;
    for (const ContextPiece& piece : pieces) {
      ASSERT_EQ(piece.rank, rank);
      ASSERT_EQ(piece.slot, slot) << "side by side";
      ASSERT_GE(piece.length, 1);
      slot += piece.length;
      ASSERT_LE(slot, options.slots);
      ASSERT_TRUE(0 <= piece.source && piece.source + piece.length <= options.tokens);
      const int32_t segment = home[piece.source];
      ASSERT_GE(segment, 0);
      ASSERT_EQ(piece.document, segments[segment].document);
      ASSERT_EQ(piece.position, segments[segment].position + piece.source - segments[segment].begin);
      ASSERT_LE(piece.source + piece.length, segments[segment].end);
      for (int64_t i = 0; i < piece.length; ++i) ++held[piece.source + i];
      if (options.tokens <= 2048)
        for (int64_t i = 0; i < piece.length; ++i)
          rank_work += seen(piece.source + i - segments[segment].begin, options.kinds);
      const bool split = ranks_of[piece.document].size() > 1;
      ASSERT_FALSE(split && whole_seen) << "split documents come first";
      whole_seen = whole_seen || !split;
      if (split) split_slots += piece.length;
      if (last.contains(piece.document)) {
        const ContextPiece& before = *last[piece.document];
        ASSERT_GT(piece.position, before.position + before.length) << "ascending, and contiguous pieces are one";
      }
      last[piece.document] = &piece;
    }
    EXPECT_EQ(plan.split_slots(rank), split_slots);
    EXPECT_EQ(plan.filled_slots(rank), slot);
    if (options.tokens <= 2048) {
      EXPECT_EQ(plan.work(rank), rank_work);
    }
    work += plan.work(rank);
    busiest = std::max(busiest, plan.work(rank));
  }
  for (int64_t i = 0; i < options.tokens; ++i) ASSERT_EQ(held[i], home[i] >= 0 ? 1 : 0) << "token " << i;

  // Gathered and sorted by document and position, the tokens are those of the microbatch, in order.
  std::vector<ContextPiece> gathered(plan.pieces().begin(), plan.pieces().end());
  std::sort(gathered.begin(), gathered.end(), [](const ContextPiece& a, const ContextPiece& b) {
    return a.document != b.document ? a.document < b.document : a.position < b.position;
  });
  int64_t at = 0;
  for (const ContextPiece& piece : gathered) {
    while (at < options.tokens && home[at] < 0) ++at;
    ASSERT_EQ(piece.source, at);
    at += piece.length;
  }
  const auto split = std::count_if(ranks_of.begin(), ranks_of.end(), [](const auto& d) { return d.second.size() > 1; });
  EXPECT_EQ(plan.split_documents(), split);
  EXPECT_DOUBLE_EQ(plan.imbalance(),
                   work == 0 ? 1 : static_cast<double>(busiest) * options.ranks / static_cast<double>(work));
}

ContextPlan planned(const Options& options, std::span<const Segment> segments) {
  ContextPlan plan(options);
  plan.make(segments);
  expect_plan(plan, options, segments);
  return plan;
}

Options options_for(int64_t tokens, int ranks, const std::vector<AttentionKind>& kinds = {{}}) {
  Options options;
  options.ranks = ranks;
  options.tokens = tokens;
  options.slots = context_slots(tokens, ranks, 1, 0.02);
  options.kinds = kinds;
  options.work = attention_work(kinds);
  return options;
}

// A document has one piece on each rank from its first to its last, so that its ranks' borders are crossed once each,
// and the documents follow each other over the ranks.
void expect_contiguous(const ContextPlan& plan, std::span<const Segment> segments) {
  std::vector<ContextPiece> pieces(plan.pieces().begin(), plan.pieces().end());
  std::sort(pieces.begin(), pieces.end(),
            [](const ContextPiece& a, const ContextPiece& b) { return a.source < b.source; });
  for (size_t i = 1; i < pieces.size(); ++i) {
    const ContextPiece &before = pieces[i - 1], &piece = pieces[i];
    ASSERT_GE(piece.rank, before.rank);
    if (piece.document != before.document) continue;
    ASSERT_GT(piece.rank, before.rank) << "one piece a rank";
    ASSERT_EQ(piece.position, before.position + before.length);
  }
  ASSERT_LE(std::ssize(pieces), std::ssize(segments) + plan.ranks() - 1) << "a cut more for each border";
}

TEST(ContextPlan, SlotsAreRoundedUpToTilesOfAllTensorParallelRanks) {
  EXPECT_EQ(context_slots(65536, 1, 4, 0.02), 65536);
  EXPECT_EQ(context_slots(65536, 2, 1, 0.02), 33472);  // 33,423.36 -> 523 tiles
  EXPECT_EQ(context_slots(65536, 2, 4, 0.02), 33536);  // 131 times 256
  EXPECT_EQ(context_slots(65536, 8, 1, 0), 8192);
  EXPECT_EQ(context_slots(100, 1, 1, 0.02), 100);
  EXPECT_EQ(context_slots(128, 2, 1, 0), 64);
}

template <class Make>
std::string refusal(Make&& make) {
  try {
    make();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(ContextPlan, RefusalsSayTheRuleAndWhatWouldFit) {
  EXPECT_EQ(refusal([] { context_slots(511, 8, 1, 0.02); }),
            "parallel.cp = 8: a microbatch of 511 tokens has 7 attention tiles of 64 tokens, fewer than ranks; choose "
            "cp of at most 7, or data.micro_batch_size * data.sequence_length of at least 512");
  EXPECT_EQ(refusal([] { context_slots(100, 2, 1, 0.02); }),
            "parallel.cp = 2: a microbatch of 100 tokens has 1 attention tile of 64 tokens, fewer than ranks; choose "
            "cp = 1, or data.micro_batch_size * data.sequence_length of at least 128");
  EXPECT_EQ(refusal([] { context_slots(512, 2, 1, -0.5); }),
            "parallel.context_slack = -0.5: must be 0 or more, as every token needs a slot");
  EXPECT_NE(refusal([] { context_slots(512, 2, 1, std::nan("")); }), "");
  EXPECT_EQ(refusal([] { ContextPlan({.ranks = 3, .tokens = 1000, .slots = 333}); }),
            "3 context-parallel ranks of 333 token slots cannot hold a microbatch of 1000 tokens; at least 334 slots "
            "would fit");
}

TEST(ContextPlan, EveryKindOfPackingIsPlacedExactlyOnce) {
  for (const int ranks : {1, 2, 3, 4, 8}) {
    const auto options = options_for(1024, ranks);
    std::vector<Segment> two_samples = packing({300, 212, 512});
    std::vector<Segment> padded = packing({700, 100});
    std::vector<Segment> gap = packing({500, 12, 512});  // as when a sample before the last ends in padding
    gap.erase(gap.begin() + 1);
    const std::map<std::string, std::vector<Segment>> packings = {
        {"one document", packing({1024})},
        {"single tokens", packing(std::vector<int64_t>(1024, 1))},
        {"tile edges", packing({64, 128, 832})},
        {"one token beside a long one", packing({1, 1022, 1})},
        {"equal documents", packing(std::vector<int64_t>(16, 64))},
        {"odd lengths", packing({333, 333, 358})},
        {"two samples", two_samples},
        {"a padded tail", padded},
        {"padding between samples", gap},
        {"nothing but padding", {}},
        {"one token", packing({1})},
    };
    auto contiguous = options;
    contiguous.deal = ContextDeal::Contiguous;
    for (const auto& [name, segments] : packings) {
      SCOPED_TRACE(name + " on " + std::to_string(ranks));
      planned(options, segments);
      expect_contiguous(planned(contiguous, segments), segments);
    }
  }
}

TEST(ContextPlan, ThousandsOfRandomPackings) {
  std::mt19937_64 random(7);
  const auto draw = [&](int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(random); };
  const std::vector<std::vector<AttentionKind>> kinds = {
      {{}}, {{.window = 64, .layers = 3}}, {{.window = 0, .layers = 1}, {.window = 100, .layers = 5}}};
  std::map<std::pair<int, int64_t>, int> seen_layouts;
  for (int trial = 0; trial < 4000 && !::testing::Test::HasFailure(); ++trial) {
    const int ranks = static_cast<int>(draw(1, 9));
    const int64_t tokens = draw(ranks, 12 * ranks) * kAttentionTile / draw(1, 2) + draw(0, 63);
    if (tokens < ranks * kAttentionTile) continue;
    // From no slack at all, which leaves no slot for choices.
    const double slack = trial % 3 == 0 ? 0 : 0.02 * static_cast<double>(draw(0, 10));
    Options options = options_for(tokens, ranks, kinds[trial % kinds.size()]);
    options.slots = trial % 4 == 0 ? (tokens + ranks - 1) / ranks : context_slots(tokens, ranks, 1, slack);
    std::vector<Segment> segments = log_normal_packing(random, tokens, std::exp(draw(0, 7)), 0.4 * draw(0, 5));
    if (trial % 5 == 0) segments.pop_back();
    if (trial % 7 == 0 && segments.size() > 2) segments.erase(segments.begin() + segments.size() / 2);
    SCOPED_TRACE("trial " + std::to_string(trial));
    planned(options, segments);
    options.deal = ContextDeal::Contiguous;
    expect_contiguous(planned(options, segments), segments);
    ++seen_layouts[{ranks, trial % 4}];
  }
  EXPECT_EQ(seen_layouts.size(), 36);
}

// The goal of issue and design: median 1k tokens, sigma 1.2, windows of 64k, slack 0.02.
TEST(ContextPlan, TenThousandPackingsAreBalanced) {
  for (const int ranks : {2, 4, 8}) {
    const auto options = options_for(65536, ranks);
    ContextPlan plan(options);
    std::mt19937_64 random(ranks);
    double worst = 0;
    for (int i = 0; i < 10000; ++i) {
      plan.make(log_normal_packing(random, options.tokens, 1024, 1.2));
      worst = std::max(worst, plan.imbalance());
    }
    EXPECT_LE(worst, kContextBalance) << ranks << " ranks";
  }
}

TEST(ContextPlan, SplitsNothingThatFitsWhole) {
  for (const int ranks : {2, 4, 8}) {
    const auto options = options_for(8192, ranks);
    const ContextPlan plan = planned(options, packing(std::vector<int64_t>(ranks * 4, 8192 / (ranks * 4))));
    EXPECT_EQ(plan.split_documents(), 0);
    EXPECT_EQ(plan.imbalance(), 1);
  }
}

TEST(ContextPlan, OneDocumentIsDealtHeadAndTail) {
  const ContextPlan plan = planned(options_for(8192, 4), packing({8192}));
  EXPECT_EQ(plan.imbalance(), 1);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(plan.filled_slots(rank), 2048);
    EXPECT_EQ(plan.split_slots(rank), 2048);
    EXPECT_EQ(plan.pieces(rank).front().position, 1024 * rank);
    EXPECT_EQ(plan.pieces(rank).back().position + plan.pieces(rank).back().length, 8192 - 1024 * rank);
  }
  EXPECT_EQ(plan.pieces(3).size(), 1) << "the middle is one piece";
}

TEST(ContextPlan, CutsGoBetweenTilesUnlessTheWorkNeedsMore) {
  for (const int ranks : {2, 4, 8}) {
    std::vector<int64_t> lengths = {20001, 30000, 1};
    for (int64_t left = 65536 - 50002; left > 0; left -= lengths.back()) lengths.push_back(std::min<int64_t>(left, 99));
    const ContextPlan plan = planned(options_for(65536, ranks), packing(lengths));
    EXPECT_LE(plan.imbalance(), kContextBalance);
    EXPECT_GE(plan.split_documents(), 1);
    for (int rank = 0; rank < ranks; ++rank) {
      bool whole_tiles = true;  // all before it on this rank
      for (const ContextPiece& piece : plan.pieces(rank)) {
        if (piece.slot >= plan.split_slots(rank)) break;
        EXPECT_EQ(piece.position % kAttentionTile, 0);
        EXPECT_TRUE(!whole_tiles || piece.slot % kAttentionTile == 0);
        whole_tiles = whole_tiles && piece.length % kAttentionTile == 0;
      }
    }
  }
  // Three tiles' worth of work for two ranks cannot be shared in whole tiles.
  const ContextPlan fine = planned(options_for(192, 2), packing({192}));
  EXPECT_LE(fine.imbalance(), kContextBalance);
}

TEST(ContextPlan, WindowsEnterTheWork) {
  // Every query of a layer with a short window has the same work: documents need not be dealt there and back.
  const auto windowed = options_for(65536, 4, {{.window = 128, .layers = 2}});
  const ContextPlan once = planned(windowed, packing({65536}));
  EXPECT_EQ(once.pieces().size(), 4);
  EXPECT_LE(once.imbalance(), 1.01);
  EXPECT_EQ(once.work(3), 2 * 16384 * 128);

  // Beside layers that see all of it they must.
  const auto mixed = options_for(65536, 4, {{.window = 0, .layers = 1}, {.window = 128, .layers = 5}});
  EXPECT_EQ(planned(mixed, packing({65536})).pieces().size(), 7);

  // A long document is as much work as its tokens in short ones, so it may stay whole.
  const auto two = options_for(16384, 2, {{.window = 64, .layers = 1}});
  EXPECT_EQ(planned(two, packing({8192, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024})).split_documents(), 0);
  const auto full = options_for(16384, 2);
  EXPECT_EQ(planned(full, packing({8192, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024})).split_documents(), 1);
}

// Work as a recurrence has it: each token as much as the others.
TEST(ContextPlan, ContiguousPiecesShareTheWorkEqually) {
  for (const int ranks : {2, 3, 4, 8}) {
    ContextPlan::Options options = options_for(65536, ranks);
    options.deal = ContextDeal::Contiguous;
    options.work = {{.layers = 2, .first = [](int64_t n) { return 7 * n; }, .even_after = 0}};
    for (const auto& segments :
         {packing({65536}), packing({20001, 30000, 15535}), packing(std::vector<int64_t>(1024, 64))}) {
      ContextPlan plan(options);
      plan.make(segments);
      expect_contiguous(plan, segments);
      EXPECT_LE(plan.imbalance(), 1 + static_cast<double>(kAttentionTile * ranks) / 65536) << ranks;
      for (const ContextPiece& piece : plan.pieces()) EXPECT_EQ(piece.position % kAttentionTile, 0);
    }
    // Causal attention has more work for later tokens: the last rank has fewer of them, where slots allow it.
    options.work = {attention_work(AttentionKind{})};
    options.slots = options.tokens;
    ContextPlan causal(options);
    causal.make(packing({65536}));
    EXPECT_LE(causal.imbalance(), 1.02) << ranks;
    EXPECT_LT(causal.filled_slots(ranks - 1), causal.filled_slots(0));
    // With slots for no more than an equal share each rank has that.
    options.slots = 65536 / ranks + 1;
    ContextPlan tight(options);
    tight.make(packing({65536}));
    EXPECT_GE(tight.filled_slots(ranks - 1), 65536 - (ranks - 1) * options.slots);
    EXPECT_LE(tight.filled_slots(0), options.slots);
  }
}

TEST(ContextPlan, IsAFunctionOfTheSegmentsAlone) {
  const auto options = options_for(4096, 4);
  std::mt19937_64 random(5);
  ContextPlan used(options);
  for (int i = 0; i < 200; ++i) {
    const auto segments = log_normal_packing(random, options.tokens, 100, 1.5);
    used.make(segments);
    ContextPlan fresh(options);
    fresh.make(segments);
    ASSERT_EQ(used.pieces().size(), fresh.pieces().size());
    for (size_t p = 0; p < fresh.pieces().size(); ++p) {
      ASSERT_EQ(used.pieces()[p].rank, fresh.pieces()[p].rank);
      ASSERT_EQ(used.pieces()[p].slot, fresh.pieces()[p].slot);
      ASSERT_EQ(used.pieces()[p].source, fresh.pieces()[p].source);
    }
  }
}

TEST(ContextPlan, AllocatesNothingWhenMade) {
  const auto options = options_for(65536, 8);
  ContextPlan plan(options);
  std::mt19937_64 random(1);
  const auto usual = log_normal_packing(random, options.tokens, 1024, 1.2);
  const auto worst = packing(std::vector<int64_t>(65536, 1)), one = packing({65536});
  const int64_t before = testing::allocations();
  plan.make(usual);
  plan.make(worst);
  plan.make(one);
  EXPECT_EQ(testing::allocations(), before);
  EXPECT_EQ(ContextPlan::bytes(options), 65536 * (24 + 2 * 4) + 9 * 4 + 8 * 3 * 8);
}

TEST(ContextPlan, RefusesSegmentsThatOverlapOrPassTheEnd) {
  ContextPlan plan(options_for(128, 2));
  const Segment overlapping[] = {{0, 64, 0, 0}, {63, 100, 1, 0}}, past[] = {{0, 129, 0, 0}}, empty[] = {{5, 5, 0, 0}};
  EXPECT_THROW(plan.make(overlapping), InternalError);
  EXPECT_THROW(plan.make(past), InternalError);
  EXPECT_THROW(plan.make(empty), InternalError);
}

}  // namespace
}  // namespace tessera
