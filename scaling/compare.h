// Two ways to train (attention kinds, optimisers, data mixtures), compared over scales.
#pragma once

#include "scaling/fit/bootstrap.h"

namespace tessera {

// One form for several variants at once, each sample's by its `variant`. With a shared irreducible loss, theta is
// (log E, the other constants of variant 0, those of variant 1, ...), else all constants of each in turn.
class VariantForm final : public Form {
 public:
  // `base` must outlive it, and have E as its first constant where E is shared.
  VariantForm(const Form& base, std::vector<std::string> variants, bool share_irreducible);

  std::string_view name() const override { return base_.name(); }
  std::string_view formula() const override { return base_.formula(); }
  const std::vector<Constant>& constants() const override { return constants_; }
  double log_loss(const Sample& sample, std::span<const double> theta, std::span<double> gradient) const override;
  // One: the fits of each variant alone.
  std::vector<Theta> starts(std::span<const Sample> samples) const override;

  // The base form's theta of one variant.
  Theta of_variant(std::span<const double> theta, size_t variant) const;
  bool shares() const { return share_; }

 private:
  size_t place(size_t variant, size_t constant) const;

  const Form& base_;
  size_t variants_;
  bool share_;
  std::vector<Constant> constants_;
};

struct Comparison {
  bool shared = false;  // one E for both: what corrected_akaike asks for
  double akaike_shared = 0, akaike_apart = 0;
  Fit fit;  // of the VariantForm
  Bootstrap bootstrap;
  Estimate gain;      // at `flops`: variant 0 needs this many times the compute to reach the loss of variant 1
  Estimate crossing;  // FLOPs at which compute-optimal losses are equal; NaN when they are not between 1e12 and 1e30
  double crossing_share = 0;  // of bootstrap replicates that cross there
};

// Samples with variant 0 and 1. Losses are those of compute-optimal runs. Throws DataError when a variant has too few
// runs.
Comparison compare_variants(const Form& base, const std::vector<std::string>& names, std::span<const Sample> samples,
                            double flops, double level, const BootstrapOptions& options = {});

}  // namespace tessera
