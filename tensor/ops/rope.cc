#include "tensor/ops/rope.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/operand.h"
#include "tensor/ops/rope_kernels.h"

namespace tessera {
namespace {

void check_heads(const Context& context, const ConstTensor& qkv, const HeadLayout& layout, const ConstTensor& table,
                 const ConstTensor& q, const ConstTensor& k, const ConstTensor& v) {
  TESSERA_CHECK_EQ(qkv.rank(), 2, "rope: qkv is a matrix");
  const int64_t tokens = qkv.dim(0);
  const DType dtype = qkv.dtype();
  check_operand(context, qkv, {tokens, layout.width()}, dtype, "rope: qkv");
  check_operand(context, q, {layout.q_heads(), tokens, layout.head_dim}, dtype, "rope: q");
  check_operand(context, k, {layout.kv_heads, tokens, layout.head_dim}, dtype, "rope: k");
  check_operand(context, v, {layout.kv_heads, tokens, layout.head_dim}, dtype, "rope: v");
  if (!table.empty()) {
    TESSERA_CHECK_EQ(layout.head_dim % 2, 0, "rope: head_dim is even");
    check_operand(context, table, {tokens, layout.head_dim}, accumulation_dtype(dtype), "rope: table");
  }
}

}  // namespace

void rope_table(const Context& context, std::span<const int32_t> position, double theta, const Tensor& table) {
  TESSERA_CHECK_EQ(table.rank(), 2, "rope: the table is a matrix");
  TESSERA_CHECK_EQ(static_cast<int64_t>(position.size()), table.dim(0), "rope: one position a token");
  TESSERA_CHECK_EQ(table.dim(1) % 2, 0, "rope: head_dim is even");
  TESSERA_CHECK(theta > 0, "rope: theta is positive");
  check_size(context, table, table.size(), accumulation_dtype(table.dtype()), "rope: table");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::rope_table(context, position, theta, table);
  }
  cpu::rope_table(context, position, theta, table);
}

void split_heads(const Context& context, const ConstTensor& qkv, const HeadLayout& layout, const ConstTensor& table,
                 const Tensor& q, const Tensor& k, const Tensor& v) {
  check_heads(context, qkv, layout, table, q, k, v);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::split_heads(context, qkv, layout, table, q, k, v);
  }
  cpu::split_heads(context, qkv, layout, table, q, k, v);
}

void split_heads_backward(const Context& context, const ConstTensor& dq, const ConstTensor& dk, const ConstTensor& dv,
                          const HeadLayout& layout, const ConstTensor& table, const Tensor& dqkv) {
  check_heads(context, dqkv, layout, table, dq, dk, dv);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::split_heads_backward(context, dq, dk, dv, layout, table, dqkv);
  }
  cpu::split_heads_backward(context, dq, dk, dv, layout, table, dqkv);
}

}  // namespace tessera
