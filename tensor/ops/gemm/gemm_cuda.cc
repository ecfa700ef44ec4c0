// Matrix products by cuBLASLt. Algorithm and descriptors are found once for a shape and kept.
//
// The library thinks in columns: a row-major C [m, n] is its [n, m], so C = op(A) op(B) is asked for as
// C^T = op(B)^T op(A)^T, with B first.
#include "tensor/ops/gemm/gemm_cuda.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "tensor/context/runtime.h"
#include "tensor/ops/elementwise_kernels.h"
#include "tensor/ops/gemm/gemm_fp8_kernels.h"
#include "tensor/ops/gemm/gemm_key.h"

namespace tessera::cuda {
namespace {

// The library's functions, found by name when it is opened. Opened rather than linked: linked, it would cost each
// process on a CPU 200 MB and a tenth of a second, and machines without it could not start the program at all.
struct Library {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetStatusString) status_string;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;

  Library() {
    const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
    void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    const std::string reason = handle == nullptr ? dlerror() : "";
    if (handle == nullptr) handle = dlopen((TESSERA_CUDA_LIBRARIES "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      throw UsageError("cannot open " + name + ", which matrix products on a GPU need (" + reason +
                       "): install the cuBLAS of CUDA " + std::to_string(CUBLAS_VER_MAJOR) +
                       " or put its folder on LD_LIBRARY_PATH");
    }
    // Stays open: what the library has set up lives as long as the process.
    const auto find = [&]<class F>(F& function, const char* symbol) {
      function = reinterpret_cast<F>(dlsym(handle, symbol));
      if (function == nullptr)
        throw UsageError(name + " has no " + symbol + ": it is not the cuBLAS that it should be");
    };
    find(create, "cublasLtCreate");
    find(destroy, "cublasLtDestroy");
    find(status_string, "cublasLtGetStatusString");
    find(matmul, "cublasLtMatmul");
    find(desc_create, "cublasLtMatmulDescCreate");
    find(desc_destroy, "cublasLtMatmulDescDestroy");
    find(desc_set, "cublasLtMatmulDescSetAttribute");
    find(layout_create, "cublasLtMatrixLayoutCreate");
    find(layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(preference_create, "cublasLtMatmulPreferenceCreate");
    find(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    find(heuristic, "cublasLtMatmulAlgoGetHeuristic");
  }

  void check(cublasStatus_t status, const char* what) const {
    if (status == CUBLAS_STATUS_ALLOC_FAILED)
      throw DeviceMemoryError(std::string(what) + ": cuBLASLt finds too little GPU memory free (" +
                              status_string(status) + ")");
    if (status != CUBLAS_STATUS_SUCCESS) throw InternalError(std::string(what) + ": " + status_string(status));
  }
};

cudaDataType_t library_dtype(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return CUDA_R_64F;
    case DType::F32:
      return CUDA_R_32F;
    case DType::BF16:
      return CUDA_R_16BF;
    case DType::E4M3:
      return CUDA_R_8F_E4M3;
    case DType::E5M2:
      return CUDA_R_8F_E5M2;
    default:
      throw InternalError(std::string("no matrix product in ") + name(dtype));
  }
}

// A product's bias has the dtype of its operands, or the one that they were quantised from.
DType bias_dtype(DType operand) { return is_float8(operand) ? DType::BF16 : operand; }

cublasLtEpilogue_t library_epilogue(GemmEpilogue epilogue, bool bias) {
  switch (epilogue) {
    case GemmEpilogue::None:
      return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    case GemmEpilogue::Gelu:  // AUX: x is wanted too
      return bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    case GemmEpilogue::GeluBackward:
      return CUBLASLT_EPILOGUE_DGELU;
  }
  throw InternalError("no such epilogue of a matrix product");
}

bool aligned(const ConstTensor& x) { return reinterpret_cast<uintptr_t>(x.data()) % 16 == 0; }

}  // namespace

struct MatrixState {
  struct Entry {
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
    bool exists = true;  // with an epilogue perhaps not
  };

  explicit MatrixState(void* workspace_) : workspace(workspace_) {
    library.check(library.create(&handle), "starting cuBLASLt");
  }
  ~MatrixState() {
    for (auto& [key, entry] : entries) release(entry);
    library.destroy(handle);
  }
  MatrixState(const MatrixState&) = delete;

  void release(const Entry& entry) {
    if (entry.desc != nullptr) library.desc_destroy(entry.desc);
    for (const cublasLtMatrixLayout_t layout : {entry.first, entry.second, entry.result}) {
      if (layout != nullptr) library.layout_destroy(layout);
    }
  }

  // For a product without an epilogue, or with its bias in one; where there is none for it, key.bias becomes false: the
  // bias is added apart.
  const Entry& existing_entry(GemmKey& key) {
    const Entry* found = &entry(key);
    if (!found->exists && key.bias) {
      key.bias = false;
      found = &entry(key);
    }
    if (found->exists) return *found;
    const auto [m, n, k] = key.shape;
    throw InternalError("cuBLASLt has no algorithm for a product of " + std::to_string(m) + " x " + std::to_string(n) +
                        " x " + std::to_string(k) + " in " + name(key.a) + " and " + name(key.b) + " to " +
                        name(key.c));
  }

  const Entry& entry(const GemmKey& key) {
    const auto found = entries.find(key);
    if (found != entries.end()) return found->second;
    Entry& made = entries[key];
    try {
      make(key, made);
    } catch (...) {
      release(made);
      entries.erase(key);
      throw;
    }
    return made;
  }

  void make(const GemmKey& key, Entry& entry) {
    const auto [m, n, k] = key.shape;
    const bool f64 = key.a == DType::F64;
    library.check(
        library.desc_create(&entry.desc, f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F, f64 ? CUDA_R_64F : CUDA_R_32F),
        "describing a product");
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
      library.check(library.desc_set(entry.desc, attribute, &value, sizeof(value)), "describing a product");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, key.options.b == Transpose::Yes ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, key.options.a == Transpose::Yes ? CUBLAS_OP_T : CUBLAS_OP_N);
    // Of other operands than the matrices the choice of an algorithm looks at whether they are there and how they are
    // aligned; which ones is set for each product.
    const auto* place = static_cast<const char*>(workspace) + (key.aligned ? 16 : size_of(key.a));
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, library_epilogue(key.epilogue, key.bias));
    if (key.bias) {
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, library_dtype(bias_dtype(key.a)));
      set_pointer(entry, CUBLASLT_MATMUL_DESC_BIAS_POINTER, place);
    }
    if (key.epilogue != GemmEpilogue::None) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, n);
      set_pointer(entry, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, place);
    }
    if (is_float8(key.a)) set_scales(entry, place, place);
    const auto layout = [&](cublasLtMatrixLayout_t& made, DType dtype, int64_t rows, int64_t columns) {
      library.check(library.layout_create(&made, library_dtype(dtype), static_cast<uint64_t>(rows),
                                          static_cast<uint64_t>(columns), rows),
                    "describing a matrix");
    };
    // As stored, in columns: [k, n] by rows is [n, k].
    const bool ta = key.options.a == Transpose::Yes, tb = key.options.b == Transpose::Yes;
    layout(entry.first, key.b, tb ? k : n, tb ? n : k);
    layout(entry.second, key.a, ta ? m : k, ta ? k : m);
    layout(entry.result, key.c, n, m);

    cublasLtMatmulPreference_t preference = nullptr;
    library.check(library.preference_create(&preference), "choosing an algorithm");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      library.check(library.preference_set(preference, attribute, &value, sizeof(value)), "choosing an algorithm");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(cuda::Runtime::kMatrixWorkspaceBytes));
    const auto alignment = [&](DType dtype) { return static_cast<uint32_t>(key.aligned ? 16 : size_of(dtype)); };
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(key.b));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(key.a));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(key.c));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(key.c));
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status = library.heuristic(handle, entry.desc, entry.first, entry.second, entry.result,
                                                    entry.result, preference, 1, &result, &found);
    library.preference_destroy(preference);
    entry.exists = status == CUBLAS_STATUS_SUCCESS && found > 0;
    entry.algorithm = result.algo;
  }

  // To device memory.
  void set_pointer(const Entry& entry, cublasLtMatmulDescAttributes_t attribute, const void* pointer) {
    library.check(library.desc_set(entry.desc, attribute, &pointer, sizeof(pointer)), "setting a product's operand");
  }

  // The library's first operand is B.
  void set_scales(const Entry& entry, const void* of_a, const void* of_b) {
    set_pointer(entry, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, of_b);
    set_pointer(entry, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, of_a);
  }

  void run(Context& context, const Entry& entry, const ConstTensor& a, const ConstTensor& b, const ConstTensor& c,
           Write write, const ConstTensor& fused_bias) {
    if (fused_bias.rank() == 1) set_pointer(entry, CUBLASLT_MATMUL_DESC_BIAS_POINTER, fused_bias.data());
    const double one = 1, beta = write == Write::Accumulate ? 1 : 0;
    const float one_f32 = 1, beta_f32 = static_cast<float>(beta);
    const bool f64 = a.dtype() == DType::F64;
    void* result = const_cast<void*>(c.data());
    library.check(library.matmul(handle, entry.desc, f64 ? static_cast<const void*>(&one) : &one_f32, b.data(),
                                 entry.first, a.data(), entry.second, f64 ? static_cast<const void*>(&beta) : &beta_f32,
                                 result, entry.result, result, entry.result, &entry.algorithm, workspace,
                                 static_cast<size_t>(cuda::Runtime::kMatrixWorkspaceBytes),
                                 static_cast<cudaStream_t>(context.cuda().stream().handle())),
                  "a matrix product failed");
  }

  Library library;
  cublasLtHandle_t handle = nullptr;
  void* workspace;  // the runtime's
  std::unordered_map<GemmKey, Entry, GemmKeyHash> entries;
};

namespace {

MatrixState& state_of(Context& context) {
  std::shared_ptr<MatrixState>& state = context.cuda().matrix_state();
  if (state == nullptr) state = std::make_shared<MatrixState>(context.cuda().matrix_workspace());
  return *state;
}

}  // namespace

void gemm(Context& context, const GemmShape& shape, const ConstTensor& a, const ConstTensor& b, const ConstTensor& c,
          const GemmOptions& options, const ConstTensor& bias, GemmCall call) {
  MatrixState& state = state_of(context);
  const bool has_bias = bias.rank() == 1;
  // The epilogue adds a bias of the result's dtype, and none in F64. The choice of an algorithm is not told how the
  // bias is aligned, and may load 16 bytes of it at once.
  GemmKey key{.shape = shape,
              .a = a.dtype(),
              .b = b.dtype(),
              .c = c.dtype(),
              .options = options,
              .bias = has_bias && c.dtype() == a.dtype() && a.dtype() != DType::F64 && aligned(bias),
              .aligned = aligned(a) && aligned(b) && aligned(c)};
  const MatrixState::Entry& entry = state.existing_entry(key);
  if (call == GemmCall::PrepareOnly) return;
  state.run(context, entry, a, b, c, options.c, key.bias ? bias : ConstTensor());
  if (has_bias && !key.bias)
    cuda::add_bias(context, bias, Tensor(const_cast<void*>(c.data()), c.shape(), c.dtype(), c.device()));
}

bool gemm_gelu(Context& context, GemmEpilogue epilogue, const GemmShape& shape, const ConstTensor& a,
               const ConstTensor& b, const ConstTensor& x, const ConstTensor& result, const GemmOptions& options,
               const ConstTensor& bias, GemmCall call) {
  const bool all_aligned = aligned(a) && aligned(b) && aligned(x) && aligned(result) && aligned(bias);
  if (!gelu_may_follow(context.cuda().device(), shape, a.dtype(), all_aligned)) return false;
  MatrixState& state = state_of(context);
  const MatrixState::Entry& entry = state.entry({.shape = shape,
                                                 .a = a.dtype(),
                                                 .b = b.dtype(),
                                                 .c = result.dtype(),
                                                 .options = options,
                                                 .bias = bias.rank() == 1,
                                                 .epilogue = epilogue});
  if (!entry.exists) return false;
  if (call == GemmCall::PrepareOnly) return true;
  state.set_pointer(entry, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, x.data());
  state.run(context, entry, a, b, result, options.c, bias);
  return true;
}

void gemm_fp8(Context& context, const GemmShape& shape, const Quantised& a, const Quantised& b, const ConstTensor& c,
              Write write, const ConstTensor& bias, GemmCall call) {
  TESSERA_CHECK(aligned(a.values) && aligned(b.values) && aligned(c) && aligned(bias),
                "gemm_fp8: operands are aligned to 16 bytes");
  MatrixState& state = state_of(context);
  const bool has_bias = bias.rank() == 1;
  GemmKey key{.shape = shape,
              .a = a.values.dtype(),
              .b = b.values.dtype(),
              .c = c.dtype(),
              .options = {.b = Transpose::Yes, .c = write},
              .bias = has_bias};
  const MatrixState::Entry& entry = state.existing_entry(key);
  if (call == GemmCall::PrepareOnly) return;
  state.set_scales(entry, a.scale.data(), b.scale.data());
  state.run(context, entry, a.values, b.values, c, write, key.bias ? bias : ConstTensor());
  if (has_bias && !key.bias)
    cuda::add_bias(context, bias, Tensor(const_cast<void*>(c.data()), c.shape(), c.dtype(), c.device()));
}

}  // namespace tessera::cuda
