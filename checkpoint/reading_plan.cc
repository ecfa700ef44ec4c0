#include "checkpoint/reading_plan.h"

#include <algorithm>

namespace tessera {

ReadingPlan::ReadingPlan(const CheckpointReader& reader, const HeldByRank& held)
    : reader_(reader), held_(held), holders_(reader.tensors().size()), assigned_(held.size()) {
  for (size_t rank = 0; rank < held.size(); ++rank) {
    for (size_t slice = 0; slice < held[rank].size(); ++slice) {
      const StoredTensor* tensor = reader.find(held[rank][slice].tensor);
      TESSERA_CHECK(tensor != nullptr, "the state fits the checkpoint");
      holders_[tensor - reader.tensors().data()].emplace_back(static_cast<int>(rank), slice);
    }
  }
  if (!holders_.empty()) wants_ = wants_of(reader.tensors()[0]);
}

std::vector<ReadingPlan::Want> ReadingPlan::wants_of(const StoredTensor& tensor) const {
  std::vector<Want> wants;
  for (const auto& [rank, slice] : holders_[&tensor - reader_.tensors().data()]) {
    const Interval& rows = held_[rank][slice].rows;
    wants.push_back({rank, slice, {rows.begin * tensor.row_bytes(), rows.end * tensor.row_bytes()}});
  }
  return wants;
}

std::vector<Reading> ReadingPlan::next(size_t count) {
  std::vector<Reading> readings;
  while (tensor_ < reader_.tensors().size() && readings.size() < count) {
    const StoredTensor& tensor = reader_.tensors()[tensor_];
    if (wants_.empty() || part_ == tensor.parts.size()) {
      part_ = 0;
      if (++tensor_ < reader_.tensors().size()) wants_ = wants_of(reader_.tensors()[tensor_]);
      continue;
    }
    const StoredTensor::Part& part = tensor.parts[part_];
    if (block_ == block_count(part.box.bytes)) {
      block_ = 0;
      ++part_;
      continue;
    }
    Reading reading{&tensor, &part, block_, std::min(kBlockBytes, part.box.bytes - block_ * kBlockBytes), 0, {}};
    const int64_t begin = part.box.rows.begin * tensor.row_bytes() + block_ * kBlockBytes;
    for (const Want& want : wants_) {
      const Interval here = intersect(want.bytes, {begin, begin + reading.bytes});
      if (here.empty()) continue;
      reading.deliveries.push_back(
          {want.rank, want.slice, here.begin - begin, here.begin - want.bytes.begin, here.size()});
    }
    ++block_;
    if (reading.deliveries.empty()) continue;
    reading.reader = reading.deliveries[0].rank;
    for (const auto& delivery : reading.deliveries) {
      if (assigned_[delivery.rank] < assigned_[reading.reader]) reading.reader = delivery.rank;
    }
    assigned_[reading.reader] += reading.bytes;
    readings.push_back(std::move(reading));
  }
  return readings;
}

}  // namespace tessera
