// Variable projection for separable laws (Golub and Pereyra 1973): the factors c of L = sum_j c_j phi_j(p) follow from
// the exponents p by non-negative least squares, so that only p is searched:
//
//   F(p) = 1/2 min_{c >= 0} sum_i w_i^2 (L_i - sum_j c_j phi_j(N_i, D_i; p))^2
//
// At the best c, dF/dp is the partial derivative at fixed c. Unbiased on clean data, and needs no starting factors.
#pragma once

#include "scaling/fit/fit.h"
#include "scaling/fit/separable.h"

namespace tessera {

enum class ProjectionError {
  Relative,  // w_i = 1 / L_i: what least squares on log loss means, to first order
  Absolute,  // w_i = 1: plain least squares on the loss
};

// `objective` of the result is F.
Fit fit_by_projection(const SeparableForm& form, std::span<const Sample> samples,
                      ProjectionError error = ProjectionError::Relative, int polished_starts = 8);

}  // namespace tessera
