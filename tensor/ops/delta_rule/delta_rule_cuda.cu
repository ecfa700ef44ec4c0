// The forward scan, the segments' maps and their folding.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/kernels/elements.h"
#include "tensor/ops/delta_rule/delta_rule_cuda.h"

namespace tessera {
namespace {

using namespace cuda;

template <class T>
struct Scan {
  using A = Acc<T>;

  DeltaRuleView in;
  const T *q, *k, *v;
  const A *log_decay, *beta, *initial;
  T* out;
  A *states, *final, *transfer;  // each may be null
  A* memory;
  int64_t elements;  // of a block

  __device__ int columns() const { return in.value_dim + (transfer == nullptr ? 0 : in.key_dim); }

  // Whether the states are other than zero.
  __device__ bool start(int32_t head, int32_t segment, A* state) const {
    const int32_t row = in.segments.initial_row(segment), width = columns();
    const bool given = transfer == nullptr && row >= 0 && initial != nullptr;
    const int64_t from = (int64_t{row} * in.value_heads + head * in.group) * in.state_size();
    block_elements(int64_t{in.group} * in.key_dim * width, [&](int64_t i) {
      const int64_t d = i / width, j = i % width;
      if (given)
        state[i] = initial[from + i];
      else
        state[i] = j - in.value_dim == d % in.key_dim ? A(1) : A(0);
    });
    __syncthreads();
    return given || transfer != nullptr;
  }

  __device__ void keep(const A* state, A* to) const {
    const int width = columns();
    block_elements(in.state_size(),
                   [&](int64_t i) { to[i] = state[i / in.value_dim * width + i % in.value_dim]; });
  }

  __device__ void output(const DeltaRuleChunk<T>& c, const A* state, int32_t value_head, int32_t first) const {
    const int dim = state == nullptr ? 0 : in.key_dim, key = in.key_dim, width = c.columns, stride = in.chunk;
    T* to = out + (int64_t{first} * in.value_heads + value_head) * in.value_dim;
    const int64_t row = int64_t{in.value_heads} * in.value_dim;
    block_product<A>(
        c.rows, in.value_dim, dim + c.rows,
        [=](int i, int p) {
          return p < dim ? c.each->since_start[i] * c.q[i * key + p] : c.scores[i * stride + p - dim];
        },
        [=](int p, int j) { return p < dim ? state[int64_t{p} * width + j] : c.update[(p - dim) * width + j]; },
        [=](int i, int j, A sum) { to[i * row + j] = rounded<T>(sum); });
  }

  __device__ void advance(const DeltaRuleChunk<T>& c, A* state) const {
    const int key = in.key_dim, width = c.columns;
    const A all = c.each->since_start[c.rows - 1];
    __syncthreads();  // the state has been read
    block_product<A>(
        key, width, c.rows, [=](int i, int p) { return c.k[p * key + i]; },
        [=](int p, int j) { return c.each->to_end[p] * c.update[p * width + j]; },
        [=](int i, int j, A sum) { state[int64_t{i} * width + j] = all * state[int64_t{i} * width + j] + sum; });
    __syncthreads();
  }

  __device__ void finish(int32_t head, int64_t row, const A* state) const {
    const int width = columns();
    for (int member = 0; member < in.group; ++member) {
      const int64_t at = row * in.value_heads + head * in.group + member;
      const A* own = state + int64_t{member} * in.key_dim * width;
      keep(own, final + at * in.state_size());
      if (transfer == nullptr) continue;
      A* to = transfer + at * in.key_dim * in.key_dim;
      block_elements(int64_t{in.key_dim} * in.key_dim, [&](int64_t i) {
        to[i] = own[i / in.key_dim * width + in.value_dim + i % in.key_dim];
      });
    }
    __syncthreads();
  }

  __device__ void run(int32_t head, int32_t segment, DeltaRuleChunk<T>& c, A* all_states) const {
    const int32_t row = in.segments.final_row(segment), begin = in.segments.begin[segment], end = in.segments.begin[segment + 1];
    if (transfer != nullptr && row < 0) return;
    bool filled = start(head, segment, all_states);
    for (int32_t first = begin; first < end; first += in.chunk) {
      c.load_keys(q, k, head, first, end - first < in.chunk ? end - first : in.chunk);
      for (int member = 0; member < in.group; ++member) {
        const int32_t value_head = head * in.group + member;
        const int64_t at = int64_t{value_head} * in.tokens + first;
        A* state = all_states + int64_t{member} * in.key_dim * c.columns;
        if (states != nullptr && first > begin) keep(state, states + in.kept_row(value_head, first) * in.state_size());
        c.load_gates(log_decay + at, beta + at);
        c.solve(v + at * in.value_dim, filled ? state : nullptr);
        if (out != nullptr) output(c, filled ? state : nullptr, value_head, first);
        advance(c, state);
      }
      filled = true;
    }
    if (final != nullptr && row >= 0) finish(head, row, all_states);
  }
};

template <class T>
__global__ void __launch_bounds__(kDeltaRuleThreads) scan_kernel(Scan<T> scan) {
  using A = Acc<T>;
  DeltaRuleChunk<T> c;
  c.in = scan.in;
  c.columns = scan.columns();
  c.each = shared_memory<DeltaRuleRows<A>>();
  A* state = c.place(scan.memory + (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * scan.elements);
  for (int32_t segment = static_cast<int32_t>(blockIdx.y); segment < scan.in.segments.count();
       segment += static_cast<int32_t>(gridDim.y)) {
    scan.run(static_cast<int32_t>(blockIdx.x), segment, c, state);
  }
}

int64_t scan_elements(const DeltaRuleSizes& sizes, int64_t columns) {
  return DeltaRuleChunk<float>::elements(sizes.chunk, sizes.key_dim, columns) + sizes.group() * sizes.key_dim * columns;
}

template <class T>
Scan<T> make_scan(const DeltaRuleProblem& problem, const DeltaRuleInput& input) {
  using A = Acc<T>;
  return {.in = delta_rule_view(problem, input),
          .q = input.q.as<T>(),
          .k = input.k.as<T>(),
          .v = input.v.as<T>(),
          .log_decay = input.log_decay.as<A>(),
          .beta = input.beta.as<A>(),
          .initial = input.initial.empty() ? nullptr : input.initial.as<A>(),
          .out = nullptr,
          .states = nullptr,
          .final = nullptr,
          .transfer = nullptr,
          .memory = nullptr,
          .elements = 0};
}

template <class T>
void run_scan(Context& context, const char* name, const DeltaRuleSizes& sizes, Scan<T> scan) {
  using A = Acc<T>;
  if (sizes.tokens == 0) return;
  const int64_t blocks = delta_rule_blocks(sizes);
  scan.elements = scan_elements(sizes, sizes.value_dim + (scan.transfer == nullptr ? 0 : sizes.key_dim));
  const ArenaScope scope(context.workspace());
  scan.memory = context.workspace().take({blocks * sizes.key_heads, scan.elements}, dtype_of<A>()).template as<A>();
  launch(context, name, &scan_kernel<T>,
         dim3(static_cast<unsigned int>(sizes.key_heads), static_cast<unsigned int>(blocks)), kDeltaRuleThreads,
         static_cast<int64_t>(sizeof(DeltaRuleRows<A>)), scan);
}

// A block has one head. state = transfer state + added for the parts in order, or with the transposes in reverse.
template <bool backwards, class A>
__global__ void __launch_bounds__(kDeltaRuleThreads)
    fold_kernel(const A* added, const A* transfer, A* states, A* memory, int64_t parts, int key_dim, int value_dim) {
  const int64_t head = blockIdx.x, heads = gridDim.x, size = int64_t{key_dim} * value_dim;
  A *now = memory + 2 * head * size, *next = now + size, *state = states + head * size;
  block_elements(size, [&](int64_t i) { now[i] = state[i]; });
  __syncthreads();
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t at = (backwards ? parts - 1 - part : part) * heads + head;
    const A *matrix = transfer + at * key_dim * key_dim, *add = added + at * size, *before = now;
    A* behind = next;
    block_product<A>(
        key_dim, value_dim, key_dim,
        [=](int i, int p) { return backwards ? matrix[p * key_dim + i] : matrix[i * key_dim + p]; },
        [=](int p, int j) { return before[int64_t{p} * value_dim + j]; },
        [=](int i, int j, A sum) {
          behind[int64_t{i} * value_dim + j] = add[int64_t{i} * value_dim + j] + sum;
        });
    __syncthreads();
    next = now;
    now = behind;
  }
  block_elements(size, [&](int64_t i) { state[i] = now[i]; });
}

template <bool backwards>
void fold(Context& context, const char* name, const ConstTensor& added, const ConstTensor& transfer,
          const Tensor& state) {
  const int64_t heads = state.dim(0), key_dim = state.dim(1), value_dim = state.dim(2);
  const ArenaScope scope(context.workspace());
  const Tensor memory = context.workspace().take({heads, 2 * key_dim * value_dim}, state.dtype());
  const auto run = [&]<class A>(A) {
    launch(context, name, &fold_kernel<backwards, A>, static_cast<unsigned int>(heads), kDeltaRuleThreads, 0,
           added.as<A>(), transfer.as<A>(), state.as<A>(), memory.as<A>(), added.dim(0), static_cast<int>(key_dim),
           static_cast<int>(value_dim));
  };
  if (state.dtype() == DType::F64)
    run(double{});
  else
    run(float{});
}

}  // namespace

cuda::DeltaRuleView cuda::delta_rule_view(const DeltaRuleProblem& problem, const DeltaRuleInput& input) {
  const DeltaRuleSizes sizes = delta_rule_sizes(problem, input);
  return {.tokens = static_cast<int32_t>(sizes.tokens),
          .key_heads = static_cast<int32_t>(sizes.key_heads),
          .value_heads = static_cast<int32_t>(sizes.value_heads),
          .key_dim = static_cast<int32_t>(sizes.key_dim),
          .value_dim = static_cast<int32_t>(sizes.value_dim),
          .chunk = static_cast<int32_t>(sizes.chunk),
          .group = static_cast<int32_t>(sizes.group()),
          .scale = problem.scale,
          .segments = segment_view(problem.segments)};
}

int64_t cuda::delta_rule_blocks(const DeltaRuleSizes& sizes) {
  constexpr int64_t kEnough = 512;  // for all key heads
  const int64_t chunks = ceil_divide(std::max<int64_t>(sizes.tokens, 1), sizes.chunk);
  return std::clamp<int64_t>(ceil_divide(kEnough, sizes.key_heads), 1, chunks);
}

void cuda::delta_rule(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input, const Tensor& out,
                      const Tensor& states, const Tensor& final) {
  dispatch_float(input.q.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    Scan<T> scan = make_scan<T>(problem, input);
    scan.out = out.empty() ? nullptr : out.as<T>();
    scan.states = states.empty() ? nullptr : states.as<A>();
    scan.final = final.empty() ? nullptr : final.as<A>();
    run_scan(context, "delta_rule", delta_rule_sizes(problem, input), scan);
  });
}

void cuda::delta_rule_map(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                          const Tensor& added, const Tensor& transfer) {
  if (added.empty()) return;
  dispatch_float(input.q.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    Scan<T> scan = make_scan<T>(problem, input);
    scan.final = added.as<A>();
    scan.transfer = transfer.as<A>();
    run_scan(context, "delta_rule_map", delta_rule_sizes(problem, input), scan);
  });
}

void cuda::fold_delta_states(Context& context, const ConstTensor& added, const ConstTensor& transfer,
                             const Tensor& state) {
  fold<false>(context, "fold_delta_states", added, transfer, state);
}

void cuda::fold_delta_states_backward(Context& context, const ConstTensor& dadded, const ConstTensor& transfer,
                                      const Tensor& dstate) {
  fold<true>(context, "fold_delta_states_backward", dadded, transfer, dstate);
}

int64_t cuda::delta_rule_workspace(const Target&, const DeltaRuleSizes& sizes) {
  const int64_t elements =
      std::max(scan_elements(sizes, sizes.value_dim + sizes.key_dim), delta_rule_backward_elements(sizes));
  return Arena::bytes({delta_rule_blocks(sizes) * sizes.key_heads, elements}, accumulation_dtype(sizes.compute));
}

int64_t cuda::delta_rule_fold_workspace(const Target&, const DeltaRuleSizes& sizes) {
  return Arena::bytes({sizes.value_heads, 2 * sizes.key_dim * sizes.value_dim}, accumulation_dtype(sizes.compute));
}

}  // namespace tessera
