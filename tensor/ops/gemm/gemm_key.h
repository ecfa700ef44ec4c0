// What a matrix library's primitive depends on: the key under which it is kept. Internal to tensor/ops.
#pragma once

#include "tensor/ops/gemm/gemm_cpu.h"

namespace tessera {

// What follows a product in the same kernel (gemm_gelu.h).
enum class GemmEpilogue : uint8_t { None, Gelu, GeluBackward };

struct GemmKey {
  GemmShape shape;
  DType a, b, c;
  GemmOptions options;
  bool bias;
  bool aligned = true;  // operands to 16 bytes; asked on GPUs
  GemmEpilogue epilogue = GemmEpilogue::None;

  bool operator==(const GemmKey& o) const {
    return shape.m == o.shape.m && shape.n == o.shape.n && shape.k == o.shape.k && a == o.a && b == o.b && c == o.c &&
           options.a == o.options.a && options.b == o.options.b && options.c == o.options.c && bias == o.bias &&
           aligned == o.aligned && epilogue == o.epilogue;
  }
};

struct GemmKeyHash {
  size_t operator()(const GemmKey& key) const {
    uint64_t hash = 0;
    const auto mix = [&](uint64_t value) {
      hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 29;
    };
    mix(key.shape.m);
    mix(key.shape.n);
    mix(key.shape.k);
    mix(static_cast<uint64_t>(key.a) | static_cast<uint64_t>(key.b) << 4 | static_cast<uint64_t>(key.c) << 8 |
        static_cast<uint64_t>(key.options.a) << 12 | static_cast<uint64_t>(key.options.b) << 13 |
        static_cast<uint64_t>(key.options.c) << 14 | static_cast<uint64_t>(key.bias) << 15 |
        static_cast<uint64_t>(key.aligned) << 16 | static_cast<uint64_t>(key.epilogue) << 17);
    return hash;
  }
};

}  // namespace tessera
