// Everything that a run must save to go on: all that checkpoint/ ever sees.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/interval.h"
#include "tensor/tensor.h"

namespace tessera {

// The name of a parameter's master weights begins with this; the parameter's own name follows.
inline constexpr std::string_view kMasterPrefix = "master/";
// So do the names of what the optimizer keeps of its gradients: "exp_avg/" and "exp_avg_sq/", which only training needs.
inline constexpr std::string_view kMomentPrefix = "exp_avg";

// This rank's rows of one global tensor of the state: a master weight, a moment.
struct StateSlice {
  std::string name;  // global: "master/blocks.17.attention.qkv", "exp_avg/...", "exp_avg_sq/..."
  Shape global_shape;
  Interval rows;  // this rank's rows of dim 0; may be empty, and those of other ranks as well
  Tensor data;    // [rows, ...]
};

// What is saved beside the tensors, the same on every rank: step, samples, tokens, data history as text.
struct Cursors {
  std::map<std::string, int64_t> numbers;
  std::map<std::string, std::string> texts;
  bool operator==(const Cursors&) const = default;
};

struct State {
  std::vector<StateSlice> slices;
  Cursors cursors;
};

}  // namespace tessera
