#include "data/order/packing.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "tensor/check.h"

namespace tessera {
namespace {

size_t checked_slots(int64_t samples, int64_t sequence_length) {
  TESSERA_CHECK(samples > 0 && sequence_length > 0, "a microbatch of at least one token");
  TESSERA_CHECK(samples <= std::numeric_limits<int32_t>::max() / sequence_length, "slots are numbered in 31 bits");
  return static_cast<size_t>(samples * sequence_length);
}

}  // namespace

int64_t sample_count(int64_t tokens, int64_t sequence_length, LastSample last) {
  return last == LastSample::Drop ? tokens / sequence_length : (tokens + sequence_length - 1) / sequence_length;
}

PackedBatch::PackedBatch(int64_t samples, int64_t sequence_length)
    : sequence_length_(sequence_length),
      tokens_(checked_slots(samples, sequence_length)),
      targets_(tokens_.size()),
      position_(tokens_.size()),
      document_(tokens_.size()),
      segments_(tokens_.size()),
      batch_{tokens_, targets_, position_, document_, {}} {}

int64_t PackedBatch::bytes(int64_t samples, int64_t sequence_length) {
  return samples * sequence_length * static_cast<int64_t>(4 * sizeof(int32_t) + sizeof(Segment));
}

void PackedBatch::clear() {
  slots_ = segment_count_ = targets_count_ = 0;
  next_document_ = 0;
  batch_.segments = {};
}

void PackedBatch::add(const TokenDataset& dataset, int64_t sample, Documents documents) {
  TESSERA_CHECK(slots_ + sequence_length_ <= std::ssize(tokens_), "room for another sample");
  const int64_t begin = sample * sequence_length_;
  TESSERA_CHECK(sample >= 0 && begin < dataset.tokens(), "a sample of the data set");
  const int64_t count = std::min(sequence_length_, dataset.tokens() - begin);

  dataset.read(begin, std::span(tokens_).subspan(slots_, count));
  std::copy_n(tokens_.begin() + slots_ + 1, count - 1, targets_.begin() + slots_);
  int32_t& last_target = targets_[slots_ + count - 1];
  if (begin + count < dataset.tokens())
    dataset.read(begin + count, {&last_target, 1});
  else
    last_target = -1;
  add_segments(dataset, begin, count, documents);
  targets_count_ += count - std::count(targets_.begin() + slots_, targets_.begin() + slots_ + count, -1);
  pad(slots_ + count, slots_ + sequence_length_, dataset.end_of_text());
  slots_ += sequence_length_;
  batch_.segments = std::span<const Segment>(segments_).first(segment_count_);
}

// Fills positions, document ids and segments of the sample, and cuts the targets at the documents' ends.
void PackedBatch::add_segments(const TokenDataset& dataset, int64_t begin, int64_t count, Documents documents) {
  const auto put = [&](int64_t from, int64_t to) {
    std::iota(position_.begin() + from, position_.begin() + to, 0);
    std::fill(document_.begin() + from, document_.begin() + to, next_document_);
    segments_[segment_count_++] = {static_cast<int32_t>(from), static_cast<int32_t>(to), next_document_++, 0};
  };
  if (documents == Documents::Joined) return put(slots_, slots_ + count);
  TokenDataset::Cursor cursor = dataset.documents_from(begin);
  for (int64_t from = 0; from < count;) {
    const int64_t end = cursor.next_end(begin + count) - begin, to = std::min(end, count);
    put(slots_ + from, slots_ + to);
    if (end <= count) targets_[slots_ + end - 1] = -1;
    from = to;
  }
}

void PackedBatch::pad(int64_t from, int64_t to, int32_t token) {
  std::fill(tokens_.begin() + from, tokens_.begin() + to, token);
  std::fill(targets_.begin() + from, targets_.begin() + to, -1);
  std::fill(position_.begin() + from, position_.begin() + to, 0);
  std::fill(document_.begin() + from, document_.begin() + to, -1);
}

void PackedBatch::add_padding(int32_t token) {
  TESSERA_CHECK(slots_ + sequence_length_ <= std::ssize(tokens_), "room for another sample");
  pad(slots_, slots_ + sequence_length_, token);
  slots_ += sequence_length_;
}

const Batch& PackedBatch::batch() const {
  TESSERA_CHECK_EQ(slots_, std::ssize(tokens_), "all samples of the microbatch");
  return batch_;
}

}  // namespace tessera
