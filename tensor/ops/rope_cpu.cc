#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/context/threads.h"
#include "tensor/ops/rope_kernels.h"

namespace tessera {
namespace {

enum class Direction { Forward, Backward };  // rotation by the angle, or by minus the angle

// Copies one head's row, rotated when `angles` (head_dim/2 cosines, then sines) is given.
template <Direction direction, class T>
void move_row(const T* from, const Acc<T>* angles, int64_t head_dim, T* to) {
  using A = Acc<T>;
  if (angles == nullptr) {
    std::memcpy(to, from, static_cast<size_t>(head_dim) * sizeof(T));
    return;
  }
  const int64_t half = head_dim / 2;
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const A cosine = angles[i], sine = direction == Direction::Forward ? angles[half + i] : -angles[half + i];
    const A low = static_cast<A>(from[i]), high = static_cast<A>(from[half + i]);
    to[i] = round_to<T>(low * cosine - high * sine);
    to[half + i] = round_to<T>(high * cosine + low * sine);
  }
}

// Moves all rows between the fused projection and the head-major operands, token by token: reading (or writing) the
// fused rows in order was faster than any tile of tokens with longer runs inside a head.
template <Direction direction, class T>
void move_heads(const Context& context, T* fused, const HeadLayout& layout, const Acc<T>* table, int64_t tokens, T* q,
                T* k, T* v) {
  const int64_t head_dim = layout.head_dim, head_size = tokens * head_dim;
  parallel_for(context, tokens, 1 + 16384 / (layout.width() + 1), [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const Acc<T>* angles = table ? table + t * head_dim : nullptr;
      T* wide = fused + t * layout.width();
      const auto move = [&](T* head, const Acc<T>* by) {
        T* narrow = head + t * head_dim;
        if constexpr (direction == Direction::Forward)
          move_row<direction>(wide, by, head_dim, narrow);
        else
          move_row<direction>(narrow, by, head_dim, wide);
        wide += head_dim;
      };
      for (int64_t h = 0; h < layout.kv_heads; ++h) {
        for (int64_t m = 0; m < layout.q_per_kv; ++m) move(q + (h * layout.q_per_kv + m) * head_size, angles);
        move(k + h * head_size, angles);
        move(v + h * head_size, nullptr);
      }
    }
  });
}

}  // namespace

void cpu::rope_table(const Context& context, std::span<const int32_t> position, double theta, const Tensor& table) {
  const int64_t head_dim = table.dim(1), half = head_dim / 2;
  dispatch_float(table.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    A* out = table.as<A>();
    // A frequency is computed once for a tile of tokens, since a power costs more than a sine.
    constexpr int64_t kTile = 64;
    parallel_for(context, table.dim(0), kTile, [=](int64_t begin, int64_t end) {
      for (int64_t first = begin; first < end; first += kTile) {
        const int64_t last = std::min(end, first + kTile);
        for (int64_t i = 0; i < half; ++i) {
          const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
          for (int64_t t = first; t < last; ++t) {
            const double angle = position[t] * frequency;
            out[t * head_dim + i] = static_cast<A>(std::cos(angle));
            out[t * head_dim + half + i] = static_cast<A>(std::sin(angle));
          }
        }
      }
    });
  });
}

void cpu::split_heads(const Context& context, const ConstTensor& qkv, const HeadLayout& layout,
                      const ConstTensor& table, const Tensor& q, const Tensor& k, const Tensor& v) {
  dispatch_float(qkv.dtype(), [&]<class T>(T) {
    const Acc<T>* angles = table.empty() ? nullptr : table.as<Acc<T>>();
    // Moving forward only reads the fused rows.
    move_heads<Direction::Forward, T>(context, const_cast<T*>(qkv.as<T>()), layout, angles, qkv.dim(0), q.as<T>(),
                                      k.as<T>(), v.as<T>());
  });
}

void cpu::split_heads_backward(const Context& context, const ConstTensor& dq, const ConstTensor& dk,
                               const ConstTensor& dv, const HeadLayout& layout, const ConstTensor& table,
                               const Tensor& dqkv) {
  dispatch_float(dqkv.dtype(), [&]<class T>(T) {
    const Acc<T>* angles = table.empty() ? nullptr : table.as<Acc<T>>();
    // Moving backward only reads the heads.
    move_heads<Direction::Backward, T>(context, dqkv.as<T>(), layout, angles, dqkv.dim(0), const_cast<T*>(dq.as<T>()),
                                       const_cast<T*>(dk.as<T>()), const_cast<T*>(dv.as<T>()));
  });
}

}  // namespace tessera
