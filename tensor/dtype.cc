#include "tensor/dtype.h"

namespace tessera {

const char* name(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return "F64";
    case DType::F32:
      return "F32";
    case DType::BF16:
      return "BF16";
    case DType::E4M3:
      return "E4M3";
    case DType::E5M2:
      return "E5M2";
    case DType::I32:
      return "I32";
    case DType::U16:
      return "U16";
    case DType::U32:
      return "U32";
  }
  return "?";
}

DType parse_dtype(const std::string& text, const std::string& what) {
  for (DType dtype : {DType::F64, DType::F32, DType::BF16, DType::I32, DType::U16, DType::U32}) {
    if (text == name(dtype)) return dtype;
  }
  throw UsageError(what + " = " + text + " is not a known dtype; choose F64, F32 or BF16");
}

}  // namespace tessera
