// How gradients travel in a reduction whose sum is shared out over a group.
//
//   Full   a reduce-scatter in the accumulation dtype
//   Bf16   rounded to BF16, each part to its owner (an all-to-all), and added there in F32 in rank order: half the
//          bytes of Full for F32, and one rounding an element and rank however large the group is
//
// Bf16 adds in rank order whatever moves it, Full as the group does (parallel/comm/comm.h): either repeats its bits.
#pragma once

#include "parallel/comm/comm.h"
#include "tensor/context/context.h"
#include "tensor/memory/arena.h"

namespace tessera {

enum class WireFormat : uint8_t { Full, Bf16 };

class GradientWire {
 public:
  // Scratch for groups of at most `ranks`, and gradients of `accumulation` dtype, in the arena (a tally states it).
  GradientWire(WireFormat format, DType accumulation, int ranks, Arena& arena);

  // x [n * rows, ...] (accumulation dtype): part group.rank() becomes the ranks' sum when the request has been waited
  // for, the other parts hold nothing of use. A reduce-scatter goes on beside what comes next, BF16 ends at once.
  [[nodiscard]] Request start(const Context& context, Comm& group, const Tensor& x) const;

  // Bytes that start() sends from this rank.
  static int64_t sent(WireFormat format, DType accumulation, int64_t part_elements, int ranks);

 private:
  void reduce_bf16(const Context& context, Comm& group, const Tensor& x) const;

  WireFormat format_;
  Tensor outgoing_, incoming_;  // [elements] BF16
};

}  // namespace tessera
