// What a checkpoint's tensors hold, and in what two checkpoints differ.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/reader.h"

namespace tessera {

struct TensorSummary {
  std::string name;
  Shape shape;
  DType dtype = DType::F32;
  double norm = 0;  // square root of the sum of squares of the finite elements, summed in F64
  double min = 0;   // of the finite elements; 0 when there is none
  double max = 0;
  int64_t non_finite = 0;  // elements that are NaN or infinite
  int64_t zeros = 0;
  std::map<int, int64_t> magnitudes;  // finite elements other than zero, by e where 2^e <= |x| < 2^(e+1)
};

// Reads all tensors, a block of memory at a time. Throws as CheckpointReader::read.
std::vector<TensorSummary> inspect(CheckpointReader& reader);

struct TensorDifference {
  std::string name;
  std::string only;       // why values were not compared ("only in A", "shape [2] against [3]"), or empty
  int64_t differing = 0;  // elements whose bits differ
  int64_t elements = 0;
  double max_difference = 0;  // largest |a - b|; NaN when either is not finite where they differ
  double relative_norm = 0;   // norm of a - b over norm of a; not finite when that says nothing
};

struct CheckpointDifference {
  std::vector<TensorDifference> tensors;  // those that differ, by name
  std::vector<std::string> cursors;       // lines such as "step: 10 against 20"
  int64_t tensors_compared = 0;

  bool equal() const { return tensors.empty() && cursors.empty(); }
};

// Compares bits of tensors, step, samples, tokens and cursors; layouts, configs and versions may differ.
CheckpointDifference diff(CheckpointReader& a, CheckpointReader& b);

}  // namespace tessera
