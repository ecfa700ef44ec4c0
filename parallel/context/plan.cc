#include "parallel/context/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "tensor/check.h"
#include "tensor/ops/attention/attention.h"

namespace tessera {
namespace {

// In place of a piece's slot until pieces are in order: the order of kinds of documents on a rank.
enum : int32_t { kSplit, kRagged, kWhole };

int64_t length(const Segment& segment) { return segment.end - segment.begin; }

// How often a split document is dealt out over the ranks: twice, there and back, evens out work that grows. When all
// work soon stays even against a piece's length, each token has the same but for the first ones, and one run has half
// the borders.
int runs(const std::vector<MixerWork>& kinds, int64_t tokens, int ranks) {
  constexpr int64_t kShort = 10;  // windows in a piece: the first piece then lacks 5 % of its work
  const bool even = std::all_of(kinds.begin(), kinds.end(), [&](const MixerWork& kind) {
    return kind.even_after != MixerWork::kNever && kShort * kind.even_after * ranks <= tokens;
  });
  return even ? 1 : 2;
}

}  // namespace

int64_t context_slots(int64_t tokens, int cp, int tp, double slack) {
  TESSERA_CHECK(tokens > 0 && cp > 0 && tp > 0, "tokens and ranks");
  if (!(slack >= 0) || !std::isfinite(slack))
    throw UsageError(fmt::format("parallel.context_slack = {}: must be 0 or more, as every token needs a slot", slack));
  if (cp == 1) return tokens;
  const int64_t tiles = tokens / kAttentionTile;
  if (tiles < cp)
    throw UsageError(fmt::format(
        "parallel.cp = {}: a microbatch of {} tokens has {} attention tile{} of {} tokens, fewer than ranks; choose "
        "{}, or data.micro_batch_size * data.sequence_length of at least {}",
        cp, tokens, tiles, tiles == 1 ? "" : "s", kAttentionTile,
        tiles > 1 ? fmt::format("cp of at most {}", tiles) : "cp = 1", cp * kAttentionTile));
  const int64_t unit = tp * kAttentionTile;
  const auto slots = static_cast<int64_t>(std::ceil((1 + slack) * static_cast<double>(tokens) / cp));
  return (slots + unit - 1) / unit * unit;
}

ContextPlan::ContextPlan(Options options)
    : options_(std::move(options)),
      pieces_(options_.tokens),
      order_(options_.tokens),
      late_(options_.tokens),
      first_(options_.ranks + 1),
      filled_(options_.ranks),
      split_(options_.ranks),
      work_(options_.ranks) {
  TESSERA_CHECK(options_.ranks >= 1 && !options_.work.empty(),
                "a context plan is for at least one rank, and for layers of at least one kind");
  TESSERA_CHECK(options_.tokens <= std::numeric_limits<int32_t>::max(), "slots are numbered in 31 bits");
  if (options_.slots < (options_.tokens + options_.ranks - 1) / options_.ranks)
    throw UsageError(fmt::format(
        "{} context-parallel ranks of {} token slots cannot hold a microbatch of {} tokens; "
        "at least {} slots would fit",
        options_.ranks, options_.slots, options_.tokens, (options_.tokens + options_.ranks - 1) / options_.ranks));
  double most = 0;
  for (const MixerWork& kind : options_.work)
    most += static_cast<double>(kind.first(options_.tokens)) * static_cast<double>(kind.layers);
  TESSERA_CHECK(most < static_cast<double>(std::numeric_limits<int64_t>::max()), "work is counted in 63 bits");
}

int64_t ContextPlan::bytes(const Options& options) {
  return options.tokens * static_cast<int64_t>(sizeof(ContextPiece) + 2 * sizeof(int32_t)) +
         (options.ranks + 1) * static_cast<int64_t>(sizeof(int32_t)) +
         options.ranks * static_cast<int64_t>(3 * sizeof(int64_t));
}

std::span<const ContextPiece> ContextPlan::pieces(int rank) const {
  return std::span(pieces_).subspan(first_.at(rank), first_.at(rank + 1) - first_.at(rank));
}

double ContextPlan::imbalance() const {
  if (total_work_ == 0) return 1;
  return static_cast<double>(*std::max_element(work_.begin(), work_.end())) * ranks() /
         static_cast<double>(total_work_);
}

// Work of a document's first `position` tokens, summed over layers.
int64_t ContextPlan::work_before(int64_t position) const {
  int64_t sum = 0;
  for (const MixerWork& kind : options_.work) sum += kind.layers * kind.first(position);
  return sum;
}

// Of the ranks with that much room, the one with the least work; -1 when there is none.
int ContextPlan::least_busy(int64_t room) const {
  int best = -1;
  for (int rank = 0; rank < ranks(); ++rank) {
    if (filled_[rank] + room > slots()) continue;
    if (best < 0 || work_[rank] < work_[best]) best = rank;
  }
  return best;
}

void ContextPlan::put(const Segment& document, int64_t begin, int64_t end, int rank) {
  if (begin == end) return;
  filled_[rank] += end - begin;
  work_[rank] += work_before(end) - work_before(begin);
  home_ = home_ == kNowhere || home_ == rank ? rank : kSeveral;
  if (record_ == Record::No) return;
  pieces_[piece_count_++] = {.rank = rank,
                             .slot = 0,
                             .source = static_cast<int32_t>(document.begin + begin),
                             .length = static_cast<int32_t>(end - begin),
                             .document = document.document,
                             .position = static_cast<int32_t>(document.position + begin)};
}

// Cuts what found no room where it should go: there are as many slots as tokens, so somewhere there is some.
void ContextPlan::fill(const Segment& document, int64_t begin, int64_t end) {
  while (begin < end) {
    const int rank = least_busy(1);
    TESSERA_CHECK(rank >= 0, "a slot for every token");
    const int64_t next = std::min(end, begin + slots() - filled_[rank]);
    put(document, begin, next, rank);
    begin = next;
  }
}

void ContextPlan::deal_split(const Segment& document, int turn, int64_t tile) {
  const int64_t tokens = length(document), tiles = tokens / tile;
  const int64_t parts = std::min<int64_t>(runs(options_.work, tokens, ranks()) * ranks(), tiles);
  int64_t begin = 0;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t end = part + 1 == parts ? tokens : tiles * (part + 1) / parts * tile;
    const auto place = static_cast<int>(part < ranks() ? part : 2 * ranks() - 1 - part);
    const int rank = (place + turn) % ranks();  // a turn further for each document: uneven pieces even out
    const int64_t fits = std::min(end, begin + slots() - filled_[rank]);
    put(document, begin, fits, rank);
    fill(document, fits, end);
    begin = end;
  }
}

template <class Put>
void ContextPlan::deal_document(const Segment& document, Verdict& verdict, Put&& put_pieces) {
  home_ = kNowhere;
  const int64_t first = piece_count_;
  put_pieces();
  if (home_ == kSeveral) {
    verdict.split_tokens += length(document);
    ++split_documents_;
  }
  for (int64_t i = first; i < piece_count_; ++i) pieces_[i].slot = home_ == kSeveral ? kSplit : kWhole;
}

void ContextPlan::begin_deal(Record record) {
  std::fill(filled_.begin(), filled_.end(), 0);
  std::fill(work_.begin(), work_.end(), 0);
  record_ = record;
  piece_count_ = late_count_ = split_documents_ = 0;
}

ContextPlan::Verdict ContextPlan::deal_head_tail(const HeadTail& deal, Record record) {
  begin_deal(record);
  Verdict verdict;
  for (int64_t i = 0; i < std::ssize(segments_); ++i) {
    const Segment& document = segments_[order_[i]];
    const int64_t tokens = length(document);
    if (i < deal.split) {
      deal_document(document, verdict, [&] { deal_split(document, static_cast<int>(i % ranks()), deal.tile); });
    } else if (const int rank = least_busy(tokens); rank >= 0) {
      deal_document(document, verdict, [&] { put(document, 0, tokens, rank); });
    } else {
      late_[late_count_++] = order_[i];
    }
  }
  for (int64_t i = 0; i < late_count_; ++i) {
    const Segment& document = segments_[late_[i]];
    deal_document(document, verdict, [&] { fill(document, 0, length(document)); });
  }
  verdict.imbalance = imbalance();
  return verdict;
}

// How many of a document's tokens from `begin` on a rank gets that wants so much work, at least and at most so many:
// the fewest that have it, moved to a whole tile of the document, the nearest that is allowed.
int64_t ContextPlan::contiguous_tokens(const Segment& document, int64_t begin, int64_t least, int64_t most,
                                       int64_t wanted) const {
  const int64_t done = work_before(begin);
  int64_t low = least, high = most;  // the first number whose work is not less than wanted, or most
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (work_before(begin + middle) - done < wanted)
      low = middle + 1;
    else
      high = middle;
  }
  if (begin + low == length(document)) return low;
  const int64_t below = (begin + low) / kAttentionTile * kAttentionTile - begin, above = below + kAttentionTile;
  const auto allowed = [&](int64_t tokens) { return least <= tokens && tokens <= most; };
  const bool nearer_above = above - low <= low - below;
  if (allowed(above) && (nearer_above || !allowed(below))) return above;
  return allowed(below) ? below : low;
}

void ContextPlan::deal_contiguous() {
  begin_deal(Record::Yes);
  int64_t left = 0, dealt_work = 0;
  for (const Segment& document : segments_) left += length(document);
  int rank = 0;
  Verdict verdict;
  for (const Segment& document : segments_) {
    deal_document(document, verdict, [&] {
      for (int64_t begin = 0; begin < length(document);) {
        const int64_t rest = length(document) - begin;
        // What the ranks behind have no slots for, this one must take; the last one takes everything.
        const int64_t due = std::max<int64_t>(0, left - slots() * (ranks() - 1 - rank));
        const int64_t most = std::min(rest, slots() - filled_[rank]);
        const int64_t target = total_work_ / ranks() * (rank + 1) + total_work_ % ranks() * (rank + 1) / ranks();
        const int64_t tokens = contiguous_tokens(document, begin, std::min(due, rest), most, target - dealt_work);
        put(document, begin, begin + tokens, rank);
        dealt_work += work_before(begin + tokens) - work_before(begin);
        left -= tokens;
        begin += tokens;
        if (begin < length(document)) ++rank;
      }
    });
  }
}

ContextPlan::HeadTail ContextPlan::best_head_tail() {
  HeadTail best;
  Verdict best_verdict{.imbalance = std::numeric_limits<double>::infinity()};
  bool balanced = false;
  for (const int64_t tile : {kAttentionTile, int64_t{1}}) {
    // Documents that can be cut, and those that must be, as no rank has so many slots.
    int64_t most = 0, split = 0, tokens = 0;
    for (const int32_t i : std::span(order_).first(segments_.size())) {
      if (length(segments_[i]) < 2 * tile) break;
      ++most;
      if (length(segments_[i]) <= slots()) continue;
      ++split;
      tokens += length(segments_[i]);
    }
    while (!balanced || tokens < best_verdict.split_tokens) {
      const HeadTail here{.split = split, .tile = tile};
      const Verdict verdict = deal_head_tail(here, Record::No);
      const bool good = verdict.imbalance <= kContextBalance;
      const bool better = good ? !balanced || verdict.split_tokens < best_verdict.split_tokens
                               : !balanced && verdict.imbalance < best_verdict.imbalance;
      if (better) {
        best = here;
        best_verdict = verdict;
        balanced = good;
      }
      if (split == most) break;
      constexpr int64_t kOneByOne = 8;  // the first ones; then larger steps, so that any packing is planned soon
      for (const int64_t next = std::min(most, split + 1 + split / kOneByOne); split < next; ++split)
        tokens += length(segments_[order_[split]]);
    }
    if (balanced) break;
  }
  return best;
}

// From pieces in any order, with their kind in place of the slot, to the final ones.
void ContextPlan::order_pieces() {
  const auto order = [](const ContextPiece& a, const ContextPiece& b) {
    return std::tie(a.rank, a.slot, a.source) < std::tie(b.rank, b.slot, b.source);
  };
  const auto begin = pieces_.begin();
  std::sort(begin, begin + piece_count_, order);
  // Pieces of one rank that go on where the one before ends are one.
  int64_t count = 0;
  for (int64_t i = 0; i < piece_count_; ++i) {
    const ContextPiece& piece = pieces_[i];
    ContextPiece* before = count > 0 ? &pieces_[count - 1] : nullptr;
    if (before != nullptr && before->rank == piece.rank && before->document == piece.document &&
        before->source + before->length == piece.source) {
      before->length += piece.length;
    } else {
      pieces_[count++] = piece;
    }
  }
  piece_count_ = count;
  // Split documents whose tokens on a rank are not whole tiles come after the others.
  for (int64_t i = 0, next; i < piece_count_; i = next) {
    int64_t tokens = 0;
    for (next = i; next < piece_count_ && pieces_[next].rank == pieces_[i].rank && pieces_[next].slot == kSplit &&
                   pieces_[next].document == pieces_[i].document;
         ++next)
      tokens += pieces_[next].length;
    if (next == i) ++next;
    if (pieces_[i].slot == kSplit && tokens % kAttentionTile != 0)
      for (int64_t j = i; j < next; ++j) pieces_[j].slot = kRagged;
  }
  std::sort(begin, begin + piece_count_, order);

  std::fill(split_.begin(), split_.end(), 0);
  for (int64_t rank = 0, i = 0; rank < ranks(); ++rank) {
    first_[rank] = static_cast<int32_t>(i);
    for (int32_t slot = 0; i < piece_count_ && pieces_[i].rank == rank; ++i) {
      ContextPiece& piece = pieces_[i];
      if (piece.slot != kWhole) split_[rank] += piece.length;
      piece.slot = slot;
      slot += piece.length;
    }
  }
  first_.back() = static_cast<int32_t>(piece_count_);
}

void ContextPlan::make(std::span<const Segment> segments) {
  total_work_ = 0;
  int64_t end = 0;
  for (const Segment& segment : segments) {
    TESSERA_CHECK(end <= segment.begin && segment.begin < segment.end && segment.end <= options_.tokens,
                  "segments ascend, do not overlap, and lie within the microbatch");
    end = segment.end;
    total_work_ += work_before(length(segment));
  }
  segments_ = segments;
  const auto order = std::span(order_).first(segments.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const int64_t length_a = length(segments[a]), length_b = length(segments[b]);
    return length_a != length_b ? length_a > length_b : a < b;
  });
  if (options_.deal == ContextDeal::Contiguous)
    deal_contiguous();
  else
    deal_head_tail(best_head_tail(), Record::Yes);
  order_pieces();
  segments_ = {};
}

}  // namespace tessera
