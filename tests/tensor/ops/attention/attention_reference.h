// Attention by its definition in double precision, with the whole matrix of scores, and first-order bounds on what a
// tiled kernel with unit roundoff u may differ by. For the attention tests.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "tensor/ops/attention/attention.h"
#include "tests/support/device.h"

namespace tessera::testing_attention {

struct Sizes {
  int64_t queries;
  int64_t keys;
  int64_t q_heads;
  int64_t kv_heads;
  int64_t head_dim;

  int64_t q_elements() const { return q_heads * queries * head_dim; }
  int64_t kv_elements() const { return kv_heads * keys * head_dim; }
};

inline bool visible(const TokenPlaces& queries, int64_t i, const TokenPlaces& keys, int64_t j, int64_t window) {
  const int64_t distance = int64_t{queries.position[i]} - keys.position[j];
  return queries.document[i] >= 0 && queries.document[i] == keys.document[j] && distance >= 0 &&
         (window == 0 || distance < window);
}

// A value and how far a kernel's may lie from it.
struct Bounded {
  std::vector<double> value;
  std::vector<double> bound;

  explicit Bounded(int64_t elements = 0) : value(elements), bound(elements) {}
};

struct Roundoff {
  double accumulation;  // unit roundoff of sums
  double result;        // of what is stored: 0 where it is the accumulation dtype (then it is among the sums' own)
  double factor;        // of P and dS as factors of a product: tensor cores take them in the compute dtype

  explicit Roundoff(DType compute)
      : accumulation(unit_roundoff(accumulation_dtype(compute))),
        result(compute == accumulation_dtype(compute) ? 0 : unit_roundoff(compute)),
        factor(testing::kDevice == Device::Cuda && compute == DType::BF16 ? unit_roundoff(compute) : 0) {
    // They also cut sums off where others round.
    if (factor != 0) accumulation *= 2;
  }
};
// Room for the products of two or more roundings, which first-order bounds leave out.
constexpr double kHigherOrder = 1.01;

struct Forward {
  Bounded out;
  Bounded lse;
};
struct Backward {
  Bounded dq;
  Bounded dk;
  Bounded dv;
};

inline double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}
inline double dot_of_magnitudes(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::abs(a[i] * b[i]);
  return sum;
}

// Bounds, to first order in u, with a_ij = scale * sum_d |q_id k_jd|, A = max_j a_ij over visible j, n keys, t tiles:
//   score     rounding of scale, of scale * q, and head_dim products and sums:     (head_dim + 3) u a_ij
//   exp       argument s - max (at most 2 A, rounded once), function 3 u:          (head_dim + 3) u A + 2 A u + 3 u
//   out       the above in numerator and denominator, n sums and t rescalings in each, division and rounding, and that
//             of P where it is a factor, all relative to sum_j P_ij |v_jd|
inline Forward reference_forward(const AttentionProblem& problem, const Sizes& sizes, const Roundoff& u,
                                 const std::vector<double>& q, const std::vector<double>& k,
                                 const std::vector<double>& v) {
  Forward result{Bounded(sizes.q_elements()), Bounded(sizes.q_heads * sizes.queries)};
  const int64_t dim = sizes.head_dim;
  const double tiles = static_cast<double>((sizes.keys + kAttentionTile - 1) / kAttentionTile);
  const double n = static_cast<double>(sizes.keys);
  std::vector<double> score(sizes.keys);
  for (int64_t h = 0; h < sizes.q_heads; ++h) {
    const int64_t g = h / (sizes.q_heads / sizes.kv_heads);
    for (int64_t i = 0; i < sizes.queries; ++i) {
      const double* query = &q[(h * sizes.queries + i) * dim];
      double top = -std::numeric_limits<double>::infinity();
      double magnitude = 0;
      for (int64_t j = 0; j < sizes.keys; ++j) {
        score[j] = -std::numeric_limits<double>::infinity();
        if (!visible(problem.queries, i, problem.keys, j, problem.window)) continue;
        const double* key = &k[(g * sizes.keys + j) * dim];
        score[j] = problem.scale * dot(query, key, dim);
        top = std::max(top, score[j]);
        magnitude = std::max(magnitude, problem.scale * dot_of_magnitudes(query, key, dim));
      }
      double sum = 0;
      for (int64_t j = 0; j < sizes.keys; ++j) sum += std::isinf(score[j]) ? 0 : std::exp(score[j] - top);
      const bool blind = std::isinf(top);
      const double lse = blind ? top : top + std::log(sum);
      const double exponential = static_cast<double>(dim + 5) * magnitude + 3;
      result.lse.value[h * sizes.queries + i] = lse;
      result.lse.bound[h * sizes.queries + i] =
          blind ? 0
                : kHigherOrder * u.accumulation *
                      (exponential + n + 2 * tiles + 4 * (std::abs(top) + std::abs(std::log(sum))));
      for (int64_t d = 0; d < dim; ++d) {
        double value = 0;
        double size = 0;
        for (int64_t j = 0; j < sizes.keys && !blind; ++j) {
          const double p = std::isinf(score[j]) ? 0 : std::exp(score[j] - lse);
          value += p * v[(g * sizes.keys + j) * dim + d];
          size += p * std::abs(v[(g * sizes.keys + j) * dim + d]);
        }
        const int64_t at = (i * sizes.q_heads + h) * dim + d;
        result.out.value[at] = value;
        result.out.bound[at] =
            kHigherOrder *
            ((u.accumulation * (2 * exponential + 2 * (n + tiles) + 3) + u.factor) * size + u.result * std::abs(value));
      }
    }
  }
  return result;
}

// With out and lse as given (and rounded), P_ij = exp(s_ij - lse_i), dP_ij = dO_i . v_j, D_i = dO_i . O_i,
// dS = P (dP - D). Bounds to first order, b_ij = sum_d |dO_id v_jd|, c_i = sum_d |dO_id O_id|, N terms in a sum:
//   P    (head_dim + 3) u a_ij + 2 u |lse| + u |s - lse| + 3 u, relative
//   dS   P (that |dP - D| + (head_dim + 1) u (b_ij + c_i) + 2 u |dP - D|)
//   sums what their terms carry, and (N + 3) u of the sum of magnitudes
inline Backward reference_backward(const AttentionProblem& problem, const Sizes& sizes, const Roundoff& u,
                                   const std::vector<double>& q, const std::vector<double>& k,
                                   const std::vector<double>& v, const std::vector<double>& out,
                                   const std::vector<double>& lse, const std::vector<double>& dout) {
  Backward result{Bounded(sizes.q_elements()), Bounded(sizes.kv_elements()), Bounded(sizes.kv_elements())};
  const int64_t dim = sizes.head_dim;
  const int64_t heads = sizes.q_heads / sizes.kv_heads;
  const double key_terms = static_cast<double>(sizes.keys) + 3;
  const double query_terms = static_cast<double>(sizes.queries * heads) + 3;
  const double rounding = u.accumulation;
  for (int64_t h = 0; h < sizes.q_heads; ++h) {
    const int64_t g = h / heads;
    for (int64_t i = 0; i < sizes.queries; ++i) {
      const double* query = &q[(h * sizes.queries + i) * dim];
      const double* output = &out[(i * sizes.q_heads + h) * dim];
      const double* gradient = &dout[(i * sizes.q_heads + h) * dim];
      const double log_sum = lse[h * sizes.queries + i];
      const double delta = dot(gradient, output, dim);
      const double delta_size = dot_of_magnitudes(gradient, output, dim);
      for (int64_t j = 0; j < sizes.keys; ++j) {
        if (!visible(problem.queries, i, problem.keys, j, problem.window)) continue;
        const int64_t row = (g * sizes.keys + j) * dim;
        const double score = problem.scale * dot(query, &k[row], dim);
        const double p = std::exp(score - log_sum);
        const double p_error =
            rounding * (static_cast<double>(dim + 3) * problem.scale * dot_of_magnitudes(query, &k[row], dim) +
                        2 * std::abs(log_sum) + std::abs(score - log_sum) + 3);
        const double slope = dot(gradient, &v[row], dim) - delta;
        const double ds = p * slope;
        const double ds_error =
            p * (p_error * std::abs(slope) + 2 * rounding * std::abs(slope) +
                 static_cast<double>(dim + 1) * rounding * (dot_of_magnitudes(gradient, &v[row], dim) + delta_size));
        for (int64_t d = 0; d < dim; ++d) {
          const int64_t at_q = (h * sizes.queries + i) * dim + d;
          const int64_t at_k = row + d;
          result.dv.value[at_k] += p * gradient[d];
          result.dv.bound[at_k] += (p_error + query_terms * rounding + u.factor) * p * std::abs(gradient[d]);
          result.dk.value[at_k] += problem.scale * ds * query[d];
          result.dk.bound[at_k] +=
              problem.scale * std::abs(query[d]) * (ds_error + (query_terms * rounding + u.factor) * std::abs(ds));
          result.dq.value[at_q] += problem.scale * ds * k[at_k];
          result.dq.bound[at_q] +=
              problem.scale * std::abs(k[at_k]) * (ds_error + (key_terms * rounding + u.factor) * std::abs(ds));
        }
      }
    }
  }
  for (Bounded* x : {&result.dq, &result.dk, &result.dv}) {
    for (size_t i = 0; i < x->bound.size(); ++i) {
      x->bound[i] = kHigherOrder * (x->bound[i] + u.result * std::abs(x->value[i]));
    }
  }
  return result;
}

}  // namespace tessera::testing_attention
