// The merge loop of BPE training, with counts of pairs that are kept up to date instead of taken anew.
#pragma once

#include <cstdint>
#include <queue>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "data/tokenizer/bpe.h"
#include "data/tokenizer/piece_counter.h"

namespace tessera {

class MergeLearner {
 public:
  // Tokens 0..255 are the bytes. `forbidden`: bytes that no new token may spell.
  MergeLearner(const PieceCounts& pieces, std::string forbidden);

  // Learns up to `count` more merges while some pair occurs at least `min_count` times; returns all merges so far.
  // The most frequent pair is next; of equal ones the one with the smaller left, then the smaller right id. A pair that
  // spells an existing token is passed over.
  const std::vector<Merge>& learn(int64_t count, int64_t min_count);

  const std::vector<std::string>& tokens() const { return tokens_; }  // [id] bytes
  int64_t token_count() const;                                        // tokens of all pieces, occurrences counted

 private:
  using Pair = uint64_t;  // left id << 32 | right id: its order is the order of ties
  struct PairState {
    int64_t count = 0;
    std::vector<uint32_t> pieces;  // rising; those that have, or once had, the pair
  };
  struct Piece {
    size_t begin;  // in symbols_
    uint32_t length;
    int64_t count;
  };
  struct Candidate {
    int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {  // the greatest is next
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  void change(Pair pair, int64_t amount, uint32_t piece);
  void merge_in(uint32_t piece, const Merge& merge);

  std::vector<std::string> tokens_;
  std::unordered_set<std::string> spelled_;
  std::vector<Merge> merges_;
  std::vector<int32_t> symbols_;
  std::vector<Piece> pieces_;
  std::unordered_map<Pair, PairState> pairs_;
  std::vector<Pair> new_pairs_;           // since the last merge
  std::priority_queue<Candidate> queue_;  // counts may be out of date, but only too high
};

}  // namespace tessera
