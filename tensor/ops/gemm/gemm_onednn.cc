// F32 and BF16 matrix products by oneDNN's matmul primitive.
//
// A primitive is generated for one shape and kept with its memory objects, so that running it again only sets pointers.
// The scratchpad is ours ("user" mode): one buffer for all primitives, since they run one at a time.
#include <array>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "tensor/context/matrix_library.h"
#include "tensor/ops/gemm/gemm_cpu.h"
#include "tensor/ops/gemm/gemm_key.h"

namespace tessera {
namespace {

using dnnl::memory;

memory::data_type library_dtype(DType dtype) {
  TESSERA_CHECK(dtype == DType::F32 || dtype == DType::BF16, "oneDNN computes in F32 and BF16");
  return dtype == DType::F32 ? memory::data_type::f32 : memory::data_type::bf16;
}

// The matrix [rows, columns] stored as such or transposed.
memory::desc matrix(int64_t rows, int64_t columns, DType dtype, Transpose stored) {
  const memory::dims strides = stored == Transpose::No ? memory::dims{columns, 1} : memory::dims{1, rows};
  return {{rows, columns}, library_dtype(dtype), strides};
}

}  // namespace

struct MatrixLibrary::Implementation {
  struct Entry {
    dnnl::matmul primitive;
    memory a, b, c, bias, scratchpad;
    std::array<dnnl_exec_arg_t, 5> arguments;
    int count = 0;

    void add(int index, const memory& m) { arguments[count++] = {index, m.get()}; }
  };

  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::unordered_map<GemmKey, Entry, GemmKeyHash> entries;
  Buffer scratchpad;

  Entry& entry(const GemmKey& key) {
    const auto found = entries.find(key);
    return found != entries.end() ? found->second : entries.emplace(key, make(key)).first->second;
  }

  Entry make(const GemmKey& key) {
    const auto& [m, n, k] = key.shape;
    const memory::desc a = matrix(m, k, key.a, key.options.a);
    const memory::desc b = matrix(k, n, key.b, key.options.b);
    const memory::desc c = matrix(m, n, key.c, Transpose::No);
    const memory::desc bias({1, n}, library_dtype(key.a), memory::dims{n, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (key.options.c == Write::Accumulate) {
      dnnl::post_ops post;
      post.append_sum(1.0f);
      attributes.set_post_ops(post);
    }
    const dnnl::matmul::desc what = key.bias ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
    const dnnl::matmul::primitive_desc how(what, attributes, engine);

    Entry entry;
    entry.primitive = dnnl::matmul(how);
    entry.a = memory(a, engine, DNNL_MEMORY_NONE);
    entry.b = memory(b, engine, DNNL_MEMORY_NONE);
    entry.c = memory(c, engine, DNNL_MEMORY_NONE);
    entry.scratchpad = memory(how.scratchpad_desc(), engine, DNNL_MEMORY_NONE);
    entry.add(DNNL_ARG_SRC, entry.a);
    entry.add(DNNL_ARG_WEIGHTS, entry.b);
    entry.add(DNNL_ARG_DST, entry.c);
    entry.add(DNNL_ARG_SCRATCHPAD, entry.scratchpad);
    if (key.bias) {
      entry.bias = memory(bias, engine, DNNL_MEMORY_NONE);
      entry.add(DNNL_ARG_BIAS, entry.bias);
    }
    const int64_t need = static_cast<int64_t>(how.scratchpad_desc().get_size());
    if (need > scratchpad.bytes()) scratchpad = Buffer(Device::Cpu, need, "the matrix library's scratch");
    return entry;
  }
};

MatrixLibrary::MatrixLibrary() : implementation_(std::make_unique<Implementation>()) {}
MatrixLibrary::~MatrixLibrary() = default;

int64_t MatrixLibrary::primitives() const { return static_cast<int64_t>(implementation_->entries.size()); }
int64_t MatrixLibrary::scratchpad_bytes() const { return implementation_->scratchpad.bytes(); }

void gemm_onednn(Context& context, const GemmShape& shape, const ConstTensor& a, const ConstTensor& b,
                 const ConstTensor& c, const GemmOptions& options, const ConstTensor& bias, GemmCall call) {
  auto& library = context.matrix_library().implementation();
  const bool has_bias = bias.rank() == 1;
  auto& entry = library.entry({shape, a.dtype(), b.dtype(), c.dtype(), options, has_bias});
  if (call == GemmCall::PrepareOnly) return;

  const auto set = [](const memory& m, const void* data) {
    dnnl::error::wrap_c_api(dnnl_memory_set_data_handle(m.get(), const_cast<void*>(data)), "cannot set an operand");
  };
  set(entry.a, a.data());
  set(entry.b, b.data());
  set(entry.c, c.data());
  set(entry.scratchpad, library.scratchpad.data());
  if (has_bias) set(entry.bias, bias.data());
  dnnl::error::wrap_c_api(
      dnnl_primitive_execute(entry.primitive.get(), library.stream.get(), entry.count, entry.arguments.data()),
      "a matrix product failed");
}

}  // namespace tessera
