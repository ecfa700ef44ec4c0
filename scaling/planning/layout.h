// How a run is laid out over its ranks: worked out once from the resolved config, before anything is allocated, and
// taken by everything that needs to know (the run itself, proofs, benchmarks, the planner).
//
// A pure function of the config's model, parallel and data sections, two words of its run section, and the number of
// ranks. Nothing in it is larger for more data-, context- or tensor-parallel ranks: what a rank has of it follows from
// the rank's coordinates.
#pragma once

#include <cstdint>
#include <vector>

#include "model/shape/recompute.h"
#include "model/shape/shape.h"
#include "optim/gradient_wire.h"
#include "parallel/context/plan.h"
#include "parallel/mesh.h"
#include "parallel/partition.h"
#include "parallel/regions.h"
#include "parallel/schedule/schedule.h"
#include "parallel/schedule/verify.h"
#include "tensor/dtype.h"

namespace tessera {

class DataConfig;      // data/data.proto
class ModelConfig;     // model/model.proto
class ParallelConfig;  // parallel/parallel.proto

// What a layout follows from: sections of a resolved config.
struct LayoutRequest {
  const ModelConfig& model;
  const ParallelConfig& parallel;
  const DataConfig& data;
  int world = 1;                                    // ranks
  DType compute = DType::F32;                       // of the model's tensors
  ProductFormat products = ProductFormat::Compute;  // of the linear layers of inner blocks
};

struct Layout {
  MeshShape mesh;
  std::vector<StagePart> parts;      // by pipeline stage
  PipelineSchedule schedule;         // of a training step; verified
  ScheduleFigures figures;           // what its replay found
  std::vector<Recompute> recompute;  // by block of the model
  std::vector<int> areas;            // by stage: the most blocks that are between RECOMPUTE and BACKWARD_WEIGHT at once
  ContextPlan::Options context;      // how a microbatch is dealt to context-parallel ranks
  int microbatches = 1;              // of a step, on each data-parallel rank
  int64_t micro_batch_samples = 1;
  int64_t sequence_length = 0;
  int64_t global_batch_samples = 1;
  int evaluation_group = 1;  // microbatches that an evaluation passes on together (parallel/schedule/passes.h)
  ProductFormat products = ProductFormat::Compute;  // of the linear layers of inner blocks
  int zero_stage = 0;
  WireFormat wire = WireFormat::Full;
  Overlap overlap = Overlap::On;

  // The model as a rank of the world holds it.
  ModelShape shape(int rank) const;
  // The model as a single rank would hold it, for what does not depend on the cut: costs, counts of parameters.
  ModelShape whole_model() const;

  int64_t microbatch_tokens() const { return micro_batch_samples * sequence_length; }  // token slots, before the deal
  int64_t step_tokens() const { return global_batch_samples * sequence_length; }       // token slots of a step
  int stages() const { return static_cast<int>(parts.size()); }
  int pipeline_rank(int rank) const { return mesh.coordinate(Axis::Pp, rank); }

  // What an evaluation of so many microbatches runs on each pipeline rank.
  PipelineSchedule evaluation_schedule(int evaluated_microbatches) const;

  ModelShape first_rank;  // shape(0); shape() is made of it
};

// parallel.dp may be 0: what is left of the ranks. Throws UsageError, naming the field, its value, the rule and what
// would fit, where the config cannot be laid out so. A schedule's file is read here and a search runs here, once.
Layout plan_layout(const LayoutRequest& request);

}  // namespace tessera
