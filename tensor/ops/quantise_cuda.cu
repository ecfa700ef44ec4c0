// Bytes moved an element: its size twice, and one for each of values and transposed values.
#include <algorithm>
#include <bit>

#include "tensor/kernels/block_sum.h"
#include "tensor/kernels/elements.h"
#include "tensor/ops/quantise_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

constexpr int64_t kMostPartials = 512;
static_assert(kMostPartials * static_cast<int64_t>(sizeof(uint32_t)) <= Runtime::kPartialBytes);

// A block turns this many rows and columns over in shared memory at a time: rows of x are read, and rows of its
// transpose written, 128 bytes at a time.
constexpr int kTileRows = 128, kTileColumns = 64;
constexpr int kPackColumns = 8;
constexpr int kPacksPerRow = kTileColumns / kPackColumns;
constexpr int kWordRows = 4;  // of the transpose, in 32 bits: those that a thread has, a pack of each
static_assert(kElementThreads * kWordRows == kTileRows * kPacksPerRow);
// A word more than the tile has: lanes that write to columns next to each other meet in few banks.
constexpr int kPitch = kTileRows + kWordRows;

// The largest magnitude of x's elements i, i + gridDim.x * blockDim.x, ..., by packs, as bits, which are ordered like
// what they stand for.
template <class T>
__global__ void __launch_bounds__(kElementThreads) amax_kernel(const T* x, int64_t packs, uint32_t* partial) {
  uint32_t most = 0;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += stride) {
    const Pack<T, kPackColumns> in = load<kPackColumns>(x + i * kPackColumns);
    for (int k = 0; k < kPackColumns; ++k)
      most = larger(std::bit_cast<uint32_t>(static_cast<float>(in.x[k])) & 0x7fffffffu, most);
  }
  most = block_max(most);
  if (threadIdx.x == 0) partial[blockIdx.x] = most;
}

template <class T, class F8>
struct Operands {
  const T* x;            // [rows, columns]
  F8* values;            // or null
  uint32_t* transposed;  // [columns, rows / 4], or null
  float* scale;
  const uint32_t* partial;
  int64_t partials, rows, columns;
};

template <class T, class F8>
__global__ void __launch_bounds__(kElementThreads, 4) quantise_kernel(Operands<T, F8> o) {
  __shared__ Shared<uint32_t[kTileColumns * kPitch / kWordRows]> tile;  // [kTileColumns, kPitch] bytes
  uint32_t most = 0;
  for (int64_t i = threadIdx.x; i < o.partials; i += blockDim.x) most = larger(o.partial[i], most);
  most = block_max(most);
  const float factor = float8_factor(std::bit_cast<float>(most), std::bit_cast<float>(F8::Format::kLargestBits));
  if (blockIdx.x == 0 && threadIdx.x == 0) *o.scale = 1 / factor;

  const int64_t tiles_across = ceil_divide(o.columns, kTileColumns);
  const int64_t tiles = ceil_divide(o.rows, kTileRows) * tiles_across;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t first_row = t / tiles_across * kTileRows, first_column = t % tiles_across * kTileColumns;
    const int self = static_cast<int>(threadIdx.x), column = self % kPacksPerRow * kPackColumns;
    const int64_t own_row = first_row + self / kPacksPerRow * kWordRows, own_column = first_column + column;
    const auto inside = [&](int row) { return own_row + row < o.rows && own_column < o.columns; };
    const auto at = [&](int row) { return (own_row + row) * o.columns + own_column; };
    Pack<T, kPackColumns> in[kWordRows] = {};  // all on their way before the first is used
#pragma unroll
    for (int row = 0; row < kWordRows; ++row) {
      if (inside(row)) in[row] = load<kPackColumns>(o.x + at(row));
    }
    uint32_t words[kPackColumns] = {};  // of each column, its rows one above the other
#pragma unroll
    for (int row = 0; row < kWordRows; ++row) {
      Pack<F8, kPackColumns> out;
#pragma unroll
      for (int k = 0; k < kPackColumns; ++k) {
        out.x[k] = rounded<F8>(factor * static_cast<float>(in[row].x[k]));
        words[k] |= static_cast<uint32_t>(out.x[k].bits) << (8 * row);
      }
      if (o.values != nullptr && inside(row)) store(o.values + at(row), out);
    }
    if (o.transposed == nullptr) continue;
    for (int k = 0; k < kPackColumns; ++k) tile[(column + k) * (kPitch / kWordRows) + self / kPacksPerRow] = words[k];
    __syncthreads();
    constexpr int kWords = kTileRows / kWordRows;
    for (int i = self; i < kTileColumns * kWords; i += kElementThreads) {
      const int64_t to = first_column + i / kWords, row = first_row + int64_t{i % kWords} * kWordRows;
      if (row < o.rows && to < o.columns)
        o.transposed[(to * o.rows + row) / kWordRows] = tile[i / kWords * (kPitch / kWordRows) + i % kWords];
    }
    __syncthreads();  // the tile may be written again
  }
}

template <class T, class F8>
void run(const Context& context, const ConstTensor& x, const T* from, F8* values, F8* transposed, float* scale) {
  TESSERA_CHECK(aligned(from, values, transposed), "quantise: operands are aligned to 16 bytes");
  uint32_t* partial = static_cast<uint32_t*>(context.cuda().partials());
  const int64_t packs = x.size() / kPackColumns;
  const int64_t partials = std::clamp<int64_t>(ceil_divide(packs, kElementThreads), 1, kMostPartials);
  launch(context, "quantise: amax", &amax_kernel<T>, static_cast<unsigned int>(partials), kElementThreads, 0, from,
         packs, partial);
  const Operands<T, F8> o{.x = from,
                          .values = values,
                          .transposed = reinterpret_cast<uint32_t*>(transposed),
                          .scale = scale,
                          .partial = partial,
                          .partials = partials,
                          .rows = x.dim(0),
                          .columns = x.dim(1)};
  // As few blocks as keep a multiprocessor busy: each looks through the partial results first.
  const int64_t tiles = ceil_divide(o.rows, kTileRows) * ceil_divide(o.columns, kTileColumns);
  const int64_t blocks = std::clamp<int64_t>(tiles, 1, int64_t{4} * context.cuda().device().multiprocessors);
  launch(context, "quantise", &quantise_kernel<T, F8>, static_cast<unsigned int>(blocks), kElementThreads, 0, o);
}

}  // namespace

void cuda::quantise(const Context& context, const ConstTensor& x, const Tensor& values, const Tensor& transposed,
                    const Tensor& scale) {
  dispatch_quantise(x, values, transposed, scale,
                    [&]<class T, class F8>(const T* from, F8* to, F8* turned, float* unit) {
                      run(context, x, from, to, turned, unit);
                    });
}

}  // namespace tessera
