// libcublasLt for tests: the entry points that tensor/ops/gemm/gemm_cuda.cc finds by name, with plain loops on the emulated
// device's memory. It takes matrices, scales, biases and epilogues as cuBLASLt's documentation has them, in columns:
// D [m, n] = epilogue(alpha scale_a scale_b op(A) op(B) + beta C), element (i, j) of a matrix at i + j * ld.
//
// Attributes must have the size that the documentation gives them, and what it excludes is not supported here either:
// 8 bits but as op(A) = A^T and op(B) = B in multiples of 16, GELU's argument in other places than multiples of 16
// bytes. It chooses an algorithm by the alignment that is asked for, and holds a product to it.
#include <cublasLt.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <numbers>
#include <optional>
#include <vector>

#include "tensor/dtype.h"
#include "tests/support/grid/memory.h"
#include "tests/support/grid/streams.h"

namespace {

using tessera::DType;

std::atomic<int> alive = 0, heuristics = 0;
std::atomic<bool> plain = false;

struct Alive {
  Alive() { ++alive; }
  Alive(const Alive&) { ++alive; }
  ~Alive() { --alive; }
};

struct Desc : Alive {
  cublasComputeType_t compute;
  std::map<cublasLtMatmulDescAttributes_t, std::vector<char>> attributes;

  template <class T>
  T get(cublasLtMatmulDescAttributes_t attribute, T otherwise) const {
    const auto found = attributes.find(attribute);
    if (found != attributes.end()) std::memcpy(&otherwise, found->second.data(), sizeof(T));
    return otherwise;
  }
  bool transposed(cublasLtMatmulDescAttributes_t attribute) const {
    return get<int32_t>(attribute, CUBLAS_OP_N) == CUBLAS_OP_T;
  }
  cublasLtEpilogue_t epilogue() const {
    return static_cast<cublasLtEpilogue_t>(get<uint32_t>(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT));
  }
  const void* pointer(cublasLtMatmulDescAttributes_t attribute) const { return get<const void*>(attribute, nullptr); }
};

struct Layout : Alive {
  cudaDataType_t type;
  int64_t rows, columns, ld;
};

struct Preference : Alive {
  uint32_t alignment[4] = {256, 256, 256, 256};  // of A, B, C, D
};

struct Handle : Alive {};

// What an algorithm's bytes hold here.
constexpr uint32_t kMade = 0x600DA160;
struct Algorithm {
  uint32_t made;
  uint32_t alignment[4];
};

std::optional<DType> dtype_of(cudaDataType_t type) {
  switch (type) {
    case CUDA_R_64F:
      return DType::F64;
    case CUDA_R_32F:
      return DType::F32;
    case CUDA_R_16BF:
      return DType::BF16;
    case CUDA_R_8F_E4M3:
      return DType::E4M3;
    case CUDA_R_8F_E5M2:
      return DType::E5M2;
    default:
      return std::nullopt;
  }
}

bool is_8_bits(cudaDataType_t type) { return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2; }

double element(cudaDataType_t type, const void* data, int64_t at) {
  switch (type) {
    case CUDA_R_64F:
      return static_cast<const double*>(data)[at];
    case CUDA_R_32F:
      return static_cast<double>(static_cast<const float*>(data)[at]);
    case CUDA_R_16BF:
      return static_cast<double>(static_cast<float>(static_cast<const tessera::bf16*>(data)[at]));
    case CUDA_R_8F_E4M3:
      return static_cast<double>(static_cast<float>(static_cast<const tessera::e4m3*>(data)[at]));
    default:
      return static_cast<double>(static_cast<float>(static_cast<const tessera::e5m2*>(data)[at]));
  }
}

void set_element(cudaDataType_t type, void* data, int64_t at, double value) {
  if (type == CUDA_R_64F)
    static_cast<double*>(data)[at] = value;
  else if (type == CUDA_R_32F)
    static_cast<float*>(data)[at] = static_cast<float>(value);
  else
    static_cast<tessera::bf16*>(data)[at] = tessera::round_to<tessera::bf16>(value);
}

// op(X), as [rows, columns] by rows.
struct Operand {
  Operand(const Layout& layout, const void* data, bool transposed)
      : rows(transposed ? layout.columns : layout.rows), columns(transposed ? layout.rows : layout.columns) {
    values.reserve(static_cast<size_t>(rows * columns));
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j)
        values.push_back(element(layout.type, data, transposed ? j + i * layout.ld : i + j * layout.ld));
    }
  }
  int64_t rows, columns;
  std::vector<double> values;
};

double gelu(double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x))); }
double gelu_slope(double x) {
  const double root = std::sqrt(2 / std::numbers::pi), t = std::tanh(root * (x + 0.044715 * x * x * x));
  return (1 + t) / 2 + x / 2 * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
}

bool has_gelu(cublasLtEpilogue_t epilogue) {
  return epilogue == CUBLASLT_EPILOGUE_GELU_AUX || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS ||
         epilogue == CUBLASLT_EPILOGUE_DGELU;
}
bool has_bias(cublasLtEpilogue_t epilogue) {
  return epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
}

// Whether the documentation has such a product.
bool supported(const Desc& desc, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
  const bool ta = desc.transposed(CUBLASLT_MATMUL_DESC_TRANSA), tb = desc.transposed(CUBLASLT_MATMUL_DESC_TRANSB);
  const int64_t m = ta ? a.columns : a.rows, k = ta ? a.rows : a.columns;
  const int64_t n = tb ? b.rows : b.columns, k_of_b = tb ? b.columns : b.rows;
  if (k != k_of_b || m != d.rows || n != d.columns || c.rows != d.rows || c.columns != d.columns) return false;
  for (const Layout* layout : {&a, &b, &c, &d}) {
    if (layout->ld < layout->rows || !dtype_of(layout->type)) return false;
  }
  if (c.type != d.type || is_8_bits(d.type)) return false;
  if ((desc.compute == CUBLAS_COMPUTE_64F) != (a.type == CUDA_R_64F)) return false;
  if (is_8_bits(a.type) || is_8_bits(b.type)) {
    if (!is_8_bits(a.type) || !is_8_bits(b.type) || (a.type == CUDA_R_8F_E5M2 && b.type == CUDA_R_8F_E5M2))
      return false;
    if (!ta || tb || m % 16 != 0 || n % 16 != 0 || k % 16 != 0) return false;
    if (desc.pointer(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER) == nullptr ||
        desc.pointer(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER) == nullptr)
      return false;
  } else if (a.type != b.type || (d.type != a.type && d.type != CUDA_R_32F)) {
    return false;
  }
  const cublasLtEpilogue_t epilogue = desc.epilogue();
  if (has_bias(epilogue)) {
    const void* bias = desc.pointer(CUBLASLT_MATMUL_DESC_BIAS_POINTER);
    if (plain || bias == nullptr || reinterpret_cast<uintptr_t>(bias) % 16 != 0 || a.type == CUDA_R_64F) return false;
    const auto type = desc.get<int32_t>(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, d.type);
    if (type != (is_8_bits(a.type) ? CUDA_R_16BF : d.type)) return false;
  }
  if (!has_gelu(epilogue)) return true;
  const auto ld = desc.get<int64_t>(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, 0);
  const void* aux = desc.pointer(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER);
  return !plain && d.type == CUDA_R_16BF && a.type == CUDA_R_16BF && aux != nullptr &&
         reinterpret_cast<uintptr_t>(aux) % 16 == 0 && ld >= d.rows && ld % 8 == 0;
}

void multiply(const Desc& desc, double alpha, const void* a, const Layout& of_a, const void* b, const Layout& of_b,
              double beta, void* d, const Layout& of_d) {
  const tessera::grid::DeviceAccess access;
  const Operand left(of_a, a, desc.transposed(CUBLASLT_MATMUL_DESC_TRANSA));
  const Operand right(of_b, b, desc.transposed(CUBLASLT_MATMUL_DESC_TRANSB));
  const cublasLtEpilogue_t epilogue = desc.epilogue();
  double scale = alpha;
  for (const auto attribute : {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER}) {
    if (const void* pointer = desc.pointer(attribute))
      scale *= static_cast<double>(*static_cast<const float*>(pointer));
  }
  void* aux = const_cast<void*>(desc.pointer(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER));
  const auto aux_ld = desc.get<int64_t>(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, 0);
  const bool f64 = desc.compute == CUBLAS_COMPUTE_64F;
  for (int64_t i = 0; i < left.rows; ++i) {
    for (int64_t j = 0; j < right.columns; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < left.columns; ++l) {
        sum += left.values[i * left.columns + l] * right.values[l * right.columns + j];
        if (!f64) sum = static_cast<double>(static_cast<float>(sum));
      }
      sum *= scale;
      if (beta != 0) sum += beta * element(of_d.type, d, i + j * of_d.ld);
      if (has_bias(epilogue)) {
        const cudaDataType_t type = is_8_bits(of_a.type) ? CUDA_R_16BF : of_d.type;
        sum += element(type, desc.pointer(CUBLASLT_MATMUL_DESC_BIAS_POINTER), i);
      }
      if (epilogue == CUBLASLT_EPILOGUE_DGELU) {
        sum *= gelu_slope(element(of_d.type, aux, i + j * aux_ld));
      } else if (has_gelu(epilogue)) {
        set_element(of_d.type, aux, i + j * aux_ld, sum);
        sum = gelu(sum);
      }
      set_element(of_d.type, d, i + j * of_d.ld, sum);
    }
  }
}

// Of the attributes that are in use.
size_t size_of(cublasLtMatmulDescAttributes_t attribute) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
    case CUBLASLT_MATMUL_DESC_TRANSB:
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return 4;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
      return 8;
    default:
      return 0;
  }
}

template <class To, class From>
To* as(From handle) {
  return reinterpret_cast<To*>(handle);
}

}  // namespace

extern "C" {

// For tests: handles, descriptors, layouts and preferences that were made and not destroyed; searches for an algorithm
// so far; and whether there are epilogues for GELU.
int fake_cublas_alive();
int fake_cublas_alive() { return alive; }
int fake_cublas_heuristics();
int fake_cublas_heuristics() { return heuristics; }
void fake_cublas_plain(bool only);
void fake_cublas_plain(bool only) { plain = only; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = as<std::remove_pointer_t<cublasLtHandle_t>>(new Handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete as<Handle>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "the functionality is not supported" : "another status";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  if ((compute == CUBLAS_COMPUTE_64F) != (scale == CUDA_R_64F)) return CUBLAS_STATUS_INVALID_VALUE;
  auto made = new Desc;
  made->compute = compute;
  *desc = as<std::remove_pointer_t<cublasLtMatmulDesc_t>>(made);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete as<Desc>(desc);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  if (bytes != size_of(attribute)) return CUBLAS_STATUS_INVALID_VALUE;
  const char* data = static_cast<const char*>(value);
  as<Desc>(desc)->attributes[attribute].assign(data, data + bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
  auto made = new Layout;
  made->type = type;
  made->rows = static_cast<int64_t>(rows);
  made->columns = static_cast<int64_t>(columns);
  made->ld = ld;
  *layout = as<std::remove_pointer_t<cublasLtMatrixLayout_t>>(made);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete as<Layout>(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = as<std::remove_pointer_t<cublasLtMatmulPreference_t>>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete as<Preference>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
    return bytes == 8 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
  const int operand = attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
  if (operand < 0 || operand > 3 || bytes != 4) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&as<Preference>(preference)->alignment[operand], value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int asked, cublasLtMatmulHeuristicResult_t* results, int* found) {
  ++heuristics;
  *found = 0;
  if (asked < 1) return CUBLAS_STATUS_INVALID_VALUE;
  if (!supported(*as<Desc>(desc), *as<Layout>(a), *as<Layout>(b), *as<Layout>(c), *as<Layout>(d)))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  Algorithm algorithm{.made = kMade, .alignment = {}};
  std::memcpy(algorithm.alignment, as<Preference>(preference)->alignment, sizeof(algorithm.alignment));
  static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));
  std::memcpy(&results[0].algo, &algorithm, sizeof(algorithm));
  results[0].state = CUBLAS_STATUS_SUCCESS;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t of_a, const void* b, cublasLtMatrixLayout_t of_b, const void* beta,
                              const void* c, cublasLtMatrixLayout_t of_c, void* d, cublasLtMatrixLayout_t of_d,
                              const cublasLtMatmulAlgo_t* algo, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
  const Desc& how = *as<Desc>(desc);
  Algorithm algorithm;
  std::memcpy(&algorithm, algo, sizeof(algorithm));
  const void* operands[] = {a, b, c, d};
  if (algorithm.made != kMade || c != d || (workspace == nullptr && workspace_bytes > 0) ||
      !supported(how, *as<Layout>(of_a), *as<Layout>(of_b), *as<Layout>(of_c), *as<Layout>(of_d)))
    return CUBLAS_STATUS_INVALID_VALUE;
  for (int i = 0; i < 4; ++i) {
    if (reinterpret_cast<uintptr_t>(operands[i]) % algorithm.alignment[i] != 0) return CUBLAS_STATUS_INVALID_VALUE;
  }
  const auto number = [&](const void* at) {
    return how.compute == CUBLAS_COMPUTE_64F ? *static_cast<const double*>(at)
                                             : static_cast<double>(*static_cast<const float*>(at));
  };
  tessera::grid::queue(
      stream, [=, how = how, of_a = *as<Layout>(of_a), of_b = *as<Layout>(of_b), of_d = *as<Layout>(of_d),
               alpha = number(alpha), beta = number(beta)] { multiply(how, alpha, a, of_a, b, of_b, beta, d, of_d); });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
