// Small host arrays (token ids, positions, tile lists) on their way to the device.
//
// Operations take such arrays from host memory, on whatever device they run. A ring of pinned memory with a ring of
// device memory behind it carries them: what take() returns is filled by the host and sent by send(), and its device
// side may be read by kernels of the same stream until the ring comes round to it, which stream order makes safe. The
// host waits only when it is a whole ring ahead of the device.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <span>

#include "tensor/cuda/memory.h"
#include "tensor/cuda/stream.h"
#include "tensor/memory/buffer.h"

namespace tessera::cuda {

class Uploads {
 public:
  static constexpr int kSegments = 8;
  static constexpr int64_t kSegmentBytes = int64_t{1} << 20;  // the most that one take() may ask for

  // wait: blocks the host until an event is done.
  Uploads(const Stream& stream, std::function<void(const Event&)> wait);

  template <class T>
  struct Piece {
    std::span<T> host;
    T* device;
  };

  // Memory for `count` elements: fill host, then send, before the next take: the ring may move on with that.
  template <class T>
  Piece<T> take(int64_t count) {
    const int64_t at = reserve(count * static_cast<int64_t>(sizeof(T)));
    return {{reinterpret_cast<T*>(static_cast<char*>(host_.data()) + at), static_cast<size_t>(count)},
            reinterpret_cast<T*>(static_cast<char*>(device_.data()) + at)};
  }
  template <class T>
  const T* send(const Piece<T>& piece) {
    stream_.copy_to_device(piece.device, piece.host.data(), static_cast<int64_t>(piece.host.size_bytes()));
    return piece.device;
  }
  // Both at once: the device's copy of `values`.
  template <class T>
  const T* copy(std::span<const T> values) {
    const Piece<T> piece = take<T>(static_cast<int64_t>(values.size()));
    if (!values.empty()) std::memcpy(piece.host.data(), values.data(), values.size_bytes());
    return send(piece);
  }
  // Copies any number of values to device memory of the caller's, a segment at a time.
  template <class T>
  void copy_to(T* device, std::span<const T> values) {
    constexpr size_t kMost = static_cast<size_t>(kSegmentBytes) / sizeof(T);
    for (size_t first = 0; first < values.size(); first += kMost) {
      const std::span<const T> part = values.subspan(first, std::min(kMost, values.size() - first));
      const Piece<T> piece = take<T>(static_cast<int64_t>(part.size()));
      std::memcpy(piece.host.data(), part.data(), part.size_bytes());
      stream_.copy_to_device(device + first, piece.host.data(), static_cast<int64_t>(part.size_bytes()));
    }
  }

  int64_t bytes() const { return device_.bytes(); }

 private:
  int64_t reserve(int64_t bytes);

  const Stream& stream_;
  std::function<void(const Event&)> wait_;
  PinnedBuffer host_;
  Buffer device_;
  std::array<Event, kSegments> sent_;  // the last copy out of each segment
  int segment_ = 0;
  int64_t used_ = 0;  // of the segment
};

// Calls f(first, part) for parts of `values` that each fit into one take() with room for as much again, so that what f
// itself uploads first is still there for its kernels.
template <class T, class F>
void for_chunks(std::span<const T> values, F&& f) {
  constexpr size_t kMost = static_cast<size_t>(Uploads::kSegmentBytes) / sizeof(T) / 2;
  for (size_t first = 0; first < values.size(); first += kMost) {
    f(static_cast<int64_t>(first), values.subspan(first, std::min(kMost, values.size() - first)));
  }
}

}  // namespace tessera::cuda
