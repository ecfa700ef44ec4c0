// The two families written as plainly as possible, in double, one document and one token at a time: what the real
// model's loss is compared with. Parameters are read by name from the model under test (tp = 1).
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "model/shape/shape.h"
#include "parallel/parameter.h"

namespace tessera::testing {

class ReferenceModel {
 public:
  ReferenceModel(const ModelShape& shape, const Parameters& parameters) : s_(shape) {
    for (const Parameter* p : parameters) weights_[p->name] = p->value.as<double>();
  }

  // Sum over the document's targets of the cross entropy; token i predicts token i + 1, the last predicts nothing.
  double loss(const std::vector<int>& tokens) const {
    const int n = static_cast<int>(tokens.size());
    std::vector<Row> x(n);
    for (int t = 0; t < n; ++t) {
      x[t] = row("embedding", tokens[t]);
      if (s_.position == PositionKind::Learned) add(x[t], row("positions", t));
    }
    for (int l = 0; l < s_.blocks(); ++l) {
      const std::string block = "blocks." + std::to_string(l);
      const std::vector<Row> a = attention(block + ".attention", s_.layers[l].attention, norm(block + ".norm1", x));
      for (int t = 0; t < n; ++t) add(x[t], a[t]);
      const std::vector<Row> h = norm(block + ".norm2", x);
      for (int t = 0; t < n; ++t) add(x[t], mlp(block + ".mlp", h[t]));
    }
    x = norm("final_norm", x);
    double sum = 0;
    for (int t = 0; t + 1 < n; ++t) {
      double total = 0, target = 0;
      for (int v = 0; v < s_.vocab; ++v) {
        const double z = s_.output_scale * dot(x[t], row(s_.tied ? "embedding" : "head", v));
        total += std::exp(z);
        if (v == tokens[t + 1]) target = z;
      }
      sum += std::log(total) - target;
    }
    return sum;
  }

 private:
  using Row = std::vector<double>;

  const double* at(const std::string& name) const { return weights_.at(name); }
  double bias(const std::string& name, int i) const {
    return weights_.contains(name + ".bias") ? at(name + ".bias")[i] : 0.0;
  }
  Row row(const std::string& name, int64_t i) const {
    return Row(at(name) + i * s_.hidden, at(name) + (i + 1) * s_.hidden);
  }
  static void add(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  static double dot(const Row& x, const Row& y) {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
    return sum;
  }

  std::vector<Row> norm(const std::string& name, std::vector<Row> x) const {
    for (Row& r : x) {
      double mean = 0, square = 0;
      if (s_.norm == NormKind::Layer) {
        for (const double v : r) mean += v / static_cast<double>(r.size());
      }
      for (const double v : r) square += (v - mean) * (v - mean) / static_cast<double>(r.size());
      for (size_t i = 0; i < r.size(); ++i) {
        r[i] = (r[i] - mean) / std::sqrt(square + s_.norm_epsilon) * at(name)[i];
        if (s_.norm == NormKind::Layer) r[i] += at(name + ".bias")[i];
      }
    }
    return x;
  }

  Row rotate(Row x, int position, double theta) const {
    if (theta == 0) return x;
    const int half = static_cast<int>(s_.head_dim) / 2;
    for (int i = 0; i < half; ++i) {
      const double angle = position * std::pow(theta, -2.0 * i / static_cast<double>(s_.head_dim));
      const double a = x[i], b = x[i + half];
      x[i] = a * std::cos(angle) - b * std::sin(angle);
      x[i + half] = b * std::cos(angle) + a * std::sin(angle);
    }
    return x;
  }

  std::vector<Row> attention(const std::string& name, const LayerAttention& kind, const std::vector<Row>& x) const {
    const int n = static_cast<int>(x.size()), d = static_cast<int>(s_.head_dim);
    const int64_t window = kind.window;
    const int group = static_cast<int>(s_.heads / s_.kv_heads);
    const double scale =
        s_.attention_multiplier > 0 ? s_.attention_multiplier / d : 1 / std::sqrt(static_cast<double>(d));
    // Row `part` of kv head g: query heads 0 .. group-1, then key, then value.
    const auto project = [&](const Row& input, int g, int part) {
      Row out(d);
      for (int i = 0; i < d; ++i) {
        const int r = (g * (group + 2) + part) * d + i;
        out[i] = dot(input, row(name + ".qkv", r)) + bias(name + ".qkv", r);
      }
      return out;
    };
    std::vector<Row> y(n, Row(s_.hidden, 0.0));
    for (int t = 0; t < n; ++t) {
      for (int i = 0; i < s_.hidden; ++i) y[t][i] = bias(name + ".out", i);
    }
    for (int head = 0; head < s_.heads; ++head) {
      const int g = head / group;
      for (int t = 0; t < n; ++t) {
        const Row q = rotate(project(x[t], g, head % group), t, kind.rope_theta);
        Row out(d, 0.0);
        double total = 0;
        for (int u = window > 0 ? std::max<int>(0, t - static_cast<int>(window) + 1) : 0; u <= t; ++u) {
          const double e = std::exp(dot(q, rotate(project(x[u], g, group), u, kind.rope_theta)) * scale);
          const Row v = project(x[u], g, group + 1);
          total += e;
          for (int i = 0; i < d; ++i) out[i] += e * v[i];
        }
        for (int i = 0; i < d; ++i) {
          const Row w = row(name + ".out", head * d + i);
          for (int j = 0; j < s_.hidden; ++j) y[t][j] += out[i] / total * w[j];
        }
      }
    }
    return y;
  }

  Row mlp(const std::string& name, const Row& x) const {
    Row y(s_.hidden);
    for (int j = 0; j < s_.hidden; ++j) y[j] = bias(name + ".down", j);
    for (int f = 0; f < s_.ffn; ++f) {
      double a;
      if (s_.layers[0].feed_forward == FeedForwardKind::SwiGlu) {
        const double gate = dot(x, row(name + ".gate_up", 2 * f)), up = dot(x, row(name + ".gate_up", 2 * f + 1));
        a = gate / (1 + std::exp(-gate)) * up;
      } else {
        const double u = dot(x, row(name + ".up", f)) + bias(name + ".up", f);
        a = 0.5 * u * (1 + std::tanh(std::sqrt(2 / M_PI) * (u + 0.044715 * u * u * u)));
      }
      const Row w = row(name + ".down", f);
      for (int j = 0; j < s_.hidden; ++j) y[j] += a * w[j];
    }
    return y;
  }

  ModelShape s_;
  std::map<std::string, const double*> weights_;
};

}  // namespace tessera::testing
