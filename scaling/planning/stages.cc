#include "scaling/planning/stages.h"

namespace tessera {

std::vector<std::unique_ptr<Transformer>> make_stages(const Layout& layout, int rank, const StageOptions& options) {
  const int pipeline_rank = layout.pipeline_rank(rank);
  const std::vector<int>& rank_of_stage = layout.schedule.rank_of_stage;
  const ModelShape shape = layout.shape(rank);
  std::vector<std::unique_ptr<Transformer>> stages;
  for (const StagePart& part : layout.parts) {
    if (rank_of_stage[part.stage] != pipeline_rank) continue;
    stages.push_back(std::make_unique<Transformer>(
        shape, Transformer::Options{.part = part,
                                    .recompute = layout.recompute,
                                    .slots = layout.figures.stages[part.stage].slots,
                                    .areas = layout.areas[part.stage],
                                    .device = options.device,
                                    .ends_together = rank_of_stage.front() == rank_of_stage.back(),
                                    .embedding_stage = stages.empty() ? nullptr : stages.front().get(),
                                    .weights_elsewhere = layout.zero_stage == 3,
                                    .overlap = layout.overlap,
                                    .graphs = options.graphs}));
  }
  share_out(parameters_of(stages), layout.mesh, layout.zero_stage);
  return stages;
}

Parameters parameters_of(const std::vector<std::unique_ptr<Transformer>>& stages) {
  Parameters parameters;
  for (const auto& stage : stages)
    parameters.insert(parameters.end(), stage->parameters().begin(), stage->parameters().end());
  return parameters;
}

ZeroOptimizer::Options optimizer_options(const Layout& layout, int rank, uint64_t seed) {
  ZeroOptimizer::Options options{
      .seed = seed, .compute = layout.first_rank.compute, .zero_stage = layout.zero_stage, .wire = layout.wire};
  // However many groups of microbatches an evaluation has, the third one's GATHERs are the second one's.
  const int pipeline_rank = layout.pipeline_rank(rank);
  if (layout.zero_stage == 3)
    options.lists = {layout.schedule.ranks[pipeline_rank],
                     layout.evaluation_schedule(2 * layout.evaluation_group).ranks[pipeline_rank]};
  return options;
}

}  // namespace tessera
