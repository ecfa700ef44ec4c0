#include "scaling/planning/layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/data.pb.h"
#include "model/cost.h"
#include "model/model.pb.h"
#include "parallel/parallel.pb.h"
#include "parallel/schedule/passes.h"
#include "scaling/planning/schedule_choice.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// The most blocks of a stage that are between RECOMPUTE and BACKWARD_WEIGHT at once.
int most_recomputed(const Schedule& actions, const StagePart& part, const std::vector<Recompute>& modes) {
  int alive = 0, most = 0;
  for (const Action& action : actions) {
    if (action.stage != part.stage) continue;
    const bool makes = action.kind == ActionKind::Recompute, frees = action.kind == ActionKind::BackwardWeight;
    if (!makes && !frees) continue;
    for (int block = action.blocks.first; block < std::min(action.blocks.last, part.blocks()); ++block) {
      if (modes[part.first_block + block] != Recompute::None) alive += makes ? 1 : -1;
    }
    most = std::max(most, alive);
  }
  return most;
}

ModelShape shape_of_first_rank(const LayoutRequest& request, const MeshShape& mesh, int64_t microbatch_tokens) {
  return model_shape(request.model,
                     {.tp = mesh.tp,
                      .cp = mesh.cp,
                      .slots = context_slots(microbatch_tokens, mesh.cp, mesh.tp, request.parallel.context_slack()),
                      .compute = request.compute,
                      .inner_products = request.products,
                      .exchanges = context_exchange_plan(request.parallel.context_exchange(),
                                                         static_cast<int>(request.model.num_hidden_layers()))});
}

}  // namespace

ModelShape Layout::shape(int rank) const {
  ModelShape shape = first_rank;
  shape.tp_rank = mesh.coordinate(Axis::Tp, rank);
  shape.cp_rank = mesh.coordinate(Axis::Cp, rank);
  return shape;
}

ModelShape Layout::whole_model() const {
  ModelShape shape = whole_shape(first_rank);
  shape.slots = microbatch_tokens();
  return shape;
}

PipelineSchedule Layout::evaluation_schedule(int evaluated_microbatches) const {
  return forward_only_schedule(schedule.rank_of_stage, evaluated_microbatches, evaluation_group,
                               zero_stage == 3 ? blocks_of(parts) : std::vector<int>());
}

Layout plan_layout(const LayoutRequest& request) {
  const ParallelConfig& parallel = request.parallel;
  const DataConfig& data = request.data;
  Layout layout;
  layout.mesh = MeshShape::resolve(parallel, request.world);
  layout.micro_batch_samples = data.micro_batch_size();
  layout.sequence_length = data.sequence_length();
  layout.global_batch_samples = data.global_batch_size();
  const int64_t replicated_samples = layout.mesh.dp * layout.micro_batch_samples;
  layout.microbatches = static_cast<int>(layout.global_batch_samples / replicated_samples);
  layout.products = request.products;
  layout.zero_stage = parallel.zero_stage();
  layout.wire = parallel.gradient_wire() == "bf16" ? WireFormat::Bf16 : WireFormat::Full;
  layout.overlap = parallel.overlap() ? Overlap::On : Overlap::Off;
  layout.first_rank = shape_of_first_rank(request, layout.mesh, layout.microbatch_tokens());
  layout.context = {.ranks = layout.mesh.cp,
                    .tokens = layout.microbatch_tokens(),
                    .slots = layout.first_rank.slots,
                    .work = attention_work(attention_kinds(layout.first_rank))};

  const int blocks = static_cast<int>(request.model.num_hidden_layers());
  layout.recompute = recompute_plan(parallel.recompute(), blocks);
  const ScheduleChoice choice(parallel);
  if (const std::string problem = schedule_size_problem(choice.stages(), layout.microbatches); !problem.empty())
    throw UsageError(
        fmt::format("data.global_batch_size / (parallel.dp * data.micro_batch_size) = {}: {}; choose larger "
                    "microbatches, more data-parallel ranks or fewer stages",
                    layout.microbatches, problem));
  layout.parts = stage_parts(parallel, choice.stages(), stage_cost(layout.whole_model(), layout.sequence_length));
  VerifiedSchedule made = choice.make(layout.microbatches, replicated_samples, layout.parts, layout.recompute);
  layout.schedule = std::move(made.schedule);
  layout.figures = std::move(made.figures);
  for (const int unreduced : layout.figures.unreduced)
    TESSERA_CHECK(layout.zero_stage < 2 || unreduced == 1, "a block's gradients are reduced before the next one's");
  for (const StagePart& part : layout.parts) {
    const Schedule& actions = layout.schedule.ranks[layout.schedule.rank_of_stage[part.stage]];
    layout.areas.push_back(most_recomputed(actions, part, layout.recompute));
  }
  layout.evaluation_group = forward_only_group(layout.schedule.rank_of_stage, layout.figures.stages);
  return layout;
}

}  // namespace tessera
