#include "tensor/context/threads.h"
#include "tensor/ops/delta_rule/delta_rule_cpu.h"
#include "tensor/ops/lanes.h"

namespace tessera {
namespace {

using namespace delta_rule_detail;

template <class T>
struct BackwardMatrices {
  using A = Acc<T>;

  BackwardMatrices(const DeltaRuleSizes& s, Cursor<A>& cursor) : chunk(s, padded(s.value_dim), cursor) {
    const int64_t key = chunk.key, columns = chunk.columns, stride = chunk.stride;
    dstate = cursor.take(s.group() * s.key_dim, columns);
    state = cursor.take(s.key_dim, columns);
    state_columns = cursor.take(s.value_dim, key);
    dstate_columns = cursor.take(s.value_dim, key);
    update_columns = cursor.take(s.value_dim, stride);
    dout = cursor.take(s.chunk, columns);
    du = cursor.take(s.chunk, columns);
    dvalue = cursor.take(s.chunk, columns);
    dscores = cursor.take(s.chunk, stride);
    dsystem = cursor.take(s.chunk, stride);
    row_sums = cursor.take(1, s.chunk);
    dq = cursor.take(s.chunk, key);
    dk = cursor.take(s.chunk, key);
    wide = cursor.take(s.chunk, key);
  }

  ChunkMatrices<T> chunk;
  A* dstate;                          // [group, key_dim, columns]: of the state behind the chunk
  A* state;                           // [key_dim, columns]: before the chunk
  A *state_columns, *dstate_columns;  // [value_dim, key]
  A* update_columns;                  // [value_dim, stride]
  A *dout, *du, *dvalue;              // [rows, columns]
  A *dscores, *dsystem;               // [rows, stride]
  A* row_sums;                        // [rows]: gradient of the logarithm of since_start
  A *dq, *dk, *wide;                  // [rows, key]
};

enum class Wanted { AllGradients, StateGradient };

// Chunks of a segment from the last to the first. In the header's names, with D the gradient of the state behind:
//   dU = Tril(Q K^T . G)^T dO + diag(w) K D      dR = (I + L)^-T dU      dV = diag(beta) dR
//   dS = g_C D + Q^T diag(g) dO - K^T diag(g) dV
template <class T, Wanted wanted>
struct Backward {
  using A = Acc<T>;

  const DeltaRuleProblem& problem;
  DeltaRuleSizes sizes;
  const T *q, *k, *v;
  const A *log_decay, *beta, *initial, *states;
  const T* dout;
  const A* dfinal;
  T *dq, *dk, *dv;
  A *dlog_decay, *dbeta, *dinitial;

  int64_t state_size() const { return sizes.key_dim * sizes.value_dim; }

  void start(int64_t head, int64_t segment, BackwardMatrices<T>& m) const {
    const int64_t row = problem.segments.final_row(segment), rows = sizes.group() * sizes.key_dim;
    if (row < 0 || dfinal == nullptr) {
      std::fill_n(m.dstate, rows * m.chunk.columns, A(0));
      return;
    }
    load_rows(dfinal + (row * sizes.value_heads + head * sizes.group()) * state_size(), sizes.value_dim, rows,
              sizes.value_dim, A(1), m.dstate, m.chunk.columns);
  }

  // Loads the state before the chunk, or says that it is zero.
  bool load_state(int64_t value_head, int64_t segment, int64_t first, BackwardMatrices<T>& m) const {
    const A* from = nullptr;
    if (first > problem.segments.begin[segment]) {
      const int64_t kept = sizes.tokens / sizes.chunk;
      from = states + (value_head * kept + first / sizes.chunk - 1) * state_size();
    } else if (const int64_t row = problem.segments.initial_row(segment); row >= 0 && initial != nullptr) {
      from = initial + (row * sizes.value_heads + value_head) * state_size();
    }
    if (from == nullptr) return false;
    load_rows(from, sizes.value_dim, sizes.key_dim, sizes.value_dim, A(1), m.state, m.chunk.columns);
    return true;
  }

  // du becomes dR, dvalue dV.
  void update_gradient(int64_t value_head, int64_t first, const A* dstate, BackwardMatrices<T>& m) const {
    ChunkMatrices<T>& c = m.chunk;
    const int64_t row = sizes.value_heads * sizes.value_dim;
    load_rows(dout + first * row + value_head * sizes.value_dim, row, c.rows, sizes.value_dim, A(1), m.dout, c.columns);
    product(c.rows, c.columns, sizes.key_dim, c.k, c.key, Transpose::No, dstate, m.du, Write::Overwrite);
    scale_rows(m.du, c.to_end, c.rows, c.columns, m.du);
    add_upper_product(c.scores, c.stride, c.rows, m.dout, c.columns, m.du);
    solve_upper(c.system, c.stride, c.rows, c.columns, m.du);
    scale_rows(m.du, c.beta, c.rows, c.columns, m.dvalue);
  }

  // dstate becomes the gradient of the state before the chunk.
  void state_gradient(BackwardMatrices<T>& m, A* dstate) const {
    ChunkMatrices<T>& c = m.chunk;
    const A all = c.since_start[c.rows - 1];
#pragma omp simd
    for (int64_t i = 0; i < sizes.key_dim * c.columns; ++i) dstate[i] *= all;
    scale_rows(m.dout, c.since_start, c.rows, c.columns, c.scaled);
    product(sizes.key_dim, c.columns, c.rows, c.q, c.key, Transpose::Yes, c.scaled, dstate, Write::Accumulate);
    for (int64_t r = 0; r < c.rows; ++r) {
      const A factor = -c.since_start[r];
      for (int64_t i = r * c.columns; i < (r + 1) * c.columns; ++i) c.scaled[i] = factor * m.dvalue[i];
    }
    product(sizes.key_dim, c.columns, c.rows, c.k, c.key, Transpose::Yes, c.scaled, dstate, Write::Accumulate);
  }

  // dscores = Tril(dO U^T), dsystem = -diag(beta) StrictTril(dR U^T), which is dN; dbeta; and the part of the decays'
  // gradient that comes through G: X = dscores . scores + dN . N gives rowsum(X) - colsum(X). Then both are multiplied
  // by G.
  void triangle_gradients(int64_t at, BackwardMatrices<T>& m) const {
    ChunkMatrices<T>& c = m.chunk;
    transpose(c.update, c.rows, c.columns, sizes.value_dim, m.update_columns, c.stride);
    product(c.rows, c.stride, sizes.value_dim, m.dout, c.columns, Transpose::No, m.update_columns, m.dscores,
            Write::Overwrite);
    product(c.rows, c.stride, sizes.value_dim, m.du, c.columns, Transpose::No, m.update_columns, m.dsystem,
            Write::Overwrite);
    std::fill_n(m.row_sums, c.rows, A(0));
    for (int64_t r = 0; r < c.rows; ++r) {
      A *ds = m.dscores + r * c.stride, *dn = m.dsystem + r * c.stride;
      const A *g = c.decay + r * c.stride, *kk = c.kk + r * c.stride, *qk = c.qk + r * c.stride;
      const A factor = -c.beta[r];
      dn[r] = A(0);
      const A* error = c.error + r * c.columns;
      const A* dr = m.du + r * c.columns;
      const A through_error = lane_sum<A>(c.columns, [=](int64_t i) { return dr[i] * error[i]; });
      const A through_system = lane_sum<A>(r, [=](int64_t i) { return dn[i] * (kk[i] * g[i]); });
      dbeta[at + r] = through_error - through_system;
#pragma omp simd
      for (int64_t i = 0; i < c.stride; ++i) {
        ds[i] *= g[i];
        dn[i] *= factor * g[i];
      }
      m.row_sums[r] += lane_sum<A>(r, [=](int64_t i) { return ds[i] * qk[i] + dn[i] * kk[i]; });
#pragma omp simd
      for (int64_t i = 0; i < r; ++i) m.row_sums[i] -= ds[i] * qk[i] + dn[i] * kk[i];
    }
  }

  // Adds to dq, dk and row_sums what comes through the state before the chunk: dP = dO S^T and dG = -dV S^T.
  void gradients_through_state(BackwardMatrices<T>& m) const {
    ChunkMatrices<T>& c = m.chunk;
    transpose(m.state, sizes.key_dim, c.columns, sizes.value_dim, m.state_columns, c.key);
    product(c.rows, c.key, sizes.value_dim, m.dout, c.columns, Transpose::No, m.state_columns, m.wide,
            Write::Overwrite);
    add_scaled(m.wide, c.since_start, A(1), c.q, m.dq, m);
    product(c.rows, c.key, sizes.value_dim, m.dvalue, c.columns, Transpose::No, m.state_columns, m.wide,
            Write::Overwrite);
    add_scaled(m.wide, c.since_start, A(-1), c.k, m.dk, m);
  }

  // to += sign * diag(factor) x, row_sums += sign * factor <x, with>.
  void add_scaled(const A* x, const A* factor, A sign, const A* with, A* to, BackwardMatrices<T>& m) const {
    const int64_t key = m.chunk.key;
    for (int64_t r = 0; r < m.chunk.rows; ++r) {
      const A by = sign * factor[r];
      const A *row = x + r * key, *other = with + r * key;
      m.row_sums[r] += by * lane_sum<A>(key, [=](int64_t i) { return row[i] * other[i]; });
      add_row(by, row, key, to + r * key);
    }
  }

  // The same for the state behind the chunk: dKc = U D^T. Returns what belongs to the decay of the whole chunk.
  A gradients_through_next(const A* dstate, bool has_state, BackwardMatrices<T>& m) const {
    ChunkMatrices<T>& c = m.chunk;
    transpose(dstate, sizes.key_dim, c.columns, sizes.value_dim, m.dstate_columns, c.key);
    product(c.rows, c.key, sizes.value_dim, c.update, c.columns, Transpose::No, m.dstate_columns, m.wide,
            Write::Overwrite);
    A whole = A(0);
    for (int64_t r = 0; r < c.rows; ++r) {
      const A *x = m.wide + r * c.key, *key = c.k + r * c.key;
      const A term = c.to_end[r] * lane_sum<A>(c.key, [=](int64_t i) { return x[i] * key[i]; });
      m.row_sums[r] -= term;
      whole += term;
      add_row(c.to_end[r], x, c.key, m.dk + r * c.key);
    }
    if (!has_state) return whole;
    const A* state = m.state;
    const A product_sum = lane_sum<A>(sizes.key_dim * c.columns, [=](int64_t i) { return dstate[i] * state[i]; });
    return whole + c.since_start[c.rows - 1] * product_sum;
  }

  void gradients(int64_t value_head, int64_t first, bool has_state, const A* dstate, BackwardMatrices<T>& m) const {
    ChunkMatrices<T>& c = m.chunk;
    const int64_t at = value_head * sizes.tokens + first;
    store_rows(m.dvalue, c.columns, c.rows, sizes.value_dim, A(1), dv + at * sizes.value_dim, sizes.value_dim);
    triangle_gradients(at, m);
    add_lower_product(m.dscores, c.stride, c.rows, c.k, c.key, m.dq);
    add_upper_product(m.dscores, c.stride, c.rows, c.q, c.key, m.dk);
    add_lower_product(m.dsystem, c.stride, c.rows, c.k, c.key, m.dk);
    add_upper_product(m.dsystem, c.stride, c.rows, c.k, c.key, m.dk);
    if (has_state) gradients_through_state(m);
    A sum = gradients_through_next(dstate, has_state, m);
    for (int64_t r = c.rows - 1; r >= 0; --r) dlog_decay[at + r] = sum += m.row_sums[r];
  }

  void run(int64_t head, int64_t segment, BackwardMatrices<T>& m) const {
    const int64_t row = problem.segments.initial_row(segment);
    if (wanted == Wanted::StateGradient && row < 0) return;
    ChunkMatrices<T>& c = m.chunk;
    start(head, segment, m);
    const int64_t begin = problem.segments.begin[segment], end = problem.segments.begin[segment + 1],
                  group = sizes.group();
    for (int64_t first = begin + (end - begin - 1) / sizes.chunk * sizes.chunk; first >= begin; first -= sizes.chunk) {
      c.load_keys(q, k, problem.scale, head, first, std::min(sizes.chunk, end - first));
      std::fill_n(m.dq, c.rows * c.key, A(0));
      std::fill_n(m.dk, c.rows * c.key, A(0));
      for (int64_t member = 0; member < group; ++member) {
        const int64_t value_head = head * group + member, at = value_head * sizes.tokens + first;
        A* dstate = m.dstate + member * sizes.key_dim * c.columns;
        c.load_gates(log_decay + at, beta + at);
        update_gradient(value_head, first, dstate, m);
        if constexpr (wanted == Wanted::AllGradients) {
          const bool has_state = load_state(value_head, segment, first, m);
          c.solve(v + at * sizes.value_dim, has_state ? m.state : nullptr);
          gradients(value_head, first, has_state, dstate, m);
        }
        state_gradient(m, dstate);
      }
      if constexpr (wanted == Wanted::AllGradients) {
        const int64_t to = (head * sizes.tokens + first) * sizes.key_dim;
        store_rows(m.dq, c.key, c.rows, sizes.key_dim, static_cast<A>(problem.scale), dq + to, sizes.key_dim);
        store_rows(m.dk, c.key, c.rows, sizes.key_dim, A(1), dk + to, sizes.key_dim);
      }
    }
    if (dinitial == nullptr || row < 0) return;
    store_rows(m.dstate, c.columns, group * sizes.key_dim, sizes.value_dim, A(1),
               dinitial + (row * sizes.value_heads + head * group) * state_size(), sizes.value_dim);
  }
};

template <class T, Wanted wanted>
Backward<T, wanted> make_backward(const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                                  const ConstTensor& dout) {
  using A = Acc<T>;
  return {.problem = problem,
          .sizes = delta_rule_sizes(problem, input),
          .q = input.q.as<T>(),
          .k = input.k.as<T>(),
          .v = input.v.as<T>(),
          .log_decay = input.log_decay.as<A>(),
          .beta = input.beta.as<A>(),
          .initial = input.initial.empty() ? nullptr : input.initial.as<A>(),
          .states = nullptr,
          .dout = dout.as<T>(),
          .dfinal = nullptr,
          .dq = nullptr,
          .dk = nullptr,
          .dv = nullptr,
          .dlog_decay = nullptr,
          .dbeta = nullptr,
          .dinitial = nullptr};
}

template <class T, Wanted wanted>
void run_backward(Context& context, const Backward<T, wanted>& backward) {
  using A = Acc<T>;
  const int64_t elements = backward_elements(backward.sizes);
  const ArenaScope scope(context.workspace());
  const Tensor scratch = context.workspace().take({context.threads(), elements}, dtype_of<A>());
  A* memory = scratch.as<A>();
  for_segments(context, backward.problem, backward.sizes.key_heads, [&](int64_t head, int64_t segment, int worker) {
    Cursor<A> cursor(memory + worker * elements);
    BackwardMatrices<T> matrices(backward.sizes, cursor);
    backward.run(head, segment, matrices);
  });
}

}  // namespace

int64_t delta_rule_detail::backward_elements(const DeltaRuleSizes& sizes) {
  return dispatch_float(sizes.compute, [&]<class T>(T) {
    Cursor<Acc<T>> cursor(nullptr);
    BackwardMatrices<T>(sizes, cursor);
    return cursor.used();
  });
}

void cpu::delta_rule_backward(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                              const ConstTensor& states, const ConstTensor& dout, const ConstTensor& dfinal,
                              const DeltaRuleGradients& gradients) {
  dispatch_float(input.q.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    auto backward = make_backward<T, Wanted::AllGradients>(problem, input, dout);
    backward.states = states.empty() ? nullptr : states.as<A>();
    backward.dfinal = dfinal.empty() ? nullptr : dfinal.as<A>();
    backward.dq = gradients.dq.as<T>();
    backward.dk = gradients.dk.as<T>();
    backward.dv = gradients.dv.as<T>();
    backward.dlog_decay = gradients.dlog_decay.as<A>();
    backward.dbeta = gradients.dbeta.as<A>();
    backward.dinitial = gradients.dinitial.empty() ? nullptr : gradients.dinitial.as<A>();
    run_backward(context, backward);
  });
}

void cpu::delta_rule_map_backward(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                                  const ConstTensor& dout, const Tensor& dadded) {
  if (dadded.empty()) return;
  dispatch_float(input.q.dtype(), [&]<class T>(T) {
    auto backward = make_backward<T, Wanted::StateGradient>(problem, input, dout);
    backward.dinitial = dadded.as<Acc<T>>();
    run_backward(context, backward);
  });
}

}  // namespace tessera
