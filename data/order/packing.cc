#include "data/order/packing.h"

#include <algorithm>
#include <limits>

#include "tensor/check.h"

namespace tessera {
namespace {

int64_t checked_slots(int64_t samples, int64_t sequence_length) {
  TESSERA_CHECK(samples > 0 && sequence_length > 0, "a microbatch of at least one token");
  TESSERA_CHECK(samples <= std::numeric_limits<int32_t>::max() / sequence_length, "slots are numbered in 31 bits");
  return samples * sequence_length;
}

}  // namespace

int64_t sample_count(int64_t tokens, int64_t sequence_length, LastSample last) {
  return last == LastSample::Drop ? tokens / sequence_length : (tokens + sequence_length - 1) / sequence_length;
}

PackedBatch::PackedBatch(int64_t samples, int64_t sequence_length)
    : sequence_length_(sequence_length), memory_(checked_slots(samples, sequence_length)) {}

int64_t PackedBatch::bytes(int64_t samples, int64_t sequence_length) {
  return BatchMemory::bytes(samples * sequence_length);
}

void PackedBatch::clear() {
  memory_.clear();
  slots_ = targets_count_ = 0;
  next_document_ = 0;
}

void PackedBatch::add(const TokenDataset& dataset, int64_t sample, Documents documents) {
  TESSERA_CHECK(slots_ + sequence_length_ <= memory_.slots(), "room for another sample");
  const int64_t begin = sample * sequence_length_;
  TESSERA_CHECK(sample >= 0 && begin < dataset.tokens(), "a sample of the data set");
  const int64_t count = std::min(sequence_length_, dataset.tokens() - begin);

  const std::span<int32_t> tokens = memory_.array(&Batch::tokens).subspan(slots_, count);
  const std::span<int32_t> targets = memory_.array(&Batch::targets).subspan(slots_, count);
  dataset.read(begin, tokens);
  std::copy(tokens.begin() + 1, tokens.end(), targets.begin());
  if (begin + count < dataset.tokens())
    dataset.read(begin + count, {&targets.back(), 1});
  else
    targets.back() = -1;
  add_segments(dataset, begin, count, documents);
  targets_count_ += memory_.count_targets(slots_, slots_ + count);
  memory_.pad(slots_ + count, slots_ + sequence_length_, dataset.end_of_text());
  slots_ += sequence_length_;
  batch_ = memory_.view();
}

// Fills positions, document ids and segments of the sample, and cuts the targets at the documents' ends.
void PackedBatch::add_segments(const TokenDataset& dataset, int64_t begin, int64_t count, Documents documents) {
  const auto put = [&](int64_t from, int64_t to) { memory_.add_document(from, to, next_document_++); };
  if (documents == Documents::Joined) return put(slots_, slots_ + count);
  TokenDataset::Cursor cursor = dataset.documents_from(begin);
  for (int64_t from = 0; from < count;) {
    const int64_t end = cursor.next_end(begin + count) - begin, to = std::min(end, count);
    put(slots_ + from, slots_ + to);
    if (end <= count) memory_.array(&Batch::targets)[slots_ + end - 1] = -1;
    from = to;
  }
}

void PackedBatch::add_padding(int32_t token) {
  TESSERA_CHECK(slots_ + sequence_length_ <= memory_.slots(), "room for another sample");
  memory_.pad(slots_, slots_ + sequence_length_, token);
  slots_ += sequence_length_;
  batch_ = memory_.view();
}

const Batch& PackedBatch::batch() const {
  TESSERA_CHECK_EQ(slots_, memory_.slots(), "all samples of the microbatch");
  return batch_;
}

}  // namespace tessera
