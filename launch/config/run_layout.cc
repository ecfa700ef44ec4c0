#include "launch/config/run_layout.h"

#include "launch/run.pb.h"

namespace tessera {

DType compute_dtype(const RunConfig& config) {
  switch (config.run().compute_dtype()) {
    case RunSection::F64:
      return DType::F64;
    case RunSection::F32:
      return DType::F32;
    case RunSection::BF16:
    case RunSection::FP8:
      break;
  }
  return DType::BF16;
}

LayoutRequest layout_request(const RunConfig& config, int world) {
  const bool fp8 = config.run().compute_dtype() == RunSection::FP8;
  return {.model = config.model(),
          .parallel = config.parallel(),
          .data = config.data(),
          .world = world,
          .compute = compute_dtype(config),
          .products = fp8 ? ProductFormat::Fp8 : ProductFormat::Compute};
}

Layout plan_layout(const RunConfig& config) {
  const ParallelConfig& parallel = config.parallel();
  return plan_layout(layout_request(config, parallel.pp() * parallel.dp() * parallel.cp() * parallel.tp()));
}

}  // namespace tessera
