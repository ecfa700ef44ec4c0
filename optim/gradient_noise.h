// The gradient noise scale, from what a step computes anyhow (McCandlish et al. 2018, "An Empirical Model of
// Large-Batch Training", appendix A.1).
//
// With G the true gradient and tr(Sigma) the variance of one token's, a mean over B tokens has E|G_B|^2 = |G|^2 +
// tr(Sigma) / B. The step's first microbatch on each data-parallel rank is a small batch (b_r tokens), the whole step a
// large one (B tokens); two such equations give
//
//   noise  = (mean_r |G_{b_r}|^2 - |G_B|^2) / (mean_r 1 / b_r - 1 / B)      an unbiased estimate of tr(Sigma)
//   square = |G_B|^2 - noise / B                                            and of |G|^2
//
// B_simple = noise / square: a ratio of means over many steps, never a mean of ratios. The estimate costs two passes
// over the gradients and one all-reduce of five numbers. Parameters that every tensor-parallel rank holds whole (norms,
// biases) are left out when tp > 1, where a rank has only its part of their sum.
#pragma once

#include <optional>

#include "optim/square_sums.h"
#include "parallel/parameter.h"
#include "parallel/reducer_between.h"
#include "parallel/source.h"

namespace tessera {

class GradientNoise : public ReducerBetween {
 public:
  struct Measurement {
    double square = 0, noise = 0;
  };

  // Stands before `reducer`, whose gradients must be whole on every rank (ZeRO stage 0), on a mesh without pipeline and
  // context parallelism. Measures at steps that `every` divides, the next being number `next_step`. All must outlive
  // it.
  GradientNoise(Reducer& reducer, Mesh& mesh, const Parameters& parameters, const Source& source, int64_t every,
                int64_t next_step);

  // Whether the first microbatch's gradient stands alone in memory once its BACKWARD_WEIGHT is done, and is not all of
  // the step's: then this class can measure. actions: of this rank.
  static bool possible(const Mesh& mesh, const Schedule& actions, int microbatches);

  void begin_step(Context& context) override;
  void weight_done(Context& context, int stage, int microbatch) override;
  double norm(Context& context) override;
  void step(Context& context, double learning_rate, int64_t step) override;

  // Of the last step; nothing when it was none to measure at.
  const std::optional<Measurement>& measured() const { return measured_; }

  int64_t bytes() const { return sums_->bytes(); }  // where the gradients lie

 private:
  bool due() const { return next_step_ % every_ == 0; }
  // Of the gradients as they are, over this rank's rows, or the part of them that it counts among its replicas.
  double squares(Context& context, bool each_once);

  Mesh& mesh_;
  Parameters parameters_;
  const Source& source_;
  int64_t every_, next_step_;
  std::optional<SquareSums> sums_;  // by parameter
  double small_ = 0;                // |sum of the first microbatch's gradients|^2 of this rank, loss scale of the step
  std::optional<Measurement> measured_;
};

}  // namespace tessera
