#include "checkpoint/format/staging.h"

#include <algorithm>
#include <cstring>

namespace tessera {

void Staging::reserve(int64_t bytes, const ShardLayout& layout) {
  if (bytes > 0) {
    // A block that does not fit behind the last one wraps around: a block more than all of them is always enough.
    bytes = std::max(2 * kBlockBytes, std::min(bytes, layout.piece_bytes() + kBlockBytes));
  }
  ring_.assign(static_cast<size_t>(bytes), std::byte{0});  // touched now, not while training waits
  bounce_.resize(copy_ ? static_cast<size_t>(kBlockBytes) : 0);
}

void Staging::begin(const ShardLayout& layout, const std::vector<Piece>& pieces) {
  const std::lock_guard lock(mutex_);
  layout_ = &layout;
  pieces_ = &pieces;
  next_ = 0;
  handed_over_ = done_ = from_state_ = from_ring_ = false;
  staged_.clear();
  head_ = 0;
}

void Staging::copy(size_t block, std::span<std::byte> to) const {
  const ShardLayout::Block& from = layout_->blocks()[block];
  const Piece& piece = (*pieces_)[from.piece];
  if (piece.data.device() != Device::Cpu) {
    TESSERA_CHECK(copy_ != nullptr, piece.name + " is on a device that nothing copies from");
    return copy_(piece.data, from.first, to);
  }
  const auto bytes = bytes_of(piece, from);
  std::memcpy(to.data(), bytes.data(), bytes.size());
}

// Ends the use of what the writer took last. The mutex is held.
void Staging::release() {
  if (from_ring_) staged_.pop_front();
  from_ring_ = from_state_ = false;
  changed_.notify_all();
}

std::span<const std::byte> Staging::take() {
  std::unique_lock lock(mutex_);
  release();
  const size_t block = next_++;
  TESSERA_CHECK(block < layout_->blocks().size(), "there is another block");
  const auto bytes = static_cast<size_t>(layout_->blocks()[block].bytes);
  if (!handed_over_ || ring_.empty()) {
    from_state_ = true;
    const Piece& piece = (*pieces_)[layout_->blocks()[block].piece];
    if (piece.data.device() == Device::Cpu) return bytes_of(piece, layout_->blocks()[block]);
    lock.unlock();
    copy(block, std::span(bounce_).first(bytes));
    return std::span(bounce_).first(bytes);
  }
  changed_.wait(lock, [&] { return !staged_.empty(); });
  from_ring_ = true;
  return std::span(ring_).subspan(static_cast<size_t>(staged_.front().begin) % ring_.size(), bytes);
}

void Staging::done() {
  const std::lock_guard lock(mutex_);
  release();
  done_ = true;
  changed_.notify_all();
}

// Where the next bytes go: behind the last ones, or at the ring's beginning when they would not fit.
int64_t Staging::place(int64_t bytes) const {
  const auto size = static_cast<int64_t>(ring_.size());
  return head_ % size + bytes <= size ? head_ : head_ + size - head_ % size;
}

void Staging::hand_over() {
  std::unique_lock lock(mutex_);
  if (handed_over_) return;
  handed_over_ = true;
  if (ring_.empty()) {
    changed_.wait(lock, [&] { return done_; });
    return;
  }
  const auto size = static_cast<int64_t>(ring_.size());
  for (size_t block = next_; block < layout_->blocks().size(); ++block) {
    const int64_t bytes = layout_->blocks()[block].bytes;
    const int64_t begin = place(bytes);
    changed_.wait(lock, [&] { return done_ || staged_.empty() || begin + bytes - staged_.front().begin <= size; });
    if (done_) return;
    lock.unlock();
    copy(block, std::span(ring_).subspan(static_cast<size_t>(begin % size), static_cast<size_t>(bytes)));
    lock.lock();
    staged_.push_back({begin, begin + bytes});
    head_ = begin + bytes;
    changed_.notify_all();
  }
  changed_.wait(lock, [&] { return !from_state_ || done_; });
}

}  // namespace tessera
