#include "data/order/continued_order.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "data/order/packing.h"
#include "tensor/check.h"

namespace tessera {

ContinuedOrder::Left::Left(int64_t sequence_length, int64_t samples, const std::vector<Marked>& given)
    : marked(sequence_length, samples) {
  for (int64_t sample = 0; sample < samples; ++sample) {
    const int64_t first = sample * sequence_length, last = first + sequence_length - 1;
    const bool fresh = std::ranges::all_of(given, [&](const Marked& other) {
      const int64_t end = std::min(last / other.sequence_length + 1, static_cast<int64_t>(64 * other.bits.size()));
      for (int64_t theirs = first / other.sequence_length; theirs < end; ++theirs)
        if (other.has(theirs)) return false;
      return true;
    });
    if (fresh) marked.mark(sample);
  }
  for (const uint64_t word : marked.bits) {
    before.push_back(count);
    count += std::popcount(word);
  }
}

int64_t ContinuedOrder::Left::operator()(int64_t index) const {
  const auto after = std::upper_bound(before.begin(), before.end(), index);
  const auto word = after - before.begin() - 1;
  uint64_t bits = marked.bits[static_cast<size_t>(word)];
  for (int64_t skipped = before[static_cast<size_t>(word)]; skipped < index; ++skipped) bits &= bits - 1;
  return 64 * word + std::countr_zero(bits);
}

ContinuedOrder::ContinuedOrder(int64_t tokens, uint64_t seed, std::string source, const std::vector<Stretch>& stretches)
    : tokens_(tokens), seed_(seed), source_(std::move(source)) {
  TESSERA_CHECK(!stretches.empty(), "an order has the length of its last stretch");
  for (size_t i = 0; i < stretches.size(); ++i) {
    begin(stretches[i].sequence_length);
    if (i + 1 < stretches.size()) give(stretches[i].samples);
  }
}

void ContinuedOrder::begin(int64_t sequence_length) {
  sequence_length_ = sequence_length;
  const int64_t samples = sample_count(tokens_, sequence_length, LastSample::Drop);
  whole_.emplace(samples, seed_, source_);
  left_.reset();
  if (given_.empty()) return;
  left_.emplace(sequence_length, samples, given_);
  // Keyed by what makes it another order than that of the epoch's whole, and than those of other lengths.
  const RandomStream keys(seed_, fmt::format("rest of an epoch/{}/{}", sequence_length, source_));
  if (left_->count > 0) left_->order.emplace(left_->count, keys.bits(static_cast<uint64_t>(epoch_)));
  ++epoch_;
}

int64_t ContinuedOrder::operator()(int64_t index) const {
  TESSERA_CHECK(index >= 0, "the number of a sample");
  const int64_t rest = left();
  if (index < rest) return (*left_)((*left_->order)(index));
  const int64_t samples = sample_count(tokens_, sequence_length_, LastSample::Drop);
  return (*whole_)(epoch_ * samples + index - rest);
}

void ContinuedOrder::give(int64_t samples) {
  const int64_t an_epoch = sample_count(tokens_, sequence_length_, LastSample::Drop), rest = left();
  if (left_ && samples <= rest) {
    --epoch_;  // It is still the epoch that the stretch began in.
    Marked& marked = given_.emplace_back(sequence_length_, an_epoch);
    for (int64_t index = 0; index < samples; ++index) marked.mark((*left_)((*left_->order)(index)));
    return;
  }
  given_.clear();
  epoch_ += (samples - rest) / an_epoch;
  const int64_t of_last_epoch = (samples - rest) % an_epoch;
  if (of_last_epoch == 0) return;
  Marked& marked = given_.emplace_back(sequence_length_, an_epoch);
  for (int64_t index = 0; index < of_last_epoch; ++index) marked.mark((*whole_)(epoch_ * an_epoch + index));
}

}  // namespace tessera
