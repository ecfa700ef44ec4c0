// The order of a source's samples in a run that changes its sequence length.
//
// While the length stays, the order is SourceOrder's: epoch after epoch, each a keyed permutation of the samples. Where
// another length L begins inside an epoch, the source first gives the samples of length L of which the epoch has given
// no token, in a keyed permutation of their own; then whole epochs of length L follow. So within an epoch no token is
// given twice, whatever the lengths were. Tokens of samples that the epoch has given in part wait for the next epoch:
// samples are whole stretches of the text, and are not pieced together.
//
// What an epoch has given before a change is kept as one bit for each of its samples.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/order/history.h"
#include "data/order/permutation.h"

namespace tessera {

class ContinuedOrder {
 public:
  // tokens: of the source. stretches: of DataHistory; the last one's order it is. Takes time and a bit of memory for
  // each sample of the epochs that a change of length fell into; nothing where there was none.
  ContinuedOrder(int64_t tokens, uint64_t seed, std::string source, const std::vector<Stretch>& stretches);

  // The sample, in [0, tokens / L), that is the stretch's index-th: it is tokens [sample * L, (sample + 1) * L).
  int64_t operator()(int64_t index) const;

  // Samples that the stretch gives of the epoch that it began in, when another length had given some of it.
  int64_t left() const { return left_ ? left_->count : 0; }

 private:
  // Some of the samples of one length.
  struct Marked {
    Marked(int64_t length, int64_t samples) : sequence_length(length), bits(static_cast<size_t>((samples + 63) / 64)) {}
    void mark(int64_t sample) { bits[static_cast<size_t>(sample / 64)] |= uint64_t{1} << sample % 64; }
    bool has(int64_t sample) const { return (bits[static_cast<size_t>(sample / 64)] >> sample % 64 & 1) != 0; }

    int64_t sequence_length;
    std::vector<uint64_t> bits;
  };
  // The samples of which an epoch has given nothing.
  struct Left {
    Left(int64_t sequence_length, int64_t samples, const std::vector<Marked>& given);
    int64_t operator()(int64_t index) const;  // the index-th, ascending

    Marked marked;
    std::vector<int64_t> before;  // marked samples before each word of bits
    int64_t count = 0;
    std::optional<Permutation> order;  // of their numbers; none where there are none
  };

  void begin(int64_t sequence_length);
  void give(int64_t samples);  // what the stretch gave before the next one began

  int64_t tokens_;
  uint64_t seed_;
  std::string source_;
  int64_t sequence_length_ = 0;
  int64_t epoch_ = 0;          // first whole one of the stretch; while `given_` holds something: the one it is of
  std::vector<Marked> given_;  // of the epoch at hand, by the stretches before
  std::optional<Left> left_;
  std::optional<SourceOrder> whole_;
};

}  // namespace tessera
