// The gradients, by the formulas of delta_rule_backward_cpu.cc.
#include <cmath>

#include "tensor/ops/delta_rule/delta_rule_cuda.h"

namespace tessera {
namespace {

using namespace cuda;

enum class Wanted { AllGradients, StateGradient };

// A block's matrices beside those of DeltaRuleChunk.
template <class A>
struct Scratch {
  A *dout, *du, *dvalue;   // [rows, value_dim]
  A *dscores, *dsystem;    // [rows, chunk]
  A *dq, *dk;              // [rows, key_dim]
  A* dstate;               // [group, key_dim, value_dim]: of the state behind the chunk

  static constexpr int64_t elements(int64_t chunk, int64_t key_dim, int64_t value_dim, int64_t group) {
    return 3 * chunk * value_dim + 2 * chunk * chunk + 2 * chunk * key_dim + group * key_dim * value_dim;
  }
  __device__ void place(const DeltaRuleView& in, A* memory) {
    const int64_t value = int64_t{in.chunk} * in.value_dim, square = int64_t{in.chunk} * in.chunk;
    const int64_t key = int64_t{in.chunk} * in.key_dim;
    dout = memory;
    du = dout + value;
    dvalue = du + value;
    dscores = dvalue + value;
    dsystem = dscores + square;
    dq = dsystem + square;
    dk = dq + key;
    dstate = dk + key;
  }
};

template <class T>
struct Operands {
  using A = Acc<T>;
  DeltaRuleView in;
  const T *q, *k, *v, *dout;
  const A *log_decay, *beta, *initial, *states, *dfinal;  // the last three may be null
  T *dq, *dk, *dv;
  A *dlog_decay, *dbeta, *dinitial;
  A* memory;
  int64_t elements;  // of a block
};

template <Wanted wanted, class T>
struct Backward {
  using A = Acc<T>;
  Operands<T> o;
  DeltaRuleChunk<T> c;
  Scratch<A> m;

  __device__ void start(int32_t head, int32_t segment) const {
    const DeltaRuleView& in = o.in;
    const int32_t row = in.segments.final_row(segment);
    const bool given = row >= 0 && o.dfinal != nullptr;
    const int64_t from = (int64_t{row} * in.value_heads + head * in.group) * in.state_size();
    block_elements(in.group * in.state_size(), [&](int64_t i) { m.dstate[i] = given ? o.dfinal[from + i] : A(0); });
    __syncthreads();
  }

  // The state before the chunk, or null: zero.
  __device__ const A* state_before(int32_t value_head, int32_t segment, int32_t first) const {
    const DeltaRuleView& in = o.in;
    if (first > in.segments.begin[segment]) return o.states + in.kept_row(value_head, first) * in.state_size();
    const int32_t row = in.segments.initial_row(segment);
    if (row < 0 || o.initial == nullptr) return nullptr;
    return o.initial + (int64_t{row} * in.value_heads + value_head) * in.state_size();
  }

  // du = dR, dvalue = dV.
  __device__ void update_gradient(int32_t value_head, int32_t first, const A* dstate) const {
    const int key = o.in.key_dim, width = o.in.value_dim, stride = o.in.chunk, rows = c.rows;
    const int64_t row = int64_t{o.in.value_heads} * width;
    const T* from = o.dout + int64_t{first} * row + int64_t{value_head} * width;
    block_elements(int64_t{rows} * width,
                   [&](int64_t i) { m.dout[i] = static_cast<A>(from[i / width * row + i % width]); });
    __syncthreads();
    const DeltaRuleChunk<T>& own = c;
    const Scratch<A>& to = m;
    block_product<A>(
        rows, width, key + rows,
        [=](int i, int p) {
          return p < key ? own.each->to_end[i] * own.k[i * key + p] : own.scores[(p - key) * stride + i];
        },
        [=](int p, int j) { return p < key ? dstate[int64_t{p} * width + j] : to.dout[(p - key) * width + j]; },
        [=](int i, int j, A sum) { to.du[i * width + j] = sum; });
    __syncthreads();
    block_elements(width, [&](int64_t j) {
      for (int r = rows - 1; r >= 0; --r) {
        A sum = m.du[r * width + j];
        for (int s = rows - 1; s > r; --s) sum += c.system[s * stride + r] * m.du[s * width + j];
        m.du[r * width + j] = sum;
        m.dvalue[r * width + j] = c.each->beta[r] * sum;
      }
    });
    __syncthreads();
  }

  // dstate becomes the gradient of the state before the chunk.
  __device__ void state_gradient(A* dstate) const {
    const int key = o.in.key_dim, width = o.in.value_dim, rows = c.rows;
    const A all = c.each->since_start[rows - 1];
    const DeltaRuleChunk<T>& own = c;
    const Scratch<A>& to = m;
    __syncthreads();  // dstate has been read
    block_product<A>(
        key, width, 2 * rows,
        [=](int i, int p) { return p < rows ? own.q[p * key + i] : -own.k[(p - rows) * key + i]; },
        [=](int p, int j) {
          return p < rows ? own.each->since_start[p] * to.dout[p * width + j]
                          : own.each->since_start[p - rows] * to.dvalue[(p - rows) * width + j];
        },
        [=](int i, int j, A sum) { dstate[int64_t{i} * width + j] = all * dstate[int64_t{i} * width + j] + sum; });
    __syncthreads();
  }

  // dscores and dsystem times G, dbeta, and in `sums` the part of the decays' gradient that comes through G.
  __device__ void triangle_gradients(int64_t at) const {
    const int width = o.in.value_dim, stride = o.in.chunk, rows = c.rows;
    const DeltaRuleChunk<T>& own = c;
    const Scratch<A>& to = m;
    const auto updates = [=](int p, int j) { return own.update[j * width + p]; };
    block_product<A>(
        rows, rows, width, [=](int i, int p) { return to.dout[i * width + p]; }, updates,
        [=](int i, int j, A sum) { to.dscores[i * stride + j] = sum * own.decay[i * stride + j]; });
    block_product<A>(
        rows, rows, width, [=](int i, int p) { return to.du[i * width + p]; }, updates,
        [=](int i, int j, A sum) { to.dsystem[i * stride + j] = j < i ? -sum * own.decay[i * stride + j] : A(0); });
    __syncthreads();
    const int warps = static_cast<int>(blockDim.x / 32), warp = static_cast<int>(threadIdx.x / 32);
    for (int r = warp; r < rows; r += warps) {
      const A error = warp_dot<A>(width, [&](int i) { return m.du[r * width + i] * c.error[r * width + i]; });
      const A system = warp_dot<A>(r, [&](int i) { return m.dsystem[r * stride + i] * c.kk[r * stride + i]; });
      if (threadIdx.x % 32 == 0) o.dbeta[at + r] = error + system;
    }
    __syncthreads();
    block_elements(int64_t{rows} * stride, [&](int64_t i) { m.dsystem[i] *= c.each->beta[i / stride]; });
    __syncthreads();
    const auto term = [&](int r, int i) {
      return m.dscores[r * stride + i] * c.qk[r * stride + i] + m.dsystem[r * stride + i] * c.kk[r * stride + i];
    };
    for (int r = warp; r < rows; r += warps) {
      const A before = warp_dot<A>(r, [&](int i) { return term(r, i); });
      const A behind = warp_dot<A>(rows - r - 1, [&](int i) { return term(r + 1 + i, r); });
      if (threadIdx.x % 32 == 0) c.each->sums[r] = before - behind;
    }
    __syncthreads();
  }

  // dq and dk of this value head, added to those of its group. state may be null: zero.
  __device__ void key_gradients(const A* state, const A* dstate) const {
    const int key = o.in.key_dim, width = o.in.value_dim, stride = o.in.chunk, rows = c.rows;
    const int seen = state == nullptr ? 0 : width;
    const DeltaRuleChunk<T>& own = c;
    const Scratch<A>& to = m;
    block_product<A>(
        rows, key, rows + seen,
        [=](int i, int p) {
          return p < rows ? to.dscores[i * stride + p] : own.each->since_start[i] * to.dout[i * width + p - rows];
        },
        [=](int p, int j) { return p < rows ? own.k[p * key + j] : state[int64_t{j} * width + p - rows]; },
        [=](int i, int j, A sum) { to.dq[i * key + j] += sum; });
    block_product<A>(
        rows, key, 2 * rows + width + seen,
        [=](int i, int p) {
          if (p < rows) return to.dscores[p * stride + i];
          if (p < 2 * rows) return to.dsystem[(p - rows) * stride + i] + to.dsystem[i * stride + p - rows];
          if (p < 2 * rows + width) return own.each->to_end[i] * own.update[i * width + p - 2 * rows];
          return -own.each->since_start[i] * to.dvalue[i * width + p - 2 * rows - width];
        },
        [=](int p, int j) {
          if (p < rows) return own.q[p * key + j];
          if (p < 2 * rows) return own.k[(p - rows) * key + j];
          if (p < 2 * rows + width) return dstate[int64_t{j} * width + p - 2 * rows];
          return state[int64_t{j} * width + p - 2 * rows - width];
        },
        [=](int i, int j, A sum) { to.dk[i * key + j] += sum; });
  }

  // dlog_decay: through the states it takes <dP, P> + <dG, G> - <dKc, Kc> of each token, where the first two are dout
  // and dvalue times what a token sees of the state before, and the last its update times what it sees of dstate.
  __device__ void decay_gradients(int64_t at, const A* state, const A* dstate) const {
    const int key = o.in.key_dim, width = o.in.value_dim, rows = c.rows;
    const int warps = static_cast<int>(blockDim.x / 32), warp = static_cast<int>(threadIdx.x / 32);
    __syncthreads();
    for (int r = warp; r < rows; r += warps) {
      const A behind = c.each->to_end[r] * warp_dot<A>(key * width, [&](int i) {
                         return c.update[r * width + i % width] * dstate[i] * c.k[r * key + i / width];
                       });
      A before = A(0);
      if (state != nullptr) {
        before = c.each->since_start[r] * warp_dot<A>(key * width, [&](int i) {
                   const int d = i / width, e = i % width;
                   return state[i] * (m.dout[r * width + e] * c.q[r * key + d] - m.dvalue[r * width + e] * c.k[r * key + d]);
                 });
      }
      if (threadIdx.x % 32 == 0) {
        c.each->sums[r] += before - behind;
        c.each->decay[r] = behind;  // the decays have been used
      }
    }
    A states[1] = {A(0)};
    if (state != nullptr) block_elements(int64_t{key} * width, [&](int64_t i) { states[0] += dstate[i] * state[i]; });
    block_sums(states);  // its barriers also show the sums to all
    if (threadIdx.x == 0) {
      A sum = c.each->since_start[rows - 1] * states[0];
      for (int r = 0; r < rows; ++r) sum += c.each->decay[r];
      for (int r = rows - 1; r >= 0; --r) o.dlog_decay[at + r] = sum += c.each->sums[r];
    }
    __syncthreads();
  }

  __device__ void chunk(int32_t head, int32_t segment, int32_t first) {
    const DeltaRuleView& in = o.in;
    const int64_t keys = int64_t{c.rows} * in.key_dim;
    if constexpr (wanted == Wanted::AllGradients)
      block_elements(keys, [&](int64_t i) { m.dq[i] = m.dk[i] = A(0); });
    for (int member = 0; member < in.group; ++member) {
      const int32_t value_head = head * in.group + member;
      const int64_t at = int64_t{value_head} * in.tokens + first;
      A* dstate = m.dstate + member * in.state_size();
      c.load_gates(o.log_decay + at, o.beta + at);
      update_gradient(value_head, first, dstate);
      if constexpr (wanted == Wanted::AllGradients) {
        const A* state = state_before(value_head, segment, first);
        c.solve(o.v + at * in.value_dim, state);
        block_elements(int64_t{c.rows} * in.value_dim,
                       [&](int64_t i) { o.dv[at * in.value_dim + i] = rounded<T>(m.dvalue[i]); });
        triangle_gradients(at);
        key_gradients(state, dstate);
        decay_gradients(at, state, dstate);
      }
      state_gradient(dstate);
    }
    if constexpr (wanted == Wanted::AllGradients) {
      const int64_t to = (int64_t{head} * in.tokens + first) * in.key_dim;
      const A scale = static_cast<A>(in.scale);
      block_elements(keys, [&](int64_t i) {
        o.dq[to + i] = rounded<T>(scale * m.dq[i]);
        o.dk[to + i] = rounded<T>(m.dk[i]);
      });
    }
    __syncthreads();
  }

  __device__ void run(int32_t head, int32_t segment) {
    const DeltaRuleView& in = o.in;
    const int32_t row = in.segments.initial_row(segment), begin = in.segments.begin[segment], end = in.segments.begin[segment + 1];
    if (wanted == Wanted::StateGradient && row < 0) return;
    start(head, segment);
    for (int32_t first = begin + (end - begin - 1) / in.chunk * in.chunk; first >= begin; first -= in.chunk) {
      c.load_keys(o.q, o.k, head, first, end - first < in.chunk ? end - first : in.chunk);
      chunk(head, segment, first);
    }
    if (o.dinitial == nullptr || row < 0) return;
    A* to = o.dinitial + (int64_t{row} * in.value_heads + head * in.group) * in.state_size();
    block_elements(in.group * in.state_size(), [&](int64_t i) { to[i] = m.dstate[i]; });
    __syncthreads();
  }
};

template <Wanted wanted, class T>
__global__ void __launch_bounds__(kDeltaRuleThreads) backward_kernel(Operands<T> o) {
  using A = Acc<T>;
  Backward<wanted, T> b;
  b.o = o;
  b.c.in = o.in;
  b.c.columns = o.in.value_dim;
  b.c.each = shared_memory<DeltaRuleRows<A>>();
  b.m.place(o.in, b.c.place(o.memory + (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * o.elements));
  for (int32_t segment = static_cast<int32_t>(blockIdx.y); segment < o.in.segments.count();
       segment += static_cast<int32_t>(gridDim.y)) {
    b.run(static_cast<int32_t>(blockIdx.x), segment);
  }
}

template <class T>
Operands<T> make_operands(const DeltaRuleProblem& problem, const DeltaRuleInput& input, const ConstTensor& dout) {
  using A = Acc<T>;
  Operands<T> o{};
  o.in = delta_rule_view(problem, input);
  o.q = input.q.as<T>();
  o.k = input.k.as<T>();
  o.v = input.v.as<T>();
  o.dout = dout.as<T>();
  o.log_decay = input.log_decay.as<A>();
  o.beta = input.beta.as<A>();
  return o;
}

template <Wanted wanted, class T>
void run_backward(Context& context, const char* name, const DeltaRuleSizes& sizes, Operands<T> o) {
  using A = Acc<T>;
  if (sizes.tokens == 0) return;
  const int64_t blocks = delta_rule_blocks(sizes);
  o.elements = delta_rule_backward_elements(sizes);
  const ArenaScope scope(context.workspace());
  o.memory = context.workspace().take({blocks * sizes.key_heads, o.elements}, dtype_of<A>()).template as<A>();
  launch(context, name, &backward_kernel<wanted, T>,
         dim3(static_cast<unsigned int>(sizes.key_heads), static_cast<unsigned int>(blocks)), kDeltaRuleThreads,
         static_cast<int64_t>(sizeof(DeltaRuleRows<A>)), o);
}

}  // namespace

int64_t cuda::delta_rule_backward_elements(const DeltaRuleSizes& sizes) {
  return DeltaRuleChunk<float>::elements(sizes.chunk, sizes.key_dim, sizes.value_dim) +
         Scratch<float>::elements(sizes.chunk, sizes.key_dim, sizes.value_dim, sizes.group());
}

void cuda::delta_rule_backward(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                               const ConstTensor& states, const ConstTensor& dout, const ConstTensor& dfinal,
                               const DeltaRuleGradients& gradients) {
  dispatch_float(input.q.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    Operands<T> o = make_operands<T>(problem, input, dout);
    o.initial = input.initial.empty() ? nullptr : input.initial.as<A>();
    o.states = states.empty() ? nullptr : states.as<A>();
    o.dfinal = dfinal.empty() ? nullptr : dfinal.as<A>();
    o.dq = gradients.dq.as<T>();
    o.dk = gradients.dk.as<T>();
    o.dv = gradients.dv.as<T>();
    o.dlog_decay = gradients.dlog_decay.as<A>();
    o.dbeta = gradients.dbeta.as<A>();
    o.dinitial = gradients.dinitial.empty() ? nullptr : gradients.dinitial.as<A>();
    run_backward<Wanted::AllGradients>(context, "delta_rule_backward", delta_rule_sizes(problem, input), o);
  });
}

void cuda::delta_rule_map_backward(Context& context, const DeltaRuleProblem& problem, const DeltaRuleInput& input,
                                   const ConstTensor& dout, const Tensor& dadded) {
  if (dadded.empty()) return;
  dispatch_float(input.q.dtype(), [&]<class T>(T) {
    Operands<T> o = make_operands<T>(problem, input, dout);
    o.dinitial = dadded.as<Acc<T>>();
    run_backward<Wanted::StateGradient>(context, "delta_rule_map_backward", delta_rule_sizes(problem, input), o);
  });
}

}  // namespace tessera
