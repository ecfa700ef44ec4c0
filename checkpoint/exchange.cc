#include "checkpoint/exchange.h"

#include <algorithm>
#include <cstring>

#include "parallel/comm/agreement.h"

namespace tessera {
namespace {

// Blocks on each rank between two agreements that no disk failed.
constexpr size_t kBatch = 32;

}  // namespace

void Exchange::run(ReadingPlan& plan) {
  const size_t count = kBatch * static_cast<size_t>(world_.size());
  for (auto batch = plan.next(count); !batch.empty(); batch = plan.next(count)) {
    run_batch(batch);
    together(world_, [&] {
      if (failure_) std::rethrow_exception(failure_);
    });
  }
}

// In rounds: in each of them every rank reads at most one block, and waits until its messages are through. All ranks
// see the same rounds in the same order, so none waits for a message that is never sent.
void Exchange::run_batch(const std::vector<Reading>& batch) {
  std::vector<std::vector<const Reading*>> by_reader(static_cast<size_t>(world_.size()));
  for (const Reading& reading : batch) by_reader[reading.reader].push_back(&reading);
  const auto& own = by_reader[world_.rank()];
  size_t rounds = 0;
  for (const auto& readings : by_reader) rounds = std::max(rounds, readings.size());
  for (size_t round = 0; round < rounds; ++round) {
    for (const auto& readings : by_reader) {
      if (&readings != &own && round < readings.size()) receive(*readings[round]);
    }
    if (round < own.size()) read_and_send(*own[round]);
    for (Request& request : requests_) request.wait();
    requests_.clear();
  }
}

void Exchange::receive(const Reading& reading) {
  for (const auto& delivery : reading.deliveries) {
    if (delivery.rank != world_.rank()) continue;
    requests_.push_back(world_.receive(view(target(delivery), delivery, reading.tensor->dtype), reading.reader));
  }
}

void Exchange::read_and_send(const Reading& reading) {
  const auto block = place(reading);
  if (!failure_) {
    try {
      reader_.read_block(*reading.tensor, *reading.part, reading.block, block);
    } catch (const std::exception&) {
      failure_ = std::current_exception();
    }
  }
  for (const auto& delivery : reading.deliveries) {
    std::byte* const bytes = block.data() + delivery.in_block;
    if (delivery.rank != world_.rank()) {
      requests_.push_back(world_.send(view(bytes, delivery, reading.tensor->dtype), delivery.rank));
    } else if (bytes != target(delivery)) {
      std::memcpy(target(delivery), bytes, static_cast<size_t>(delivery.bytes));
    }
  }
}

// Where to read the block: a slice that wants all of it, or the buffer.
std::span<std::byte> Exchange::place(const Reading& reading) {
  const auto bytes = static_cast<size_t>(reading.bytes);
  for (const auto& delivery : reading.deliveries) {
    if (delivery.rank == world_.rank() && delivery.bytes == reading.bytes) return {target(delivery), bytes};
  }
  staging_.resize(kBlockBytes);
  return std::span(staging_).first(bytes);
}

Tensor Exchange::view(std::byte* bytes, const Reading::Delivery& delivery, DType dtype) const {
  return Tensor(bytes, Shape{delivery.bytes / size_of(dtype)}, dtype);
}

std::byte* Exchange::target(const Reading::Delivery& delivery) const {
  return static_cast<std::byte*>(state_.slices[delivery.slice].data.data()) + delivery.in_slice;
}

}  // namespace tessera
