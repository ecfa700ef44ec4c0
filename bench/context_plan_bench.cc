// How evenly context plans share out attention, what they send, and how long they take to make, over random packings:
// documents of log-normal length (median 1,024 tokens, sigma 1.2) in windows of 65,536, slack 0.02. Plain zigzag, which
// cuts the packed window into 2 * cp equal pieces and heeds no document, beside it. context_plan_bench [PACKINGS]
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <limits>
#include <map>
#include <numeric>

#include "parallel/context/plan.h"
#include "tests/parallel/context/packings.h"

namespace tessera {
namespace {

constexpr int64_t kTokens = 65536;
constexpr int kRepeats = 5;  // of each plan; the fastest counts, as other programs may run
constexpr double kMedian = 1024, kSigma = 1.2, kSlack = 0.02;

// The busiest rank's visible pairs over the mean.
double zigzag_imbalance(std::span<const Segment> segments, int ranks) {
  std::vector<double> work(ranks);
  const int64_t piece = kTokens / (2 * ranks);
  for (const Segment& segment : segments) {
    for (int64_t begin = segment.begin; begin < segment.end;) {
      const int64_t part = begin / piece, end = std::min<int64_t>(segment.end, (part + 1) * piece);
      const auto from = static_cast<double>(begin - segment.begin), to = static_cast<double>(end - segment.begin);
      work[part < ranks ? part : 2 * ranks - 1 - part] += 0.5 * (to * (to + 1) - from * (from + 1));
      begin = end;
    }
  }
  return *std::max_element(work.begin(), work.end()) * ranks / std::accumulate(work.begin(), work.end(), 0.0);
}

// Rows of keys that ranks' queries see on other ranks, of those that come when everything is gathered.
double share_seen(const ContextPlan& plan) {
  std::map<int32_t, std::vector<ContextPiece>> by_document;
  for (const ContextPiece& piece : plan.pieces()) by_document[piece.document].push_back(piece);
  int64_t rows = 0;
  for (const auto& [document, pieces] : by_document) {
    std::map<int, int64_t> end;  // of each rank's tokens
    for (const ContextPiece& piece : pieces) {
      int64_t& last = end[piece.rank];
      last = std::max<int64_t>(last, piece.position + piece.length);
    }
    for (const auto& [rank, last] : end) {
      for (const ContextPiece& piece : pieces)
        if (piece.rank != rank) rows += std::clamp<int64_t>(last - piece.position, 0, piece.length);
    }
  }
  return static_cast<double>(rows) / static_cast<double>((plan.ranks() - 1) * kTokens);
}

struct Spread {
  double sum = 0, most = 0;
  int64_t count = 0;
  void add(double value) {
    sum += value;
    most = std::max(most, value);
    ++count;
  }
  double mean() const { return sum / static_cast<double>(count); }
};

void print_row(int ranks, int packings) {
  const int64_t slots = context_slots(kTokens, ranks, 1, kSlack);
  ContextPlan plan({.ranks = ranks, .tokens = kTokens, .slots = slots});
  Spread ours, zigzag, split, in_split, seen, pieces, microseconds;
  int over = 0;
  std::mt19937_64 random(1);
  for (int i = 0; i < packings; ++i) {
    const std::vector<Segment> segments = testing::log_normal_packing(random, kTokens, kMedian, kSigma);
    double best = std::numeric_limits<double>::infinity();
    for (int again = 0; again < kRepeats; ++again) {
      const auto begin = std::chrono::steady_clock::now();
      plan.make(segments);
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    microseconds.add(1e6 * best);
    int64_t tokens = 0;
    for (int rank = 0; rank < ranks; ++rank) tokens += plan.split_slots(rank);
    ours.add(plan.imbalance());
    over += plan.imbalance() > kContextBalance;
    zigzag.add(zigzag_imbalance(segments, ranks));
    split.add(static_cast<double>(plan.split_documents()));
    pieces.add(static_cast<double>(plan.pieces().size()) / static_cast<double>(segments.size()));
    in_split.add(static_cast<double>(tokens) / kTokens);
    seen.add(share_seen(plan));
  }
  fmt::print(
      "{:>3}{:>9.3f}{:>9.4f}{:>7}{:>10.3f}{:>9.3f}{:>10.2f} %{:>10.2f}{:>10.2f}{:>10.3f}{:>10.3f}{:>9.1f}{:>9.1f}\n",
      ranks, ours.mean(), ours.most, over, zigzag.mean(), zigzag.most,
      100 * (static_cast<double>(slots * ranks) / kTokens - 1), split.mean(), pieces.mean(), in_split.mean(),
      seen.mean(), microseconds.mean(), microseconds.most);
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  const int packings = argc > 1 ? std::atoi(argv[1]) : 10000;
  fmt::print(
      "{} packings; busiest rank's attention over the mean, ours (and how many are over {}) and plain zigzag; "
      "padding;\n"
      "split documents; pieces a document; tokens in split documents, and keys that travel, of gathering everything;\n"
      "microseconds a plan\n"
      "{:>3}{:>9}{:>9}{:>7}{:>10}{:>9}{:>12}{:>10}{:>10}{:>10}{:>10}{:>9}{:>9}\n",
      packings, tessera::kContextBalance, "cp", "mean", "worst", "over", "zigzag", "worst", "padding", "split",
      "pieces", "in split", "travels", "us", "worst");
  for (const int ranks : {2, 4, 8}) tessera::print_row(ranks, packings);
}
