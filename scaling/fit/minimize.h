// Minimises a smooth function of a few variables by L-BFGS (Liu and Nocedal 1989; libLBFGS).
//
// Scaling laws are badly conditioned (a factor and its exponent move together), so L-BFGS works in coordinates in which
// the curvature that the caller states is the identity; that is stated anew a few times on the way.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "scaling/fit/objective.h"

namespace tessera {

struct Minimum {
  std::vector<double> x;
  double value = 0;
  bool converged = false;  // the gradient vanished to rounding, or nothing lower could be found
  int evaluations = 0;
};

struct Smooth {
  // The value; overwrites the gradient.
  std::function<double(std::span<const double> x, std::span<double> gradient)> value;
  // Overwrites h [n, n] with a symmetric, non-negative estimate of the second derivatives.
  std::function<void(std::span<const double> x, std::span<double> h)> curvature;
};

// rounds: how often at most the curvature is stated.
Minimum minimize(const Smooth& function, std::span<const double> start, int rounds = 4);

// sum_i w_i g(r_i) J_i J_i^T with J_i = d log f_i / d theta: g = 1 within delta and delta / |r| beyond, the weights of
// iterated least squares.
void curvature(const Regression& regression, std::span<const double> theta, std::span<double> h);

Minimum minimize(const Regression& regression, std::span<const double> start, int rounds = 4);

}  // namespace tessera
