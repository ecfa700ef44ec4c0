#include "tensor/ops/embedding.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/embedding_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {
namespace {

// `rows` [tokens, hidden] against an index of as many tokens and a table of as many columns.
void check_rows(const Context& context, std::span<const int32_t> index, const ConstTensor& table, DType table_dtype,
                const ConstTensor& rows) {
  TESSERA_CHECK_EQ(rows.rank(), 2, "embedding: one row a token");
  TESSERA_CHECK_EQ(table.rank(), 2, "embedding: the table is a matrix");
  TESSERA_CHECK_EQ(static_cast<int64_t>(index.size()), rows.dim(0), "embedding: one index a token");
  check_size(context, rows, rows.size(), rows.dtype(), "embedding: rows of tokens");
  check_operand(context, table, {table.dim(0), rows.dim(1)}, table_dtype, "embedding: table");
}

}  // namespace

void embedding(const Context& context, std::span<const int32_t> index, const ConstTensor& table, int64_t first_row,
               const Tensor& y) {
  check_rows(context, index, table, y.dtype(), y);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::embedding(context, index, table, first_row, y);
  }
  cpu::embedding(context, index, table, first_row, y);
}

void embedding_add(const Context& context, std::span<const int32_t> index, const ConstTensor& table, int64_t first_row,
                   const Tensor& y) {
  check_rows(context, index, table, y.dtype(), y);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::embedding_add(context, index, table, first_row, y);
  }
  cpu::embedding_add(context, index, table, first_row, y);
}

void embedding_backward(const Context& context, std::span<const int32_t> index, const ConstTensor& dy,
                        int64_t first_row, const Tensor& dtable) {
  check_rows(context, index, dtable, accumulation_dtype(dy.dtype()), dy);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::embedding_backward(context, index, dy, first_row, dtable);
  }
  cpu::embedding_backward(context, index, dy, first_row, dtable);
}

}  // namespace tessera
