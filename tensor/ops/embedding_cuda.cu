// Bytes moved an element: look-up 2 times its size, adding look-up 3; the gradient reads dy once and reads and writes
// each row of dtable that occurs (2 * 4 bytes an element, or 8 in F64).
//
// The gradient is a sum in token order whatever the device does: the host sorts the tokens by row, and a block then
// owns one row's run of tokens (and some columns) and adds them in order.
#include "tensor/kernels/elements.h"
#include "tensor/ops/embedding_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

enum class Kind { Overwrite, Add };

template <Kind kind, int N, class T>
__global__ void __launch_bounds__(kElementThreads)
    embedding_kernel(const int32_t* index, const T* table, int64_t first_row, int64_t rows, int64_t tokens,
                     int64_t hidden, T* y) {
  using A = Acc<T>;
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    const int64_t row = index[token] - first_row;
    const bool here = index[token] >= 0 && 0 <= row && row < rows;
    if (kind == Kind::Add && !here) continue;
    T* out = y + token * hidden;
    for (int64_t i = int64_t{threadIdx.x} * N; i < hidden; i += int64_t{blockDim.x} * N) {
      Pack<T, N> value{};
      if (here) value = load<N>(table + row * hidden + i);
      if constexpr (kind == Kind::Add) {
        const Pack<T, N> before = load<N>(out + i);
        for (int k = 0; k < N; ++k) {
          value.x[k] = rounded<T>(static_cast<A>(before.x[k]) + static_cast<A>(value.x[k]));
        }
      }
      store(out + i, value);
    }
  }
}

// A row of the table, and its tokens: [begin, end) of the sorted list.
struct Run {
  int32_t row, begin, end;
};

template <int N, class T>
__global__ void __launch_bounds__(kElementThreads)
    embedding_backward_kernel(const Run* runs, const int32_t* sorted, int64_t count, const T* dy, int64_t hidden,
                              Acc<T>* dtable) {
  using A = Acc<T>;
  for (int64_t at = blockIdx.x; at < count; at += gridDim.x) {
    const Run run = runs[at];
    A* out = dtable + run.row * hidden;
    for (int64_t i = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * N; i < hidden;
         i += int64_t{gridDim.y} * blockDim.x * N) {
      Pack<A, N> sum = load<N>(out + i);
      for (int32_t t = run.begin; t < run.end; ++t) {
        const Pack<T, N> gradient = load<N>(dy + sorted[t] * hidden + i);
        for (int k = 0; k < N; ++k) sum.x[k] += static_cast<A>(gradient.x[k]);
      }
      store(out + i, sum);
    }
  }
}

template <Kind kind>
void look_up(const Context& context, const char* name, std::span<const int32_t> index, const ConstTensor& table,
             int64_t first_row, const Tensor& y) {
  const int64_t hidden = y.dim(1), rows = table.dim(0);
  if (y.empty()) return;
  dispatch_float(y.dtype(), [&]<class T>(T) {
    const bool whole = hidden % kPack<T> == 0 && aligned(table.as<T>(), y.as<T>());
    with_width<kPack<T>>(whole, [&](auto width) {
      constexpr int N = decltype(width)::value;
      for_chunks<int32_t>(index, [&](int64_t first, std::span<const int32_t> part) {
        const int64_t tokens = static_cast<int64_t>(part.size());
        launch(context, name, &embedding_kernel<kind, N, T>, stride_blocks(context, tokens, 1), row_threads(hidden / N),
               0, context.cuda().uploads().copy(part), table.as<T>(), first_row, rows, tokens, hidden,
               y.as<T>() + first * hidden);
      });
    });
  });
}

}  // namespace

void cuda::embedding(const Context& context, std::span<const int32_t> index, const ConstTensor& table,
                     int64_t first_row, const Tensor& y) {
  look_up<Kind::Overwrite>(context, "embedding", index, table, first_row, y);
}

void cuda::embedding_add(const Context& context, std::span<const int32_t> index, const ConstTensor& table,
                         int64_t first_row, const Tensor& y) {
  look_up<Kind::Add>(context, "embedding_add", index, table, first_row, y);
}

void cuda::embedding_backward(const Context& context, std::span<const int32_t> index, const ConstTensor& dy,
                              int64_t first_row, const Tensor& dtable) {
  const int64_t rows = dtable.dim(0), hidden = dy.dim(1);
  if (dy.empty() || dtable.empty()) return;
  Uploads& uploads = context.cuda().uploads();
  constexpr int64_t kMost = Uploads::kSegmentBytes / static_cast<int64_t>(sizeof(Run));
  for (int64_t first = 0; first < static_cast<int64_t>(index.size()); first += kMost) {
    const auto part = index.subspan(first, std::min<int64_t>(kMost, static_cast<int64_t>(index.size()) - first));
    const auto sorted = uploads.take<int32_t>(static_cast<int64_t>(part.size()));
    int64_t kept = 0;
    for (size_t t = 0; t < part.size(); ++t) {
      const int64_t row = part[t] - first_row;
      if (part[t] >= 0 && 0 <= row && row < rows) sorted.host[kept++] = static_cast<int32_t>(t);
    }
    if (kept == 0) continue;
    std::sort(sorted.host.begin(), sorted.host.begin() + kept,
              [&](int32_t a, int32_t b) { return part[a] != part[b] ? part[a] < part[b] : a < b; });
    const int32_t* sorted_tokens = uploads.send(sorted);
    const auto runs = uploads.take<Run>(kept);
    int64_t count = 0;
    for (int64_t t = 0; t < kept; ++t) {
      const int32_t row = static_cast<int32_t>(part[sorted.host[t]] - first_row);
      if (t == 0 || runs.host[count - 1].row != row) runs.host[count++] = {row, static_cast<int32_t>(t), 0};
      runs.host[count - 1].end = static_cast<int32_t>(t + 1);
    }
    const Run* all_runs = uploads.send(runs);
    dispatch_float(dy.dtype(), [&]<class T>(T) {
      using A = Acc<T>;
      const bool whole = hidden % kPack<T> == 0 && aligned(dy.as<T>(), dtable.as<A>());
      with_width<kPack<T>>(whole, [&](auto width) {
        constexpr int N = decltype(width)::value;
        const unsigned int threads = std::min(row_threads(hidden / N), 128u);
        const dim3 blocks(stride_blocks(context, count, 1),
                          static_cast<unsigned int>(std::min<int64_t>(ceil_divide(hidden / N, threads), 64)));
        launch(context, "embedding_backward", &embedding_backward_kernel<N, T>, blocks, threads, 0, all_runs,
               sorted_tokens, count, dy.as<T>() + first * hidden, hidden, dtable.as<A>());
      });
    });
  }
}

}  // namespace tessera
