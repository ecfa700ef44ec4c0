// Laws that are sums of terms with one positive factor each:
//
//   L = sum_j c_j phi_j(N, D; p),   theta = (log c_1, ..., log c_J, p_1, ..., p_K)
//
// Given p the best factors c are found exactly, by non-negative least squares (fit/nnls.h), which is what variable
// projection (fit/projection.h) and the choice of starts rest on. log L is the log-sum-exp of log c_j + log phi_j.
#pragma once

#include "scaling/fit/form.h"

namespace tessera {

class SeparableForm : public Form {
 public:
  static constexpr size_t kMaxTerms = 4;

  size_t terms() const { return terms_; }
  size_t shapes() const { return constants().size() - terms_; }  // K

  // Overwrites log_phi [terms], and slope [terms, shapes] with d log_phi_j / d p_k unless it is empty.
  virtual void log_terms(const Sample& sample, std::span<const double> p, std::span<double> log_phi,
                         std::span<double> slope) const = 0;

  // For each p_k the values that starts are spread over.
  virtual std::vector<std::vector<double>> grid() const = 0;

  double log_loss(const Sample& sample, std::span<const double> theta, std::span<double> gradient) const final;
  std::vector<Theta> starts(std::span<const Sample> samples) const final;

 protected:
  explicit SeparableForm(size_t terms) : terms_(terms) {}

 private:
  size_t terms_;
};

}  // namespace tessera
