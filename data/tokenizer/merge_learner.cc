#include "data/tokenizer/merge_learner.h"

#include <limits>
#include <utility>

#include "tensor/check.h"

namespace tessera {
namespace {

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

MergeLearner::MergeLearner(const PieceCounts& pieces, std::string forbidden) {
  TESSERA_CHECK(pieces.size() < std::numeric_limits<uint32_t>::max(), "too many pieces");
  for (int byte = 0; byte < 256; ++byte) tokens_.emplace_back(1, static_cast<char>(byte));
  spelled_.insert(tokens_.begin(), tokens_.end());
  spelled_.insert(std::move(forbidden));

  size_t symbols = 0;
  for (const auto& [text, count] : pieces) symbols += text.size();
  symbols_.reserve(symbols);
  pieces_.reserve(pieces.size());
  // The order of the pieces is that of a hash table, but everything below is a sum over them.
  for (const auto& [text, count] : pieces) {
    pieces_.push_back({symbols_.size(), static_cast<uint32_t>(text.size()), count});
    for (const char byte : text) symbols_.push_back(static_cast<unsigned char>(byte));
  }
  for (uint32_t p = 0; p < pieces_.size(); ++p) {
    const int32_t* symbol = symbols_.data() + pieces_[p].begin;
    for (uint32_t i = 0; i + 1 < pieces_[p].length; ++i) change(pair_of(symbol[i], symbol[i + 1]), pieces_[p].count, p);
  }
}

void MergeLearner::change(Pair pair, int64_t amount, uint32_t piece) {
  const auto [it, fresh] = pairs_.try_emplace(pair);
  if (fresh) new_pairs_.push_back(pair);
  PairState& state = it->second;
  state.count += amount;
  if (amount > 0 && (state.pieces.empty() || state.pieces.back() != piece)) state.pieces.push_back(piece);
}

// Joins each left, right in the piece, from the left, and counts what that does to the neighbouring pairs. The merged
// pair itself is not counted down; the caller forgets it.
void MergeLearner::merge_in(uint32_t index, const Merge& merge) {
  Piece& piece = pieces_[index];
  int32_t* const symbol = symbols_.data() + piece.begin;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < piece.length; ++i) {
    if (symbol[i] != merge.left || i + 1 == piece.length || symbol[i + 1] != merge.right) {
      symbol[kept++] = symbol[i];
      continue;
    }
    if (kept > 0) {
      change(pair_of(symbol[kept - 1], merge.left), -piece.count, index);
      change(pair_of(symbol[kept - 1], merge.result), piece.count, index);
    }
    if (i + 2 < piece.length) {
      change(pair_of(merge.right, symbol[i + 2]), -piece.count, index);
      change(pair_of(merge.result, symbol[i + 2]), piece.count, index);
    }
    symbol[kept++] = merge.result;
    ++i;
  }
  piece.length = kept;
}

const std::vector<Merge>& MergeLearner::learn(int64_t count, int64_t min_count) {
  const size_t wanted = merges_.size() + static_cast<size_t>(count);
  while (merges_.size() < wanted) {
    // A pair gains occurrences only in the merge that makes one of its tokens: after that its count only falls, and a
    // stale entry in the queue is put back where it belongs when its turn comes.
    for (const Pair pair : new_pairs_)
      if (const int64_t now = pairs_.at(pair).count; now > 0) queue_.push({now, pair});
    new_pairs_.clear();
    if (queue_.empty() || queue_.top().count < min_count) break;
    const Candidate best = queue_.top();
    queue_.pop();
    const auto it = pairs_.find(best.pair);
    if (it == pairs_.end()) continue;
    if (it->second.count != best.count) {
      if (it->second.count > 0) queue_.push({it->second.count, best.pair});
      continue;
    }
    const auto left = static_cast<int32_t>(best.pair >> 32), right = static_cast<int32_t>(best.pair & 0xFFFFFFFF);
    std::string bytes = tokens_[left] + tokens_[right];
    if (!spelled_.insert(bytes).second) continue;
    const Merge merge{left, right, static_cast<int32_t>(tokens_.size())};
    tokens_.push_back(std::move(bytes));
    merges_.push_back(merge);
    const std::vector<uint32_t> where = std::move(it->second.pieces);
    for (const uint32_t piece : where) merge_in(piece, merge);
    pairs_.erase(best.pair);
  }
  return merges_;
}

int64_t MergeLearner::token_count() const {
  int64_t total = 0;
  for (const Piece& piece : pieces_) total += piece.count * piece.length;
  return total;
}

}  // namespace tessera
