#include "checkpoint/inspect.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "checkpoint/format/element.h"

namespace tessera {
namespace {

// Calls visit(first byte, bytes) on the tensor, in order.
template <class Visit>
void for_each_chunk(CheckpointReader& reader, const StoredTensor& tensor, std::vector<std::byte>& buffer,
                    Visit&& visit) {
  buffer.resize(kBlockBytes);
  for (int64_t at = 0; at < tensor.bytes(); at += kBlockBytes) {
    const auto chunk = std::span(buffer).first(std::min(kBlockBytes, tensor.bytes() - at));
    reader.read(tensor, at, chunk);
    visit(at, chunk);
  }
}

TensorSummary summarise(CheckpointReader& reader, const StoredTensor& tensor, std::vector<std::byte>& buffer) {
  TensorSummary summary;
  summary.name = tensor.name;
  summary.shape = tensor.shape;
  summary.dtype = tensor.dtype;
  long double squares = 0;  // of doubles of any size
  double smallest = std::numeric_limits<double>::infinity();
  double largest = -smallest;
  // By exponent, from that of the least subnormal on.
  constexpr int kLeast = -1074, kMost = 1023;
  std::vector<int64_t> magnitudes(kMost - kLeast + 1);
  for_each_chunk(reader, tensor, buffer, [&](int64_t, std::span<const std::byte> chunk) {
    for_each_element(tensor.dtype, chunk, [&](double value) {
      if (!std::isfinite(value)) {
        ++summary.non_finite;
        return;
      }
      squares += static_cast<long double>(value) * value;
      if (value == 0) {
        ++summary.zeros;
      } else {
        ++magnitudes[std::ilogb(value) - kLeast];
      }
      smallest = std::min(smallest, value);
      largest = std::max(largest, value);
    });
  });
  for (int e = kLeast; e <= kMost; ++e) {
    if (magnitudes[e - kLeast] > 0) summary.magnitudes[e] = magnitudes[e - kLeast];
  }
  summary.norm = static_cast<double>(std::sqrt(squares));
  if (smallest <= largest) {
    summary.min = smallest;
    summary.max = largest;
  }
  return summary;
}

class Comparison {
 public:
  Comparison(CheckpointReader& a, CheckpointReader& b) : a_(a), b_(b) {}

  CheckpointDifference run() {
    std::set<std::string> names;
    for (const auto& tensor : a_.tensors()) names.insert(tensor.name);
    for (const auto& tensor : b_.tensors()) names.insert(tensor.name);
    for (const std::string& name : names) {
      TensorDifference difference = compare(name);
      if (!difference.only.empty() || difference.differing > 0) result_.tensors.push_back(difference);
    }
    compare_numbers("step", a_.info().step, b_.info().step);
    compare_numbers("samples", a_.info().samples, b_.info().samples);
    compare_numbers("tokens", a_.info().tokens, b_.info().tokens);
    compare_maps(a_.info().cursors.numbers, b_.info().cursors.numbers);
    compare_maps(a_.info().cursors.texts, b_.info().cursors.texts);
    return result_;
  }

 private:
  TensorDifference compare(const std::string& name) {
    TensorDifference difference;
    difference.name = name;
    const StoredTensor* a = a_.find(name);
    const StoredTensor* b = b_.find(name);
    if (a == nullptr || b == nullptr) {
      difference.only = a == nullptr ? "only in B" : "only in A";
    } else if (a->shape != b->shape) {
      difference.only = fmt::format("shape {} against {}", a->shape.str(), b->shape.str());
    } else if (a->dtype != b->dtype) {
      difference.only = fmt::format("{} against {}", tessera::name(a->dtype), tessera::name(b->dtype));
    } else {
      compare_values(*a, *b, difference);
    }
    return difference;
  }

  void compare_values(const StoredTensor& a, const StoredTensor& b, TensorDifference& difference) {
    ++result_.tensors_compared;
    difference.elements = a.shape.size();
    const size_t size = static_cast<size_t>(size_of(a.dtype));
    long double squares = 0, a_squares = 0;  // of doubles of any size
    bool incomparable = false;
    std::vector<double> a_values, b_values;
    for_each_chunk(a_, a, a_buffer_, [&](int64_t at, std::span<const std::byte> a_bytes) {
      b_buffer_.resize(kBlockBytes);
      const auto b_bytes = std::span(b_buffer_).first(a_bytes.size());
      b_.read(b, at, b_bytes);
      a_values.clear();
      b_values.clear();
      for_each_element(a.dtype, a_bytes, [&](double value) { a_values.push_back(value); });
      for_each_element(a.dtype, b_bytes, [&](double value) { b_values.push_back(value); });
      for (size_t i = 0; i < a_values.size(); ++i) {
        a_squares += static_cast<long double>(a_values[i]) * a_values[i];
        if (std::memcmp(&a_bytes[i * size], &b_bytes[i * size], size) == 0) continue;
        ++difference.differing;
        const double gap = std::abs(a_values[i] - b_values[i]);
        squares += static_cast<long double>(gap) * gap;
        if (std::isfinite(gap)) difference.max_difference = std::max(difference.max_difference, gap);
        incomparable = incomparable || !std::isfinite(gap);
      }
    });
    if (incomparable) difference.max_difference = NAN;
    difference.relative_norm = difference.differing == 0 ? 0 : static_cast<double>(std::sqrt(squares / a_squares));
  }

  void compare_numbers(const std::string& name, int64_t a, int64_t b) {
    if (a != b) result_.cursors.push_back(fmt::format("{}: {} against {}", name, a, b));
  }

  template <class Map>
  void compare_maps(const Map& a, const Map& b) {
    for (const auto& [name, value] : a) {
      const auto other = b.find(name);
      if (other == b.end())
        result_.cursors.push_back(fmt::format("{}: only in A", name));
      else if (other->second != value)
        result_.cursors.push_back(fmt::format("{}: {} against {}", name, value, other->second));
    }
    for (const auto& [name, value] : b) {
      if (!a.contains(name)) result_.cursors.push_back(fmt::format("{}: only in B", name));
    }
  }

  CheckpointReader& a_;
  CheckpointReader& b_;
  CheckpointDifference result_;
  std::vector<std::byte> a_buffer_, b_buffer_;
};

}  // namespace

std::vector<TensorSummary> inspect(CheckpointReader& reader) {
  std::vector<TensorSummary> summaries;
  std::vector<std::byte> buffer;
  for (const auto& tensor : reader.tensors()) summaries.push_back(summarise(reader, tensor, buffer));
  return summaries;
}

CheckpointDifference diff(CheckpointReader& a, CheckpointReader& b) { return Comparison(a, b).run(); }

}  // namespace tessera
