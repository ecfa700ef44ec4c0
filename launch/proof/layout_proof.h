// The proof that a layout computes the same function as one rank: both run the same steps in F64, with ranks as
// threads, and everything that training depends on is compared as whole tensors.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/reducer.h"
#include "parallel/source.h"

namespace tessera {

class RunConfig;  // launch/run.proto
struct Layout;

using WholeTensors = std::map<std::string, std::vector<double>>;  // by name, put together from all ranks

// What a run of some steps computed.
struct RunRecord {
  std::vector<double> losses, norms;    // by step
  std::vector<WholeTensors> gradients;  // by step: of every parameter, summed over replicas, before clipping
  WholeTensors state;                   // after the last step: master weights and moments
};

// For tests: what stands between the parts of a run, to plant a fault. Null members change nothing.
struct Interference {
  std::function<std::unique_ptr<Source>(Source& source, Mesh& mesh)> source;
  std::function<std::unique_ptr<Reducer>(Reducer& reducer, Mesh& mesh)> reducer;
};

// Runs `steps` steps of a resolved config in F64 on random documents, on as many ranks as its layout has.
RunRecord record_run(const RunConfig& config, const Layout& layout, int64_t steps,
                     const Interference& interference = {});

// The largest differences of a run from the run on one rank.
struct LayoutDifference {
  double loss = 0;             // |a - b| / |b|, over steps
  double norm = 0;             // likewise
  double gradient = 0;         // |a - b| / |b| in the Euclidean norm, over steps and parameters
  double state = 0;            // likewise, over tensors of the state
  std::string first_gradient;  // the first parameter, by name, whose gradient differs by more than kLayoutTolerance
  std::string first_state;     // likewise, the first tensor of the state; "" when none does
  int64_t first_step = 0;      // first_gradient's step, from 1
  bool equal() const;
};

// A real fault shows 1e-3 and more, rounding in F64 less than 1e-12.
constexpr double kLayoutTolerance = 1e-9;

LayoutDifference compare_runs(const RunRecord& one, const RunRecord& other);

}  // namespace tessera
