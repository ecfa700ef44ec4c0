// The coordinate check of a parametrisation (Yang et al. 2022, appendix D.1): by how much a few steps move the
// activations, over widths. Under the maximal update parametrisation that is the same at every width; where it grows or
// shrinks as a power of the width, the best learning rate moves with the width too.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

class RunConfig;  // launch/run.proto

struct CoordinateOptions {
  std::vector<int64_t> widths;
  int64_t steps = 5;
  int seeds = 3;
  int threads = 1;
};

struct Coordinates {
  std::vector<std::string> places;  // "embedding", "block 0", ..., "logits"
  std::vector<int64_t> widths;
  // [steps + 1][widths][places]: at step 0 the root mean square x_0 of the activations, after t steps that of
  // x_t - x_0; geometric means over seeds.
  std::vector<std::vector<std::vector<double>>> size;

  // d log size / d log width of a place after the last step, by least squares.
  double slope(size_t place) const;
};

// Steps on one fixed batch of random tokens, at the config's peak learning rate. The config is not resolved, and
// model.hidden_size is each width in turn, with head_dim and the ratios of other sizes to the width as they are. Throws
// UsageError for widths that these do not divide, NumericalError when a run diverges.
Coordinates check_coordinates(const RunConfig& config, const CoordinateOptions& options);

// The config at another width.
RunConfig at_width(const RunConfig& config, int64_t width);

}  // namespace tessera
