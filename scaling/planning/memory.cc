#include "scaling/planning/memory.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "optim/clip.h"
#include "optim/ownership.h"
#include "parallel/context/source.h"
#include "parallel/pipeline.h"

namespace tessera {
namespace {

std::vector<const Stage*> as_stages(const std::vector<std::unique_ptr<Transformer>>& stages) {
  std::vector<const Stage*> seen;
  for (const auto& stage : stages) seen.push_back(stage.get());
  return seen;
}

// Of all pipelines of a rank: the training step's and each validation set's.
PipelineBytes pipeline_bytes(const Layout& layout, const std::vector<std::unique_ptr<Transformer>>& stages, int rank,
                             int validation_sets) {
  const std::vector<const Stage*> seen = as_stages(stages);
  const int pipeline_rank = layout.pipeline_rank(rank);
  PipelineBytes bytes = Pipeline::bytes(seen, layout.schedule, layout.figures, pipeline_rank);
  if (validation_sets == 0) return bytes;
  const PipelineSchedule evaluation = layout.evaluation_schedule(layout.microbatches);
  const PipelineBytes each = Pipeline::bytes(seen, evaluation, verify(evaluation), pipeline_rank);
  bytes.messages += validation_sets * each.messages;
  bytes.offloaded += validation_sets * each.offloaded;
  return bytes;
}

// What tells parameters apart in how they are shared out. Blocks of one kind have the same few.
using SharedOut = std::tuple<int64_t, AxisSet, bool, int64_t>;  // rows, replicas, whole matrix, ordinal if it matters

std::map<SharedOut, const Parameter*> by_sharing(const Parameters& parameters) {
  std::map<SharedOut, const Parameter*> kinds;
  for (const Parameter* parameter : parameters) {
    if (parameter->tied_to != nullptr) continue;
    kinds[{parameter->rows.size(), parameter->replicas, parameter->whole_matrix,
           parameter->whole_matrix ? parameter->ordinal : 0}] = parameter;
  }
  return kinds;
}

}  // namespace

std::vector<MemoryLine> memory(const Layout& layout, const std::vector<std::unique_ptr<Transformer>>& stages, int rank,
                               const MemoryRequest& request) {
  const Parameters parameters = parameters_of(stages);
  const ZeroOptimizer::Bytes optimizer =
      ZeroOptimizer::bytes(parameters, layout.mesh, rank, optimizer_options(layout, rank));
  int64_t weights = optimizer.weights, activations = 0, workspace = 0;
  for (const auto& stage : stages) {
    weights += stage->weights_bytes();
    activations += stage->activations_bytes();
    workspace = std::max(workspace, stage->workspace_bytes(request.target));
  }
  const PipelineBytes pipelines = pipeline_bytes(layout, stages, rank, request.validation_sets);
  const int64_t dealt = layout.mesh.cp == 1
                            ? 0
                            : (1 + request.validation_sets) * ContextSource::bytes(layout.context, layout.microbatches);
  const Device device = request.target.device;
  std::vector<MemoryLine> lines = {{"weights", weights, device},
                                   {"gathered weights", optimizer.gathered, device},
                                   {"gradients", optimizer.gradients, device},
                                   {"optimizer state", optimizer.state, device},
                                   {"activations", activations, device},
                                   {"messages between stages", pipelines.messages, device},
                                   {"offloaded activations", pipelines.offloaded},
                                   {"workspace", workspace, device},
                                   {"dealt tokens", dealt},
                                   {"data", request.loader_bytes}};
  if (device == Device::Cuda) lines.push_back({"sums of squares", GradientNorm::bytes(parameters), device});
  return lines;
}

std::vector<MemoryLine> memory(const Layout& layout, int rank, const MemoryRequest& request) {
  const StageOptions options{.device = request.target.device, .graphs = request.graphs};
  return memory(layout, make_stages(layout, rank, options), rank, request);
}

int64_t total_bytes(std::span<const MemoryLine> lines) {
  int64_t bytes = 0;
  for (const MemoryLine& line : lines) bytes += line.bytes;
  return bytes;
}

int64_t total_bytes(std::span<const MemoryLine> lines, Device device) {
  int64_t bytes = 0;
  for (const MemoryLine& line : lines) bytes += line.device == device ? line.bytes : 0;
  return bytes;
}

std::vector<RankClass> memory_classes(const Layout& layout, const MemoryRequest& request) {
  const MeshShape& mesh = layout.mesh;
  const int replicas = mesh.dp * mesh.cp;  // ranks of one pipeline and tensor coordinate
  const int pipeline_stride = mesh.size() / mesh.pp;
  const StageOptions options{.device = request.target.device, .graphs = request.graphs};
  std::vector<RankClass> classes;
  for (int pp = 0; pp < mesh.pp; ++pp) {
    for (int tp = 0; tp < mesh.tp; ++tp) {
      const int first = pp * pipeline_stride + tp;
      const auto stages = make_stages(layout, first, options);
      const auto kinds = by_sharing(parameters_of(stages));
      std::map<std::vector<int64_t>, RankClass> by_rows;  // by the rows that a rank owns of each kind
      for (int replica = 0; replica < (layout.zero_stage == 0 ? 1 : replicas); ++replica) {
        const int rank = first + replica * mesh.tp;
        std::vector<int64_t> rows;
        for (const auto& [kind, parameter] : kinds)
          rows.push_back(ownership(*parameter, mesh, rank, layout.zero_stage).rows.size());
        RankClass& same = by_rows[rows];
        if (same.ranks++ == 0) same.first_rank = rank;
      }
      for (auto& [rows, same] : by_rows) {
        if (layout.zero_stage == 0) same.ranks = replicas;
        same.lines = memory(layout, stages, same.first_rank, request);
        const auto equal = std::find_if(classes.begin(), classes.end(), [&](const RankClass& other) {
          return std::equal(other.lines.begin(), other.lines.end(), same.lines.begin(), same.lines.end(),
                            [](const MemoryLine& a, const MemoryLine& b) { return a.bytes == b.bytes; });
        });
        if (equal == classes.end())
          classes.push_back(same);
        else
          equal->ranks += same.ranks;
      }
    }
  }
  std::stable_sort(classes.begin(), classes.end(),
                   [](const RankClass& a, const RankClass& b) { return total_bytes(a.lines) > total_bytes(b.lines); });
  return classes;
}

}  // namespace tessera
