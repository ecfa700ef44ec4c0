#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/ops/rope_kernels.h"
#include "tensor/threads.h"

namespace tessera {
namespace {

// Tokens handled together: long enough that a head's rows make a few pages' worth of contiguous writes, short enough
// that the fused rows stay in the second-level cache meanwhile.
constexpr int64_t kTokenTile = 16;

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

// Moves all rows between the fused projection and the head-major operands.
template <Direction direction, class T>
void move_heads(const Context& context, T* fused, const HeadLayout& layout, const Acc<T>* table, int64_t tokens, T* q,
                T* k, T* v) {
  const int64_t head_dim = layout.head_dim, width = layout.width(), group = layout.q_per_kv + 2;
  parallel_for(context, tokens, kTokenTile, [=](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kTokenTile) {
      const int64_t last = std::min(end, first + kTokenTile);
      for (int64_t slot = 0; slot < layout.kv_heads * group; ++slot) {
        const int64_t kv_head = slot / group, member = slot % group;
        const bool is_query = member < layout.q_per_kv, is_value = member == layout.q_per_kv + 1;
        const int64_t head = is_query ? kv_head * layout.q_per_kv + member : kv_head;
        T* rows = (is_query ? q : is_value ? v : k) + head * tokens * head_dim;
        const Acc<T>* angles = is_value ? nullptr : table;
        for (int64_t t = first; t < last; ++t) {
          const Acc<T>* angle = angles ? angles + t * head_dim : nullptr;
          T *wide = fused + t * width + slot * head_dim, *narrow = rows + t * head_dim;
          if constexpr (direction == Direction::Forward)
            move_row<direction>(wide, angle, head_dim, narrow);
          else
            move_row<direction>(narrow, angle, head_dim, wide);
        }
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
