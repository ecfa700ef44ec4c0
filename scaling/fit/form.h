// A law for the loss of a finished run as a function of its parameters N and tokens D.
//
// The constants of a law live in one vector theta. A constant that must be positive is held as its logarithm, so that
// every theta is allowed, sums of terms are log-sum-exp, and nothing over- or underflows; `values` undoes it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

// One run as a law sees it. Logarithms are natural and taken once.
struct Sample {
  Sample(double parameters, double tokens, double loss, double unique_tokens = 0);

  double parameters, tokens, loss;
  double unique_tokens;  // U: tokens that the run saw at least once; tokens itself when nothing was repeated
  double log_parameters, log_tokens, log_loss;
  double flops;        // 6 N D, unless the run was counted exactly
  size_t variant = 0;  // where several are compared (compare.h)
};

using Theta = std::vector<double>;

struct Constant {
  std::string name;  // as the paper calls it
  bool positive;     // theta holds the logarithm
};

class Form {
 public:
  virtual ~Form() = default;

  virtual std::string_view name() const = 0;
  virtual std::string_view formula() const = 0;
  virtual const std::vector<Constant>& constants() const = 0;

  // log L at theta. Overwrites gradient [constants] with d log L / d theta, unless it is empty.
  virtual double log_loss(const Sample& sample, std::span<const double> theta, std::span<double> gradient) const = 0;

  // Places to start a fit from, best first: spread over the shapes that the law can take, each with the factors that
  // suit it best by non-negative least squares.
  virtual std::vector<Theta> starts(std::span<const Sample> samples) const = 0;

  size_t size() const { return constants().size(); }
  double loss(const Sample& sample, std::span<const double> theta) const;
  std::vector<double> values(std::span<const double> theta) const;
  Theta theta(std::span<const double> values) const;  // the inverse of values
};

}  // namespace tessera
