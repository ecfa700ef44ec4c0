// Laws of whole loss curves, from the learning rates of the steps: one run under one schedule then says what another
// schedule would have given.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "scaling/fit/fit.h"
#include "scaling/fit/form.h"

namespace tessera {

struct LossCurve {
  std::vector<double> learning_rates;  // of steps 1, 2, ..., warm-up included
  size_t warmup_steps = 0;             // changes of the learning rate count after these
  std::vector<size_t> steps;           // where the loss is known or asked for, from 1
  std::vector<double> losses;          // [steps]; may be empty where a law is only asked
};

// A law over given curves; row r is the r-th of all points, curve after curve.
class CurveLaw {
 public:
  virtual ~CurveLaw() = default;
  virtual std::string_view name() const = 0;
  virtual std::string_view formula() const = 0;
  virtual const std::vector<Constant>& constants() const = 0;

  // log L; overwrites gradient [constants] unless it is empty. Where the law gives a loss under 1e-6 (far from any
  // data) the logarithm is continued by its tangent.
  double log_loss(size_t row, std::span<const double> theta, std::span<double> gradient) const;
  // Best first; needs losses.
  virtual std::vector<Theta> starts() const = 0;

  size_t rows() const { return rows_; }
  const std::vector<double>& log_observed() const { return log_observed_; }

 protected:
  // Throws DataError, naming curve and step, unless steps lie in the curve and losses are positive and finite.
  explicit CurveLaw(std::span<const LossCurve> curves);
  // L, and d L / d theta unless gradient is empty.
  virtual double loss(size_t row, std::span<const double> theta, std::span<double> gradient) const = 0;

 private:
  size_t rows_ = 0;
  std::vector<double> log_observed_;
};

// The lowest of the minima from the law's best starts.
Fit fit(const CurveLaw& law, const FitOptions& options = {});

}  // namespace tessera
