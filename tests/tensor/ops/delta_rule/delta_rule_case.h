// Operands of the gated delta rule over packed segments, and the rule itself token by token in double.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tensor/ops/delta_rule/delta_rule.h"
#include "tests/support/operand.h"
#include "tests/support/tolerance.h"

namespace tessera::testing {

struct DeltaRuleCase {
  // Segment lengths; rows[s] is segment s's row of initial and of final states, or -1.
  DeltaRuleCase(DeltaRuleSizes s, const std::vector<int32_t>& lengths, std::vector<int32_t> segment_rows)
      : sizes(with_tokens(s, lengths)),
        rows(std::move(segment_rows)),
        begin(begins(lengths)),
        q(unit_rows({s.key_heads, sizes.tokens, s.key_dim}, s.compute, "q")),
        k(unit_rows({s.key_heads, sizes.tokens, s.key_dim}, s.compute, "k")),
        v(Operand::random({s.value_heads, sizes.tokens, s.value_dim}, s.compute, "v")),
        log_decay({s.value_heads, sizes.tokens}, accumulation_dtype(s.compute)),
        beta({s.value_heads, sizes.tokens}, accumulation_dtype(s.compute)),
        initial(random_states("initial", s.value_dim)),
        out({sizes.tokens, s.value_heads, s.value_dim}, s.compute),
        states({s.value_heads, sizes.tokens / s.chunk, s.key_dim, s.value_dim}, accumulation_dtype(s.compute)),
        final(random_states("final", s.value_dim)),
        dout(Operand::random({sizes.tokens, s.value_heads, s.value_dim}, s.compute, "dout")),
        dfinal(random_states("dfinal", s.value_dim)),
        dq({s.key_heads, sizes.tokens, s.key_dim}, s.compute),
        dk({s.key_heads, sizes.tokens, s.key_dim}, s.compute),
        dv({s.value_heads, sizes.tokens, s.value_dim}, s.compute),
        dlog_decay({s.value_heads, sizes.tokens}, accumulation_dtype(s.compute)),
        dbeta({s.value_heads, sizes.tokens}, accumulation_dtype(s.compute)),
        dinitial(random_states("dinitial", s.value_dim)),
        transfer(random_states("transfer", s.key_dim)),
        lists(std::max<int64_t>(1, segment_words(kDevice, sizes.tokens))) {
    const RandomStream gates(3, "gates");
    for (int64_t i = 0; i < log_decay.size(); ++i) {
      log_decay.set(i, -0.2 * std::abs(gates.normal(2 * i)));
      beta.set(i, 1 / (1 + std::exp(-gates.normal(2 * i + 1))));
    }
  }

  // The same numbers in another dtype.
  DeltaRuleCase(const DeltaRuleCase& other, DType dtype) : DeltaRuleCase(other) {
    sizes.compute = dtype;
    for (Operand DeltaRuleCase::*x : {&DeltaRuleCase::q, &DeltaRuleCase::k, &DeltaRuleCase::v, &DeltaRuleCase::out,
                                      &DeltaRuleCase::dout, &DeltaRuleCase::dq, &DeltaRuleCase::dk, &DeltaRuleCase::dv})
      this->*x = converted(this->*x, dtype);
    for (Operand DeltaRuleCase::*x : {&DeltaRuleCase::log_decay, &DeltaRuleCase::beta, &DeltaRuleCase::initial,
                                      &DeltaRuleCase::states, &DeltaRuleCase::final, &DeltaRuleCase::dfinal,
                                      &DeltaRuleCase::dlog_decay, &DeltaRuleCase::dbeta, &DeltaRuleCase::dinitial})
      this->*x = converted(this->*x, accumulation_dtype(dtype));
  }

  DeltaRuleProblem problem(Context& context) {
    DeltaRuleProblem problem{
        .scale = scale, .chunk = sizes.chunk, .segments = {.begin = begin, .initial = rows, .final = rows}};
    const Tensor memory(lists.data(), {static_cast<int64_t>(lists.size())}, DType::I32, kDevice);
    send_segments(context, problem.segments, memory);
    return problem;
  }
  DeltaRuleInput input() const {
    return {.q = q.tensor(),
            .k = k.tensor(),
            .v = v.tensor(),
            .log_decay = log_decay.tensor(),
            .beta = beta.tensor(),
            .initial = initial.tensor()};
  }
  DeltaRuleGradients gradients() {
    return {.dq = dq.tensor(),
            .dk = dk.tensor(),
            .dv = dv.tensor(),
            .dlog_decay = dlog_decay.tensor(),
            .dbeta = dbeta.tensor(),
            .dinitial = dinitial.tensor()};
  }
  void forward(Context& context) {
    delta_rule(context, problem(context), input(), out.tensor(), states.tensor(), final.tensor());
  }
  void backward(Context& context) {
    delta_rule_backward(context, problem(context), input(), states.tensor(), dout.tensor(), dfinal.tensor(),
                        gradients());
  }
  std::vector<std::pair<const char*, const Operand*>> results() const {
    return {{"out", &out}, {"final", &final},           {"dq", &dq},       {"dk", &dk},
            {"dv", &dv},   {"dlog_decay", &dlog_decay}, {"dbeta", &dbeta}, {"dinitial", &dinitial}};
  }

  static DeltaRuleSizes with_tokens(DeltaRuleSizes sizes, const std::vector<int32_t>& lengths) {
    sizes.tokens = 0;
    for (const int32_t length : lengths) sizes.tokens += length;
    return sizes;
  }
  static std::vector<int32_t> begins(const std::vector<int32_t>& lengths) {
    std::vector<int32_t> begin = {0};
    for (const int32_t length : lengths) begin.push_back(begin.back() + length);
    return begin;
  }
  // Rows of length about one, as the rule wants keys.
  static Operand unit_rows(const Shape& shape, DType dtype, const std::string& name) {
    Operand x = Operand::random(shape, dtype, name);
    const int64_t width = shape[shape.rank() - 1];
    for (int64_t r = 0; r < shape.size(); r += width) {
      double squares = 1e-3;
      for (int64_t i = r; i < r + width; ++i) squares += x[i] * x[i];
      for (int64_t i = r; i < r + width; ++i) x.set(i, x[i] / std::sqrt(squares));
    }
    return x;
  }
  static Operand converted(const Operand& x, DType dtype) {
    Operand y(x.tensor().shape(), dtype);
    for (int64_t i = 0; i < x.size(); ++i) y.set(i, x[i]);
    return y;
  }
  Operand random_states(const char* what, int64_t columns) const {
    int32_t count = 0;
    for (const int32_t row : rows) count = std::max(count, row + 1);
    return Operand::random({count, sizes.value_heads, sizes.key_dim, columns}, accumulation_dtype(sizes.compute), what);
  }

  DeltaRuleSizes sizes;
  double scale = 0.7;
  std::vector<int32_t> rows, begin;
  Operand q, k, v, log_decay, beta, initial, out, states, final, dout, dfinal, dq, dk, dv, dlog_decay, dbeta, dinitial;
  Operand transfer;  // of delta_rule_map
  SharedVector<int32_t> lists;
};

inline std::vector<int32_t> random_lengths(uint64_t seed, int count, int32_t most) {
  const RandomStream random(seed, "lengths");
  std::vector<int32_t> lengths;
  for (int i = 0; i < count; ++i)
    lengths.push_back(1 + static_cast<int32_t>(std::abs(random.normal(static_cast<uint64_t>(i))) * most / 2));
  return lengths;
}

// The rule as it is written, one token after the other, with a bound of what rounding does to a chunked computation.
//
// Keys are no longer than one and beta is at most one, so a token maps an error of the state to one that is no longer
// (in the Frobenius norm), times its decay: errors of all tokens add up, each at most gamma times what enters the
// token: its value, the state, and the earlier updates of its chunk by the products of their keys with its own.
struct Recurrence {
  std::vector<double> out, final, error;  // out and error [tokens, value_heads, value_dim], final as the case's
  double largest_error = 0;               // of the states, in units of gamma

  explicit Recurrence(const DeltaRuleCase& c) : out(c.out.size()), final(c.final.size()), error(c.out.size()) {
    for (int64_t head = 0; head < c.sizes.value_heads; ++head) {
      for (size_t s = 0; s + 1 < c.begin.size(); ++s) run(c, head, s);
    }
  }

 private:
  void run(const DeltaRuleCase& c, int64_t head, size_t segment) {
    const int64_t key_dim = c.sizes.key_dim, value_dim = c.sizes.value_dim, size = key_dim * value_dim;
    const int64_t key_head = head / c.sizes.group(), row = c.rows[segment];
    std::vector<double> state(size), update(value_dim), update_lengths;
    double state_error = 0;
    if (row >= 0) {
      for (int64_t i = 0; i < size; ++i) state[i] = c.initial[(row * c.sizes.value_heads + head) * size + i];
    }
    const auto length = [](const double* x, int64_t n) {
      double squares = 0;
      for (int64_t i = 0; i < n; ++i) squares += x[i] * x[i];
      return std::sqrt(squares);
    };
    for (int64_t t = c.begin[segment]; t < c.begin[segment + 1]; ++t) {
      const int64_t key_at = (key_head * c.sizes.tokens + t) * key_dim, gate_at = head * c.sizes.tokens + t;
      const double decay = std::exp(c.log_decay[gate_at]), beta = c.beta[gate_at];
      if ((t - c.begin[segment]) % c.sizes.chunk == 0) update_lengths.clear();
      double entering = decay * length(state.data(), size), query = 0;
      for (size_t j = 0; j < update_lengths.size(); ++j) entering += update_lengths[j];
      double value_length = 0;
      for (int64_t e = 0; e < value_dim; ++e) {
        const double v = c.v[gate_at * value_dim + e];
        double seen = 0;
        for (int64_t d = 0; d < key_dim; ++d) seen += c.k[key_at + d] * state[d * value_dim + e];
        update[e] = beta * (v - decay * seen);
        value_length += v * v;
      }
      entering += std::sqrt(value_length);
      update_lengths.push_back(length(update.data(), value_dim));
      state_error = decay * state_error + entering;
      for (int64_t d = 0; d < key_dim; ++d) {
        for (int64_t e = 0; e < value_dim; ++e)
          state[d * value_dim + e] = decay * state[d * value_dim + e] + c.k[key_at + d] * update[e];
        query += c.q[key_at + d] * c.q[key_at + d];
      }
      largest_error = std::max(largest_error, state_error);
      for (int64_t e = 0; e < value_dim; ++e) {
        const int64_t at = (t * c.sizes.value_heads + head) * value_dim + e;
        for (int64_t d = 0; d < key_dim; ++d) out[at] += c.scale * c.q[key_at + d] * state[d * value_dim + e];
        error[at] = c.scale * std::sqrt(query) * (state_error + length(state.data(), size));
      }
    }
    if (row >= 0) std::copy(state.begin(), state.end(), final.begin() + (row * c.sizes.value_heads + head) * size);
  }
};

// Roundings in a row of one token: products over a key, a triangle's row and its decays, both ways through the chunk.
inline double delta_rule_roundings(const DeltaRuleSizes& sizes) {
  return static_cast<double>(sizes.key_dim + sizes.value_dim + 4 * sizes.chunk + 16);
}

inline void expect_recurrence(const DeltaRuleCase& c) {
  const Recurrence exact(c);
  const DType dtype = c.sizes.compute;
  const double roundings = delta_rule_roundings(c.sizes);
  for (int64_t i = 0; i < c.out.size(); ++i)
    ASSERT_NEAR(c.out[i], exact.out[i], tolerance(dtype, roundings, exact.error[i])) << "out " << i;
  for (int64_t i = 0; i < c.final.size(); ++i)
    ASSERT_NEAR(c.final[i], exact.final[i], tolerance(accumulation_dtype(dtype), roundings, exact.largest_error))
        << "final " << i;
}

inline double largest(const Operand& x) {
  double most = 0;
  for (int64_t i = 0; i < x.size(); ++i) most = std::max(most, std::abs(x[i]));
  return most;
}

}  // namespace tessera::testing
