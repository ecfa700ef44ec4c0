#include "tensor/ops/delta_rule/delta_rule_cpu.h"

#include "tensor/context/threads.h"

namespace tessera {
namespace {

using namespace delta_rule_detail;

template <class T>
struct ScanMatrices {
  using A = Acc<T>;

  ScanMatrices(const DeltaRuleSizes& sizes, int64_t columns, Cursor<A>& cursor)
      : chunk(sizes, columns, cursor), state(cursor.take(sizes.group() * sizes.key_dim, columns)) {}

  ChunkMatrices<T> chunk;
  A* state;  // [group, key_dim, columns]
};

// One pass over the chunks of a segment. Columns of a state: its value_dim, and behind them (padded) the key_dim columns
// of the transfer where that is wanted: they start as the identity and have values of zero, which makes them the
// product of the chunks' matrices.
template <class T>
struct Scan {
  using A = Acc<T>;

  const DeltaRuleProblem& problem;
  DeltaRuleSizes sizes;
  const T *q, *k, *v;
  const A *log_decay, *beta, *initial;
  T* out;
  A *states, *final, *transfer;

  int64_t value_columns() const { return padded(sizes.value_dim); }
  int64_t columns() const { return value_columns() + (transfer == nullptr ? 0 : padded(sizes.key_dim)); }
  int64_t state_size() const { return sizes.key_dim * sizes.value_dim; }

  // Says whether the states are other than zero.
  bool start(int64_t head, int64_t segment, A* state) const {
    const int64_t row = problem.segments.initial_row(segment);
    const int64_t group = sizes.group();
    if (transfer != nullptr) {
      std::fill_n(state, group * sizes.key_dim * columns(), A(0));
      for (int64_t i = 0; i < group * sizes.key_dim; ++i)
        state[i * columns() + value_columns() + i % sizes.key_dim] = A(1);
      return true;
    }
    if (row < 0 || initial == nullptr) {
      std::fill_n(state, group * sizes.key_dim * columns(), A(0));
      return false;
    }
    const A* from = initial + (row * sizes.value_heads + head * group) * state_size();
    load_rows(from, sizes.value_dim, group * sizes.key_dim, sizes.value_dim, A(1), state, columns());
    return true;
  }

  void keep(const A* state, int64_t at, A* to) const {
    store_rows(state, columns(), sizes.key_dim, sizes.value_dim, A(1), to + at * state_size(), sizes.value_dim);
  }

  void output(ChunkMatrices<T>& c, const A* state, int64_t value_head, int64_t first) const {
    A* o = c.scaled;
    if (state == nullptr) {
      std::fill_n(o, c.rows * c.columns, A(0));
    } else {
      product(c.rows, c.columns, sizes.key_dim, c.q, c.key, Transpose::No, state, o, Write::Overwrite);
      scale_rows(o, c.since_start, c.rows, c.columns, o);
    }
    add_lower_product(c.scores, c.stride, c.rows, c.update, c.columns, o);
    const int64_t row = sizes.value_heads * sizes.value_dim;
    store_rows(o, c.columns, c.rows, sizes.value_dim, A(1), out + first * row + value_head * sizes.value_dim, row);
  }

  // S becomes g_C S + K^T diag(w) U.
  void advance(ChunkMatrices<T>& c, A* state) const {
    const A all = c.since_start[c.rows - 1];
#pragma omp simd
    for (int64_t i = 0; i < sizes.key_dim * c.columns; ++i) state[i] *= all;
    scale_rows(c.update, c.to_end, c.rows, c.columns, c.update);
    product(sizes.key_dim, c.columns, c.rows, c.k, c.key, Transpose::Yes, c.update, state, Write::Accumulate);
  }

  void run(int64_t head, int64_t segment, ScanMatrices<T>& m) const {
    const int64_t row = problem.segments.final_row(segment);
    if (transfer != nullptr && row < 0) return;
    ChunkMatrices<T>& c = m.chunk;
    const int64_t size = sizes.key_dim * columns(), end = problem.segments.begin[segment + 1];
    bool filled = start(head, segment, m.state);
    for (int64_t first = problem.segments.begin[segment]; first < end; first += sizes.chunk) {
      c.load_keys(q, k, problem.scale, head, first, std::min(sizes.chunk, end - first));
      for (int64_t member = 0; member < sizes.group(); ++member) {
        const int64_t value_head = head * sizes.group() + member, at = value_head * sizes.tokens + first;
        A* state = m.state + member * size;
        if (states != nullptr && first > problem.segments.begin[segment])
          keep(state, value_head * (sizes.tokens / sizes.chunk) + first / sizes.chunk - 1, states);
        c.load_gates(log_decay + at, beta + at);
        c.solve(v + at * sizes.value_dim, filled ? state : nullptr);
        if (out != nullptr) output(c, filled ? state : nullptr, value_head, first);
        advance(c, state);
      }
      filled = true;
    }
    if (final != nullptr && row >= 0) finish(head, row, m.state);
  }

  void finish(int64_t head, int64_t row, const A* state) const {
    for (int64_t member = 0; member < sizes.group(); ++member) {
      const int64_t at = row * sizes.value_heads + head * sizes.group() + member;
      const A* own = state + member * sizes.key_dim * columns();
      keep(own, at, final);
      if (transfer == nullptr) continue;
      store_rows(own + value_columns(), columns(), sizes.key_dim, sizes.key_dim, A(1),
                 transfer + at * sizes.key_dim * sizes.key_dim, sizes.key_dim);
    }
  }
};

template <class T>
Scan<T> make_scan(const DeltaRuleProblem& problem, const DeltaRuleInput& input) {
  using A = Acc<T>;
  return {.problem = problem,
          .sizes = delta_rule_sizes(problem, input),
          .q = input.q.as<T>(),
          .k = input.k.as<T>(),
          .v = input.v.as<T>(),
          .log_decay = input.log_decay.as<A>(),
          .beta = input.beta.as<A>(),
          .initial = input.initial.empty() ? nullptr : input.initial.as<A>(),
          .out = nullptr,
          .states = nullptr,
          .final = nullptr,
          .transfer = nullptr};
}

template <class T>
void run_scan(Context& context, const Scan<T>& scan) {
  using A = Acc<T>;
  const int64_t elements = scan_elements(scan.sizes, scan.columns());
  const ArenaScope scope(context.workspace());
  const Tensor scratch = context.workspace().take({context.threads(), elements}, dtype_of<A>());
  A* memory = scratch.as<A>();
  for_segments(context, scan.problem, scan.sizes.key_heads, [&](int64_t head, int64_t segment, int worker) {
    Cursor<A> cursor(memory + worker * elements);
    ScanMatrices<T> matrices(scan.sizes, scan.columns(), cursor);
    scan.run(head, segment, matrices);
  });
}

// state = transfer state + added for the parts in order, or with the transposes for the parts in reverse.
template <class A, Transpose kTranspose>
void fold(Context& context, const ConstTensor& added, const ConstTensor& transfer, const Tensor& state) {
  const int64_t parts = added.dim(0), heads = state.dim(0), key_dim = state.dim(1), value_dim = state.dim(2);
  const int64_t columns = padded(value_dim), elements = 2 * key_dim * columns;
  const ArenaScope scope(context.workspace());
  const Tensor scratch = context.workspace().take({context.threads(), elements}, dtype_of<A>());
  A* memory = scratch.as<A>();
  const A *add = added.as<A>(), *matrix = transfer.as<A>();
  A* states = state.as<A>();
  parallel_tasks(context, heads, [&](int64_t head, int worker) {
    A *now = memory + worker * elements, *next = now + key_dim * columns;
    load_rows(states + head * key_dim * value_dim, value_dim, key_dim, value_dim, A(1), now, columns);
    for (int64_t i = 0; i < parts; ++i) {
      const int64_t at = (kTranspose == Transpose::No ? i : parts - 1 - i) * heads + head;
      load_rows(add + at * key_dim * value_dim, value_dim, key_dim, value_dim, A(1), next, columns);
      product(key_dim, columns, key_dim, matrix + at * key_dim * key_dim, key_dim, kTranspose, now, next,
              Write::Accumulate);
      std::swap(now, next);
    }
    store_rows(now, columns, key_dim, value_dim, A(1), states + head * key_dim * value_dim, value_dim);
  });
}

}  // namespace

int64_t delta_rule_detail::scan_elements(const DeltaRuleSizes& sizes, int64_t columns) {
  return dispatch_float(sizes.compute, [&]<class T>(T) {
    Cursor<Acc<T>> cursor(nullptr);
    ScanMatrices<T>(sizes, columns, cursor);
    return cursor.used();
  });
}

void cpu::delta_rule(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input, const Tensor& out,
                     const Tensor& states, const Tensor& final) {
  dispatch_float(input.q.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    Scan<T> scan = make_scan<T>(problem, input);
    scan.out = out.empty() ? nullptr : out.as<T>();
    scan.states = states.empty() ? nullptr : states.as<A>();
    scan.final = final.empty() ? nullptr : final.as<A>();
    run_scan(context, scan);
  });
}

void cpu::delta_rule_map(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                         const Tensor& added, const Tensor& transfer) {
  if (added.empty()) return;
  dispatch_float(input.q.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    Scan<T> scan = make_scan<T>(problem, input);
    scan.final = added.as<A>();
    scan.transfer = transfer.as<A>();
    run_scan(context, scan);
  });
}

void cpu::fold_delta_states(Context& context, const ConstTensor& added, const ConstTensor& transfer,
                            const Tensor& state) {
  if (state.dtype() == DType::F64)
    fold<double, Transpose::No>(context, added, transfer, state);
  else
    fold<float, Transpose::No>(context, added, transfer, state);
}

void cpu::fold_delta_states_backward(Context& context, const ConstTensor& dadded, const ConstTensor& transfer,
                                     const Tensor& dstate) {
  if (dstate.dtype() == DType::F64)
    fold<double, Transpose::Yes>(context, dadded, transfer, dstate);
  else
    fold<float, Transpose::Yes>(context, dadded, transfer, dstate);
}

int64_t cpu::delta_rule_workspace(const Target& target, const DeltaRuleSizes& sizes) {
  const int64_t mapped = padded(sizes.value_dim) + padded(sizes.key_dim);
  return Arena::bytes({target.threads, std::max(scan_elements(sizes, mapped), backward_elements(sizes))},
                      accumulation_dtype(sizes.compute));
}

int64_t cpu::delta_rule_fold_workspace(const Target& target, const DeltaRuleSizes& sizes) {
  return Arena::bytes({target.threads, 2 * sizes.key_dim * padded(sizes.value_dim)}, accumulation_dtype(sizes.compute));
}

}  // namespace tessera
