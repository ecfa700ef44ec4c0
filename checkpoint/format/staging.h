// The way of a rank's blocks from the state to the thread that writes them, while the state may not wait.
//
// The writing thread takes block after block. As long as the state stays as it is, it takes them from there, and
// nothing is copied. Before the state changes, hand_over() copies what has not been written yet into a ring of a fixed
// size; when that is more than the ring holds, it waits for the writer to make room. So a ring as large as the state
// makes the stall of training a copy of what is left; a smaller one adds the writing of what does not fit; and it is
// never a copy of the whole state when training computed anything in between.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "checkpoint/format/shard_file.h"

namespace tessera {

// Copies bytes of a tensor, from `first` on, into host memory; returns when they are there. What a device supplies.
using HostCopy = std::function<void(const ConstTensor& from, int64_t first, std::span<std::byte> host)>;

class Staging {
 public:
  // copy: empty when all state is in host memory.
  explicit Staging(HostCopy copy) : copy_(std::move(copy)) {}

  // Allocates the ring: as much as asked for, or less when the layout's blocks take less; at least two blocks, or
  // nothing when bytes is 0, and then hand_over() waits until all is written.
  void reserve(int64_t bytes, const ShardLayout& layout);
  int64_t bytes() const { return static_cast<int64_t>(ring_.size() + bounce_.size()); }

  // Begins with the first block of the layout. Both must stay until the last block was taken.
  void begin(const ShardLayout& layout, const std::vector<Piece>& pieces);

  // For the writing thread: the next block, which stays until the next call or done().
  std::span<const std::byte> take();
  // For the writing thread: it takes no more, because all is written or because writing failed.
  void done();

  // For the training thread: returns when the state may change. Does nothing the second time.
  void hand_over();

 private:
  struct Staged {
    int64_t begin;  // counted from the first byte ever put into the ring
    int64_t end;
  };

  void release();
  int64_t place(int64_t bytes) const;
  void copy(size_t block, std::span<std::byte> to) const;

  HostCopy copy_;
  std::vector<std::byte> ring_;
  std::vector<std::byte> bounce_;  // a block on its way from a device
  const ShardLayout* layout_ = nullptr;
  const std::vector<Piece>* pieces_ = nullptr;

  std::mutex mutex_;
  std::condition_variable changed_;
  size_t next_ = 0;          // block that the writer takes next
  bool from_state_ = false;  // the writer is reading the state
  bool from_ring_ = false;   // the writer is reading the first of staged_
  bool handed_over_ = true;
  bool done_ = true;
  std::deque<Staged> staged_;  // copied and not written yet, in order
  int64_t head_ = 0;           // end of what was put into the ring
};

}  // namespace tessera
