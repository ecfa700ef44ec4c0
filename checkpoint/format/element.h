// Elements of any dtype as numbers.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>

#include "tensor/dtype.h"

namespace tessera {

// Calls visit(value as double) for each element of `bytes`, which need not be aligned.
template <class Visit>
void for_each_element(DType dtype, std::span<const std::byte> bytes, Visit&& visit) {
  const auto walk = [&]<class T>(T element) {
    for (size_t at = 0; at + sizeof(T) <= bytes.size(); at += sizeof(T)) {
      std::memcpy(&element, bytes.data() + at, sizeof(T));
      visit(static_cast<double>(element));
    }
  };
  switch (dtype) {
    case DType::F64:
      return walk(double{});
    case DType::F32:
      return walk(float{});
    case DType::BF16:
      return walk(bf16{});
    case DType::E4M3:
      return walk(e4m3{});
    case DType::E5M2:
      return walk(e5m2{});
    case DType::I32:
      return walk(int32_t{});
    case DType::U16:
      return walk(uint16_t{});
    case DType::U32:
      return walk(uint32_t{});
  }
}

}  // namespace tessera
